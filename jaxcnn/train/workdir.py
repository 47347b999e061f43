"""The folder of a run: its lock, and the files that identify the run."""

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import jaxcnn.config as configs
from jaxcnn.config import Config, UserError
from jaxcnn.config.rules_of_data import HELD_OUT
from jaxcnn.data import place
from jaxcnn.data.source import Splits
from jaxcnn.machine import json_text, locks, plugins, whole_files
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.machine.meeting import HostsError
from jaxcnn.text import distinct, shown
from jaxcnn.train import length, same_data, seals
from jaxcnn.train.checksum import crc32_of, is_whole

# Keys that never change a result: location and loading of the data, number of devices, logging, kept checkpoints.
MAY_CHANGE = (
    *("parallel.", "hosts.", "data.dir", "data.workers", "data.loader", "data.resident_gib", "data.cache"),
    *("data.images_below", "checkpoint.", "run.log_every_steps", "run.tensorboard", "run.loggers", "run.curves"),
)
UNTIL_THE_TEST = ("run.test_with",)
CONFIG, DATA = "config.json", "data.json"
_log = logging.getLogger("jaxcnn")


@contextlib.contextmanager
def claim(workdir: pathlib.Path, seconds: float | None = None) -> Iterator[None]:
    """Create the workdir if missing, and lock it for this process.

    If the file system has no locks, exclusive use is left to the user, after a remark.

    Args:
      workdir: the folder to lock.
      seconds: seconds to wait for another holder, which may be left of a failure of the same run; None: that cannot be,
        so do not wait.

    Raises:
      HostsError: another process still held it after `seconds`; the same command may succeed later.
      UserError: its path is not Unicode, it cannot be written, or another run holds it.
    """
    try:
        str(workdir.absolute()).encode()
    except UnicodeEncodeError as error:  # TensorStore, which writes checkpoints, takes no bytes as a path
        raise UserError(f"--workdir={shown(str(workdir))}: its path must be valid Unicode; choose another") from error
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
            _log.warning("waiting for %s, which uses %s", holder, workdir)
            deadline = time.monotonic() + seconds
            while not _locked(lock):
                if time.monotonic() > deadline:
                    raise HostsError(
                        f"--workdir={workdir} has been in use by {_holder(lock)} for config.hosts.join_seconds; if "
                        "that process is left over from a failure, end it (kill -KILL ends even a stopped process) "
                        "and run the same command again"
                    )
                time.sleep(0.2)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield


def _locked(lock: TextIO) -> bool:
    """Lock the open file in a workdir; return False if another process holds the lock."""
    folder = pathlib.Path(lock.name).parent
    try:
        return locks.take(lock, wait=False)
    except locks.NoLocksError as error:
        locks.tell(folder, error, "run")
        return True
    except OSError as error:
        raise UserError(f"--workdir={folder} cannot be locked: {error.strerror}; choose another folder") from error


def _holder(lock: TextIO) -> str:
    lock.seek(0)
    return lock.read().strip() or "another process"


def check_shared(workdir: pathlib.Path, cluster: Cluster) -> None:
    """Refuse a workdir that is not the same folder for all processes.

    Raises:
      UserError: one of the processes does not see what process 0 wrote there.
    """
    if cluster.alone:
        return
    token = workdir / f".seen-by-all-{cluster.of_first(lambda: os.urandom(4).hex())}"
    if cluster.first:
        token.touch()
    cluster.gather()
    deadline = time.monotonic() + 10  # a file server may show a new file late
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
        os.listdir(token.parent)  # makes an NFS client refresh its view
    return token.exists()


def check_config(workdir: pathlib.Path, config: Config) -> None:
    """Check a config against the run in the workdir, if any: its `config.json` and its newest checkpoint.

    A longer run is still the same run if nothing in it depends on its length (`length.why_not_longer`).

    Raises:
      UserError: the workdir belongs to a run of another config; the message has a line for each key that differs.
    """
    may_change = MAY_CHANGE if (workdir / "summary.json").exists() else (*MAY_CHANGE, *UNTIL_THE_TEST)
    there = {"the workdir": read_json(workdir / CONFIG)} if (workdir / CONFIG).exists() else {}
    if newest := seals.newest_record(workdir / "checkpoints"):
        there[f"checkpoint {newest[0]}"] = newest[1].get("config", {})
    for where, tree in there.items():
        if differ := differences(tree, config, where, may_change):
            raise UserError(
                f"--workdir={workdir} holds a run of another config; choose another workdir, or undo:\n"
                + "\n".join(differ)
            )


def differences(tree: dict[str, Any], config: Config, where: str, may_change: tuple[str, ...]) -> list[str]:
    """A line for each key in which a config differs from `tree`, that of a run as JSON, except keys that may change."""
    # A key that an older version did not write has its default.
    here = configs.flatten(_plain(config))
    there = configs.flatten(_plain(Config())) | same_data.settled(configs.flatten(tree), here)
    for flat in (here, there):
        flat |= {key: plugins.without_number(flat[key]) for key in (*configs.open_keys(), "data.source")}
    absent = "absent"
    differ = [
        key
        for key in sorted(there.keys() | here.keys())
        if there.get(key, absent) != here.get(key, absent) and not key.startswith(may_change)
    ]
    reason = ""
    if set(differ) & set(length.KEYS) and not (reason := length.why_not_longer(there, here)):
        differ = [key for key in differ if key not in length.KEYS]
    return [
        f"  config.{key}: {there.get(key, absent)} in {where}, {here.get(key, absent)} now"
        + (f" ({reason})" if key in length.KEYS else "")
        for key in differ
    ]


def asks_for_longer(workdir: pathlib.Path, config: Config) -> bool:
    """Whether a config accepted by `check_config` has more steps than that of the workdir."""
    if not (workdir / CONFIG).exists():
        return False
    there = configs.flatten(_plain(Config())) | configs.flatten(read_json(workdir / CONFIG))
    return length.of(there) != length.of(configs.flatten(_plain(config)))


def write_config(workdir: pathlib.Path, config: Config) -> None:
    """Write `config.json`, when all that a run needs has succeeded."""
    write_json(workdir / CONFIG, _plain(config))


def check_run(workdir: pathlib.Path) -> None:
    """Refuse a folder that has no run. Raises UserError."""
    if not (workdir / CONFIG).exists():
        raise _missing(workdir / CONFIG)


def _missing(path: pathlib.Path) -> UserError:
    return UserError(f"{path} is missing; is {path.parent} the folder of a run that has started training?")


def read_config(workdir: pathlib.Path) -> Config:
    """The config of a workdir.

    Raises:
      UserError: it is missing, or cannot be read.
    """
    return configs.from_config_dict(same_data.as_it_was_meant(read_json(workdir / CONFIG)))


def _plain(config: Config) -> dict[str, Any]:
    """The config as in `config.json`: its data paths are absolute, so they hold in any current folder."""
    return json.loads(json.dumps(configs.to_dict(dataclasses.replace(config, data=place.absolute(config.data)))))


def check_same_data(cluster: Cluster, splits: Splits) -> None:
    """Check that all processes read the same data.

    Raises:
      UserError: one of them reads other data.
    """
    facts = cluster.gather(data_facts(splits))
    for host, here in zip(cluster.hosts, facts, strict=False):
        if differ := same_data.differing(facts[0], here):
            raise UserError(
                f"the data on {host} differs from that on {cluster.hosts[0]} ({', '.join(differ)} differ); check "
                "config.data.dir and config.data.source there"
            )


def check_data_facts(workdir: pathlib.Path, splits: Splits) -> None:
    """Check the data against that of the run in the workdir, if any.

    Raises:
      UserError: classes, image sizes, examples, labels or images are not those that the run began with.
    """
    if not (workdir / DATA).exists():
        return
    there, here = read_sealed(workdir / DATA), data_facts(splits)
    differ = same_data.differing(there, here)
    if differ and splits.has_own_val and same_data.is_older_than_val_split(read_json(workdir / CONFIG)):
        raise UserError(
            f"the run in --workdir={workdir} was made before config.data.val_split existed, and holds out its "
            f"validation split of train: continue with --config.data.val_split={HELD_OUT}, or choose another workdir"
        )
    if differ:
        raise UserError(
            f"the data has changed since the start of the run in --workdir={workdir} ({', '.join(differ)} differ from "
            f"{DATA}); restore it, or choose another workdir"
        )


def write_data_facts(workdir: pathlib.Path, splits: Splits) -> None:
    """Write `data.json`: the facts of the data that a network depends on, so that a workdir is enough to use it."""
    write_sealed(workdir / DATA, data_facts(splits))


def read_data_facts(workdir: pathlib.Path) -> dict[str, Any]:
    """Read what `write_data_facts` wrote.

    Raises:
      UserError: the file or a needed fact is missing, or it is damaged.
    """
    facts = read_sealed(workdir / DATA)
    if missing := [key for key, is_right in _FACTS.items() if not is_right(facts.get(key))]:
        raise UserError(
            f"{workdir / DATA} lacks {', '.join(missing)}; restore it from a backup, or train again in another workdir"
        )
    return facts | {"class_names": list(distinct(tuple(facts["class_names"])))}


_FACTS: dict[str, Callable[[Any], bool]] = {
    "class_names": lambda names: isinstance(names, list) and names != [] and all(type(n) is str for n in names),
    "image_shape": lambda sides: isinstance(sides, list) and len(sides) == 3 and all(type(s) is int for s in sides),
    "train_examples": lambda count: type(count) is int and count > 0,
}


def data_facts(splits: Splits) -> dict[str, Any]:
    """The facts of the data that a network, and a resumed run, depend on."""
    there_are = [split for split in (splits.train, splits.val, splits.test) if split is not None]
    return {
        "class_names": list(splits.class_names),
        "image_shape": list(splits.train.image_shape),
        "train_examples": len(splits.train),
        "splits": {split.name: split.description for split in there_are},
        "labels_crc32": {split.name: same_data.checksum(split.targets) for split in there_are},
        "content": splits.fingerprints(),
        **({"groups_crc32": same_data.of_groups(there_are)} if splits.group else {}),
        **({"targets": facts} if (facts := splits.kind.facts(splits.train.targets)) else {}),
    }


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file of a workdir.

    Raises:
      UserError: it is missing or damaged.
    """
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise UserError(f"{path} is not a regular file; restore it from a backup, or start again in another workdir")
    try:
        value = json_text.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); restore it from a backup, or start again in another workdir"
        ) from error
    if not isinstance(value, dict):
        raise UserError(
            f"{path} does not contain a JSON object; restore it from a backup, or start again in another workdir"
        )
    return value


def read_sealed(path: pathlib.Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote. Files of older versions have no checksum, and are accepted.

    Raises:
      UserError: it is missing or damaged.
    """
    value = read_json(path)
    if not is_whole(value):
        raise UserError(
            f"{path} has changed since it was written (its checksum differs); restore it from a backup, or start again "
            "in another workdir"
        )
    value.pop("crc32", None)
    return value


def write_sealed(path: pathlib.Path, value: dict[str, Any]) -> None:
    """`write_json` with a checksum, for files that results depend on."""
    plain = json.loads(json.dumps(value))
    write_json(path, plain | {"crc32": crc32_of(plain)})


def free_name(path: pathlib.Path) -> pathlib.Path:
    """The path itself or, if it exists, the first free path among name-1, name-2, …"""
    names = (path.with_stem(f"{path.stem}{f'-{n}' if n else ''}") for n in itertools.count())
    return next(name for name in names if not name.exists())


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file completely or not at all."""
    whole_files.write(path, as_json(value))


def as_json(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=2) + "\n"
