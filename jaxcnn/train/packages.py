"""The optional packages that a run will need, asked for before its data is read and anything is compiled."""

from jaxcnn.config import Config
from jaxcnn.machine import extras

_OF_BOXES = ("detection", "instances")


def check(config: Config) -> None:
    """Refuse a run that a missing package would end later.

    Those that depend on the data, such as of a manifest in Parquet, are asked for where the data is opened. Without
    matplotlib and tensorboardX a run goes on, with a remark.

    Raises:
      MissingExtra: a package is not installed.
    """
    task = config.task.name
    if task in _OF_BOXES and (config.data.protocol == "holdout" or config.data.test_split):
        extras.need("detect", f"the average precision of config.task.name={task!r}")
    if task == "segmentation" and config.data.source.partition(":")[0] == "coco":
        extras.need("detect", "filling the polygons of a set in COCO's form")
    for name in config.run.loggers:
        if name in extras.EXTRAS:
            extras.need(name, f"config.run.loggers=({name!r},)")
