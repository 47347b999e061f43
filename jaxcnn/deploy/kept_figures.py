"""Figures of a network and of its files that stay in the folder of the run, for the report: latency, and accuracy.

`latency-<what>-<machine>.json` has the last times of the run in JAX, or of one of its files, on one machine;
`<file>.verified.json`, beside a file, the figures that `--verify` found for exactly these bytes.
"""

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxcnn.config import UserError
from jaxcnn.machine import json_text, whole_files
from jaxcnn.text import counted

if TYPE_CHECKING:
    from jaxcnn.deploy.verify import Verdict

OF_RUN = "jax"  # in place of the name of a file
RUN = "config.json"  # the file that every run has
SPLIT = "val"  # where the accuracy of the report comes from
_LONGEST = 100  # letters of a machine in the name of a file


def machine(figures: Mapping[str, Any]) -> str:
    """What times were measured on, in words: the accelerator, if there is one, and the cores of the process."""
    of_process = f"{counted(figures['cores'], 'core')} of {figures.get('processor')}"
    return of_process if figures.get("backend", "cpu") == "cpu" else f"{figures.get('device')}, {of_process}"


def keep_latency(path: pathlib.Path, figures: dict[str, Any]) -> pathlib.Path | None:
    """Write the times of a run or of a file of it; return the path, or None if they belong to no run.

    Args:
      path: the folder of the run, or the file.
      figures: as `python -m jaxcnn.latency --out` writes them; those of different machines are kept apart.
    """
    is_run = (path / RUN).is_file()
    folder, what = (path, OF_RUN) if is_run else (path.parent, path.name)
    if not (folder / RUN).is_file() or not (is_run or path.is_file()):
        return None
    told = figures if is_run else figures | {"file": path.name, "verified": _verified(path)}
    place = re.sub("[^a-z0-9]+", "-", machine(figures).lower()).strip("-")[:_LONGEST]
    kept = folder / f"latency-{what}-{place}.json"
    try:
        whole_files.write(kept, json.dumps(told, indent=2) + "\n")
    except OSError:
        return None  # the figures were printed, and nobody has to have write access to time a file
    return kept


def missing(path: pathlib.Path) -> str:
    """What the report still needs of a run or of a file of it, in words; empty if nothing."""
    if not path.is_file() or (_verified(path) or {}).get("split") == SPLIT:
        return ""
    from jaxcnn.deploy import runtimes  # which imports JAX

    if path.suffix == runtimes.COMPRESSED:
        return "the report leaves it out: --verify is for files that have the whole network, and for safetensors"
    return (
        f"the report leaves it out until jaxcnn.export --verify --split={SPLIT} wrote this file, and it is timed again"
    )


def is_still(path: pathlib.Path, told: Any) -> bool:
    """Whether a file has the given SHA-256."""
    try:
        return path.is_file() and _digest(path) == told
    except OSError:
        return False


def keep_verdict(path: pathlib.Path, verdict: "Verdict", split: str) -> None:
    """Write the figures of a file beside it; not of a folder.

    Raises:
      UserError: they cannot be written.
    """
    if not path.is_file():
        return
    told = {
        "sha256": _digest(path),
        "split": split,
        "examples": verdict.examples,
        "agreement": verdict.agreement,
        "figures": {name: of_file for name, _, of_file in verdict.figures},
    }
    try:
        whole_files.write(_beside(path), json.dumps(told, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{_beside(path)} cannot be written: {error.strerror}") from error


def _verified(path: pathlib.Path) -> dict[str, Any] | None:
    """What `keep_verdict` wrote of exactly this file; None if nothing."""
    try:
        told = json_text.parse(_beside(path).read_text(encoding="utf-8"))
        return told if isinstance(told, dict) and told.get("sha256") == _digest(path) else None
    except (OSError, ValueError):
        return None


def _beside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.verified.json")


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
