"""Checks of a workdir's files against its newest checkpoint, so that a file changed by others is reported."""

import pathlib
import zlib
from typing import Any

import numpy as np

from jaxcnn.config import Config, UserError
from jaxcnn.data.batch import Constants
from jaxcnn.data.source import Splits
from jaxcnn.train import environment, normalization, same_data, seals, workdir


def of(splits: Splits, normal: Constants) -> dict[str, Any]:
    """The part of a checkpoint's record that is also in other files of the workdir."""
    kept = {"data": workdir.data_facts(splits), "normalization": _plain(normal), "packages": environment.packages()}
    return kept | ({"task_crc32": same_data.checksum(normal.task)} if normal.task else {})


def check(folder: pathlib.Path, config: Config, facts: dict[str, Any], normal: Constants | None = None) -> None:
    """Check config, data and normalisation of a network against the newest checkpoint; older versions recorded less.

    Args:
      folder: the workdir; without a checkpoint whose record is whole, nothing is checked.
      config: config of the run, from `config.json` or the command.
      facts: facts of the data, from `workdir.data_facts`.
      normal: normalisation of the images; None if not known yet.

    Raises:
      UserError: one of them differs from what the checkpoint was made with; the message names the file.
    """
    newest = seals.newest_record(folder / "checkpoints")
    if newest is None:
        return
    step, record = newest
    may_change = (*workdir.MAY_CHANGE, *workdir.UNTIL_THE_TEST)
    if "config" in record and (differ := workdir.differences(record["config"], config, "the checkpoint", may_change)):
        raise _changed(folder / workdir.CONFIG, step, "\n".join(["", *differ, ""]))
    if "data" in record and (differ := same_data.differing(record["data"], facts)):
        raise _changed(folder / workdir.DATA, step, f"{', '.join(differ)} differ")
    if normal is not None and record.get("normalization", now := _plain(normal)) != now:
        raise _changed(folder / normalization.FILE, step, "mean and std differ")
    if normal is not None and normal.task and record.get("task_crc32", own := same_data.checksum(normal.task)) != own:
        raise UserError(
            f"the class weights, or the network in config.task.teacher, have changed since checkpoint {step} in "
            f"{folder}; restore what the run began with, or start again in another workdir"
        )


def damage(folder: pathlib.Path, last: object) -> list[str]:
    """One line for each file of a run that finished with step `last` that is not as the run left it; never raises."""
    found = []
    try:
        config, facts = workdir.read_config(folder), workdir.read_data_facts(folder)
        normal = normalization.read(folder, config.augment.normalize, facts["image_shape"][-1])
        check(folder, config, facts, normal)
    except UserError as error:
        found.append(" ".join(str(error).split()).partition(";")[0])
    newest = seals.newest_record(folder / "checkpoints")
    if newest is not None and not _has_log(folder / "metrics.jsonl", newest[1].get("progress", {})):
        found.append(f"{folder}/metrics.jsonl has changed since checkpoint {newest[0]}")
    if isinstance(last, int) and (newest is None or newest[0] < last):
        found.append(f"{folder}/checkpoints has no whole checkpoint of the last step {last}; restore it from a backup")
    return found


def _has_log(path: pathlib.Path, progress: dict[str, Any]) -> bool:
    """Whether a log begins with the lines that it had when a checkpoint was made."""
    length, crc32 = progress.get("log_bytes", 0), progress.get("log_crc32")
    if crc32 is None:  # written by an older version
        return True
    if not path.is_file():
        return False
    lines = path.read_bytes()[:length]
    return len(lines) == length and zlib.crc32(lines) == crc32


def _changed(path: pathlib.Path, step: int, how: str) -> UserError:
    return UserError(
        f"{path} has changed since checkpoint {step} ({how}); restore it from a backup, or start again in another "
        "workdir"
    )


def _plain(normal: Constants) -> dict[str, list[float]]:
    return {
        name: [float(x) for x in np.asarray(values)] for name, values in (("mean", normal.mean), ("std", normal.std))
    }
