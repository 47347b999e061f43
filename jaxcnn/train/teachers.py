"""The teacher of a run: the trained network of another workdir."""

import functools
import pathlib
from typing import Any

import jaxcnn.config as configuration
from jaxcnn.config import ConfigError
from jaxcnn.data.source import Splits
from jaxcnn.learn.teacher import TrainedTeacher
from jaxcnn.machine.paths import expand
from jaxcnn.train import seals, trained, workdir

KEY = "config.task.teacher"


def folder_of(config: configuration.Config) -> pathlib.Path:
    """The workdir of the teacher."""
    return expand(config.task.teacher, f"{KEY}=")


def of(config: configuration.Config, splits: Splits) -> TrainedTeacher:
    """The teacher of a run on these splits.

    Raises:
      UserError: the workdir has no run.
      ConfigError: the teacher's network is for another task, other classes, or images of another size or type.
    """
    folder = folder_of(config)
    facts, own = workdir.read_data_facts(folder), workdir.read_config(folder)
    for what, theirs, ours in (
        ("config.task.name", own.task.name, config.task.name),
        ("config.data.dtype", own.data.dtype, config.data.dtype),
    ):
        if theirs != ours:
            raise ConfigError(
                f"{KEY}={config.task.teacher!r} was trained with {what}={theirs!r}, but this run has {ours!r}; choose "
                "another teacher"
            )
    if tuple(facts["class_names"]) != splits.class_names:
        raise ConfigError(f"{KEY}={config.task.teacher!r} was trained on other classes than {splits.train.description}")
    shape = tuple(facts["image_shape"])
    if shape != splits.train.image_shape:
        raise ConfigError(
            f"{KEY}={config.task.teacher!r} was trained on images of {shape}, but those of {splits.train.description} "
            f"are {splits.train.image_shape}"
        )
    return TrainedTeacher(trained.spec_of(own, facts))


def constants(config: configuration.Config) -> dict[str, Any]:
    """The constants of the teacher: the weights of the checkpoint that its test used.

    Raises:
      UserError: the workdir has no sound checkpoint.
    """
    folder = folder_of(config).absolute()
    newest = seals.newest_record(folder / "checkpoints")
    return _constants(folder, None if newest is None else newest[1]["crc32"])


@functools.lru_cache(maxsize=1)  # the runs of a sweep share it, as long as its newest checkpoint is the same
def _constants(folder: pathlib.Path, _: int | None) -> dict[str, Any]:
    network = trained.load(folder, trained.TESTED, "", 1)[0]
    variables = {"batch_stats": {}, **network.variables}
    return {"variables": variables, "mean": network.constants.mean, "std": network.constants.std}
