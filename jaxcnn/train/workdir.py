"""The folder of a run: who may use it, and what says which run it is."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import jax

from jaxcnn import config as configs
from jaxcnn.config import Config, UserError
from jaxcnn.data.source import Splits

PACKAGES = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")
MAY_CHANGE = "parallel."  # keys that never change a result


@contextlib.contextmanager
def claim(workdir: pathlib.Path) -> Iterator[None]:
    """Create the workdir if need be, and hold it for this process alone.

    Raises:
      UserError: it cannot be written, or another run holds it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error.strerror}; choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise UserError(f"--workdir={workdir} is in use by {holder}; wait for it, or choose another") from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield


def pin_config(workdir: pathlib.Path, config: Config) -> None:
    """Write `config.json`, or hold the config against the one that is there.

    Raises:
      UserError: the workdir belongs to a run of another config; the message has a line for each key that differs.
    """
    path = workdir / "config.json"
    here = json.loads(json.dumps(configs.to_dict(config)))
    if path.exists():
        # A key that an older version did not write has its default.
        there = configs.flatten(configs.to_dict(Config())) | configs.flatten(read_config(workdir, checked=False))
        there = json.loads(json.dumps(there))
        flat = configs.flatten(here)
        absent = "absent"
        differ = [
            f"  config.{key}: {there.get(key, absent)} in the workdir, {flat.get(key, absent)} now"
            for key in sorted(there.keys() | flat.keys())
            if there.get(key, absent) != flat.get(key, absent) and not key.startswith(MAY_CHANGE)
        ]
        if differ:
            raise UserError(
                f"--workdir={workdir} holds a run of another config; choose another workdir, or undo:\n"
                + "\n".join(differ)
            )
    write_json(path, here)


def read_config(workdir: pathlib.Path, *, checked: bool = True) -> Any:
    """The config of a workdir: a `Config`, or the plain dictionary if not `checked`.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    path = workdir / "config.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; is --workdir={workdir} the folder of a run?") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return configs.from_config_dict(tree) if checked else tree


def write_data_facts(workdir: pathlib.Path, splits: Splits) -> None:
    """Write `data.json`: what of the data the network's shape and labels depend on, so that a workdir is enough."""
    facts = {
        "class_names": list(splits.class_names),
        "image_shape": list(splits.train.image_shape),
        "train_examples": len(splits.train),
        "splits": {s.name: s.description for s in (splits.train, splits.val, splits.test) if s is not None},
    }
    write_json(workdir / "data.json", facts)


def read_data_facts(workdir: pathlib.Path) -> dict[str, Any]:
    """What `write_data_facts` wrote.

    Raises:
      UserError: it is not there.
    """
    path = workdir / "data.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); is --workdir={workdir} the folder of a run?") from error


def environment(command: list[str]) -> dict[str, Any]:
    """Versions, devices, machine, source commit and command: what figures of this run were made with."""
    device = jax.local_devices()[0]
    return {
        "command": command,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "backend": jax.default_backend(),
        "commit": _commit(),
    }


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write JSON so that a reader, or a crash, never meets half a file."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or sys.platform


def _commit() -> str | None:
    """The commit of the source tree that this package runs from, "+" added if the tree was changed."""
    folder = pathlib.Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip()
