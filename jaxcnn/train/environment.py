"""The environment of a run, in `environment.json`: versions, devices, machine, source commit and command."""

import functools
import logging
import os
import pathlib
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

import jax

from jaxcnn.config import UserError
from jaxcnn.data.examples import worker_count
from jaxcnn.machine import extras, instructions
from jaxcnn.train.workdir import free_name, read_json, write_json

PACKAGES = (
    *("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    *("pillow", "tensorflow-datasets"),
)
_log = logging.getLogger("jaxcnn")


def write(workdir: pathlib.Path, command: list[str], hosts: Sequence[str] = ()) -> None:
    """Write `environment.json`: the environment of this start of the run and, as "earlier", of all starts before it.

    No result depends on the file, so a damaged one stops no run; it is kept under another name.
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
    """The environment of this start: versions, devices, machine, source commit and command."""
    device = jax.local_devices()[0]
    return {
        "command": command,
        "python": platform.python_version(),
        "packages": packages(),
        "platform": platform.platform(),
        "processor": instructions.processor(),
        "cores": worker_count(),
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "processes": jax.process_count(),
        "backend": jax.default_backend(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "commit": _commit(pathlib.Path(__file__)),
    }


def packages() -> dict[str, str | None]:
    """Versions of the packages that compute, load and save; None for one that is not installed."""
    return {name: _version(name) for name in PACKAGES}


@functools.cache  # each checkpoint tells them, and reading them takes longer than a small step
def _version(package: str) -> str | None:
    return extras.version(package)


@functools.cache
def _commit(source: pathlib.Path) -> str | None:
    """The commit of the repository that tracks this source file, plus "+" if its tree was changed; None without one.

    Installed packages may lie inside a repository that does not track them.
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
