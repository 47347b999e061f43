"""The statistics for normalising images: those of the training split, computed once and kept in the workdir."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np

from jaxcnn.config import UserError
from jaxcnn.data import place
from jaxcnn.data.batch import Constants, Split
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.machine.mesh import put
from jaxcnn.train import workdir

FILE = "normalization.json"


Statistics = Callable[[Split], tuple[np.ndarray, np.ndarray]]


def of_split(
    train: Split,
    normalize: bool,
    folder: pathlib.Path,
    sharding: jax.sharding.NamedSharding,
    statistics: Statistics,
    cluster: Cluster,
) -> Constants:
    """Mean and standard deviation of the training split, read from the workdir or else computed and written there.

    Without `normalize`, they are 0 and 1. Process 0 computes them by `statistics`, for all processes.

    Raises:
      UserError: those in the workdir belong to other data.
    """
    if normalize and cluster.first:
        _keep(train, folder, statistics)
    normal = read(folder, normalize, train.image_shape[-1]) if cluster.first else None
    mean, std = cluster.of_first(lambda: [[float(x) for x in values] for values in (normal.mean, normal.std)])  # type: ignore[union-attr]
    return put(Constants(np.array(mean, np.float32), np.array(std, np.float32)), sharding)


def read(folder: pathlib.Path, normalize: bool, channels: int) -> Constants:
    """The normalisation of a finished or interrupted run; 0 and 1 if it does not `normalize`.

    Raises:
      UserError: it should be in the workdir, but is missing or damaged.
    """
    if not normalize:
        return Constants(np.zeros(channels, np.float32), np.ones(channels, np.float32))
    kept = workdir.read_sealed(folder / FILE)
    try:
        mean, std = (np.array(kept[name], np.float32) for name in ("mean", "std"))
        if mean.shape == std.shape == (channels,) and np.all(np.isfinite(mean)) and np.all(std > 0):
            return Constants(mean, std)
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(
        f"{folder / FILE} does not contain the mean and std of {channels} channels; restore it from a backup, or start "
        "again in another workdir"
    )


def _keep(train: Split, folder: pathlib.Path, statistics: Statistics) -> None:
    """Check the statistics in the workdir against the training split; compute and write them if missing."""
    path = folder / FILE
    if path.exists() and (folder / workdir.CONFIG).exists():  # written by a run that reached training
        kept = workdir.read_sealed(path)
        there, here = (place.without_place(str(text)) for text in (kept.get("split"), train.description))
        if there != here or kept.get("examples") != len(train):
            raise UserError(
                f"{path} was computed from {kept.get('split')} with {kept.get('examples')} examples, but the data is "
                f"now {train.description} with {len(train)}; restore the data, or choose another workdir"
            )
        return
    mean, std = statistics(train)
    values = {"mean": [float(x) for x in mean], "std": [float(x) for x in std]}
    workdir.write_sealed(path, {"split": train.description, "examples": len(train), **values})
