"""What the checkpoints of a run say of its other files, so that one that another hand changed is told."""

import pathlib
import zlib
from typing import Any

import numpy as np

from jaxcnn.config import Config, UserError
from jaxcnn.data.batch import Normalization
from jaxcnn.data.source import Splits
from jaxcnn.train import environment, normalization, same_data, seals, workdir


def of(splits: Splits, normal: Normalization) -> dict[str, Any]:
    """The part of a checkpoint's record that other files of the workdir hold as well."""
    return {"data": workdir.data_facts(splits), "normalization": _plain(normal), "packages": environment.packages()}


def check(folder: pathlib.Path, config: Config, facts: dict[str, Any], normal: Normalization | None = None) -> None:
    """Hold what a network is used with against the newest checkpoint; one of an older version has less to say.

    Args:
      folder: the workdir; where it has no checkpoint whose record is whole, there is nothing to hold against.
      config: of the run, from `config.json` or the command.
      facts: of the data, as of `workdir.data_facts`.
      normal: what images are normalised by; None: not known yet.

    Raises:
      UserError: something is not what the checkpoint was made with; the message names the file.
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


def damage(folder: pathlib.Path) -> list[str]:
    """One line for each file of a finished run that is not as the run left it; nothing is raised."""
    found = []
    try:
        config, facts = workdir.read_config(folder), workdir.read_data_facts(folder)
        normal = normalization.read(folder, config.augment.normalize, facts["image_shape"][-1])
        check(folder, config, facts, normal)
    except UserError as error:
        found.append(" ".join(str(error).split()).partition(";")[0])
    newest = seals.newest_record(folder / "checkpoints")
    if newest is not None and not _has_log(folder / "metrics.jsonl", newest[1].get("progress", {})):
        found.append(f"{folder}/metrics.jsonl is not what checkpoint {newest[0]} was made with")
    return found


def _has_log(path: pathlib.Path, progress: dict[str, Any]) -> bool:
    """Whether a log begins with the lines that were there when a checkpoint was made."""
    length, crc32 = progress.get("log_bytes", 0), progress.get("log_crc32")
    if crc32 is None:  # of an older version
        return True
    if not path.is_file():
        return False
    lines = path.read_bytes()[:length]
    return len(lines) == length and zlib.crc32(lines) == crc32


def _changed(path: pathlib.Path, step: int, how: str) -> UserError:
    return UserError(
        f"{path} is not what checkpoint {step} was made with ({how}); bring it back from a copy, or start anew "
        "elsewhere"
    )


def _plain(normal: Normalization) -> dict[str, list[float]]:
    return {
        name: [float(x) for x in np.asarray(values)] for name, values in (("mean", normal.mean), ("std", normal.std))
    }
