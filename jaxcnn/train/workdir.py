"""The folder of a run: who may use it, and what says which run it is."""

import contextlib
import errno
import fcntl
import functools
import json
import logging
import os
import pathlib
import platform
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, TextIO

import jax

from jaxcnn import config as configs
from jaxcnn.config import Config, UserError
from jaxcnn.data.examples import worker_count
from jaxcnn.data.source import Splits
from jaxcnn.lifeline import Cluster
from jaxcnn.meeting import HostsError

PACKAGES = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")
# Keys that never change a result: where data lies, how it is loaded, on how many devices.
MAY_CHANGE = ("parallel.", "hosts.", "data.dir", "data.workers", "data.loader", "data.resident_gib")
CONFIG, DATA = "config.json", "data.json"
_log = logging.getLogger("jaxcnn")


@contextlib.contextmanager
def claim(workdir: pathlib.Path, seconds: float | None = None) -> Iterator[None]:
    """Create the workdir if need be, and hold it for this process alone.

    Args:
      workdir: to hold.
      seconds: to wait for another holder to end, which may be what a failure left of the same run; None: there is no
        such other, so do not wait.

    Raises:
      HostsError: another process still held it after `seconds`; the same command may succeed later.
      UserError: it cannot be written, or another run holds it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error.strerror}; choose another folder") from error
    with lock:
        if not _locked(lock):
            holder = _holder(lock)
            if seconds is None:
                raise UserError(f"--workdir={workdir} is in use by {holder}; wait for it, or choose another")
            _log.warning("waiting for %s, which holds %s", holder, workdir)
            deadline = time.monotonic() + seconds
            while not _locked(lock):
                if time.monotonic() > deadline:
                    raise HostsError(
                        f"--workdir={workdir} is in use by {_holder(lock)}, and was for config.hosts.join_seconds; if "
                        "that is left of a failure (kill -KILL ends even a stopped process), the same command goes on"
                    )
                time.sleep(0.2)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield


def _locked(lock: TextIO) -> bool:
    """Take the lock of an open file, if nobody holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _holder(lock: TextIO) -> str:
    lock.seek(0)
    return lock.read().strip() or "another process"


def check_shared(workdir: pathlib.Path, cluster: Cluster) -> None:
    """Refuse a workdir that is not the same folder for all processes.

    Raises:
      UserError: one of them does not see what process 0 wrote there.
    """
    if cluster.alone:
        return
    token = workdir / f".seen-by-all-{cluster.of_first(lambda: os.urandom(4).hex())}"
    if cluster.first:
        token.touch()
    cluster.gather()
    deadline = time.monotonic() + 10  # a file server may tell of a new file late
    while not (seen := _sees(token)) and time.monotonic() < deadline:
        time.sleep(0.2)
    blind = [cluster.hosts[process] for process, sees in enumerate(cluster.gather(seen)) if not sees]
    if cluster.first:
        token.unlink()
    if blind:
        raise UserError(
            f"--workdir={workdir} is not the same folder on {', '.join(sorted(set(blind)))} as on {cluster.hosts[0]}; "
            "choose one on a file system that all hosts share"
        )


def _sees(token: pathlib.Path) -> bool:
    with contextlib.suppress(OSError):
        os.listdir(token.parent)  # makes a client of NFS look anew
    return token.exists()


def check_config(workdir: pathlib.Path, config: Config) -> None:
    """Hold a config against the one that the workdir may have.

    Raises:
      UserError: the workdir belongs to a run of another config; the message has a line for each key that differs.
    """
    if not (workdir / CONFIG).exists():
        return
    # A key that an older version did not write has its default.
    there = configs.flatten(_plain(Config())) | configs.flatten(read_json(workdir / CONFIG))
    here = configs.flatten(_plain(config))
    absent = "absent"
    differ = [
        f"  config.{key}: {there.get(key, absent)} in the workdir, {here.get(key, absent)} now"
        for key in sorted(there.keys() | here.keys())
        if there.get(key, absent) != here.get(key, absent) and not key.startswith(MAY_CHANGE)
    ]
    if differ:
        raise UserError(
            f"--workdir={workdir} holds a run of another config; choose another workdir, or undo:\n" + "\n".join(differ)
        )


def write_config(workdir: pathlib.Path, config: Config) -> None:
    """Write `config.json`, once the run has proved possible."""
    write_json(workdir / CONFIG, _plain(config))


def read_config(workdir: pathlib.Path) -> Config:
    """The config of a workdir.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    return configs.from_config_dict(read_json(workdir / CONFIG))


def _plain(config: Config) -> dict[str, Any]:
    return json.loads(json.dumps(configs.to_dict(config)))


def check_same_data(cluster: Cluster, splits: Splits) -> None:
    """Hold the data of all processes against each other.

    Raises:
      UserError: one of them reads other data.
    """
    facts = cluster.gather(_data_facts(splits))
    for host, here in zip(cluster.hosts, facts, strict=False):
        if differ := [key for key in here if facts[0][key] != here[key]]:
            raise UserError(
                f"the data on {host} is not that on {cluster.hosts[0]} ({', '.join(differ)} differ); see "
                "config.data.dir and config.data.source there"
            )


def check_data_facts(workdir: pathlib.Path, splits: Splits) -> None:
    """Hold the data against that of the run the workdir may have.

    Raises:
      UserError: other classes, image sizes, examples or labels than when the run began.
    """
    if not (workdir / DATA).exists():
        return
    there, here = read_json(workdir / DATA), _data_facts(splits)
    differ = [key for key in here if there.get(key) != here[key]]
    if differ:
        raise UserError(
            f"the data is not what the run in --workdir={workdir} began with ({', '.join(differ)} differ from "
            f"{DATA}); bring it back, or choose another workdir"
        )


def write_data_facts(workdir: pathlib.Path, splits: Splits) -> None:
    """Write `data.json`: what of the data a network depends on, so that a workdir is enough to use it."""
    write_json(workdir / DATA, _data_facts(splits))


def read_data_facts(workdir: pathlib.Path) -> dict[str, Any]:
    """What `write_data_facts` wrote.

    Raises:
      UserError: it is not there.
    """
    facts = read_json(workdir / DATA)
    if missing := [key for key in ("class_names", "image_shape", "train_examples") if key not in facts]:
        raise UserError(
            f"{workdir / DATA} lacks {', '.join(missing)}; bring it back from a copy, or train anew elsewhere"
        )
    return facts


def _data_facts(splits: Splits) -> dict[str, Any]:
    there_are = [split for split in (splits.train, splits.val, splits.test) if split is not None]
    return {
        "class_names": list(splits.class_names),
        "image_shape": list(splits.train.image_shape),
        "train_examples": len(splits.train),
        "splits": {split.name: split.description for split in there_are},
        "labels_crc32": {split.name: zlib.crc32(split.labels.astype("<i4").tobytes()) for split in there_are},
    }


def write_environment(workdir: pathlib.Path, command: list[str], hosts: Sequence[str] = ()) -> None:
    """Write `environment.json`: what this start of the run was made with, and, as "earlier", all starts before it."""
    path = workdir / "environment.json"
    earlier = []
    if path.exists():
        before = read_json(path)
        earlier = [*before.pop("earlier", []), before]
    write_json(path, environment(command) | {"hosts": list(hosts) or [platform.node()], "earlier": earlier})


def environment(command: list[str]) -> dict[str, Any]:
    """Versions, devices, machine, source commit and command: what figures of this run were made with."""
    device = jax.local_devices()[0]
    return {
        "command": command,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
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


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file of a workdir.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; is {path.parent} the folder of a run that got to training?") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); bring it back from a copy, or start anew elsewhere"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; bring it back from a copy, or start anew elsewhere")
    return value


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
