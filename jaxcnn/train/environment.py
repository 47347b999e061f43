"""What figures are made with: versions, devices, machine, source commit and command, in `environment.json`."""

import contextlib
import functools
import logging
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax

from jaxcnn.config import UserError
from jaxcnn.data.examples import worker_count
from jaxcnn.train.workdir import free_name, read_json, write_json

PACKAGES = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")
_log = logging.getLogger("jaxcnn")


def write(workdir: pathlib.Path, command: list[str], hosts: Sequence[str] = ()) -> None:
    """Write `environment.json`: what this start of the run was made with, and, as "earlier", all starts before it.

    Nothing hangs on it, so one that is damaged stops no run; it is kept beside.
    """
    path = workdir / "environment.json"
    earlier = []
    if path.exists():
        try:
            before = read_json(path)
            earlier = [*before.pop("earlier", []), before]
        except (UserError, TypeError) as error:
            aside = free_name(path.with_stem("environment-damaged"))
            path.replace(aside)
            _log.warning("%s; kept as %s", str(error).partition(";")[0], aside.name)
    write_json(path, facts(command) | {"hosts": list(hosts) or [platform.node()], "earlier": earlier})


def facts(command: list[str]) -> dict[str, Any]:
    """Versions, devices, machine, source commit and command: what figures of this run were made with."""
    device = jax.local_devices()[0]
    return {
        "command": command,
        "python": platform.python_version(),
        "packages": packages(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": worker_count(),
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "processes": jax.process_count(),
        "backend": jax.default_backend(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "commit": _commit(pathlib.Path(__file__)),
    }


def packages() -> dict[str, str | None]:
    """Versions of what computes, loads and saves."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or sys.platform


@functools.cache
def _commit(source: pathlib.Path) -> str | None:
    """The commit of the repository that has this source file, "+" added if its tree was changed; None if none has.

    A folder where packages are installed may lie in a repository that knows nothing of them.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=source.parent, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        return git("describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
