"""Runs the parts of a campaign, one after the other, and keeps the outcome of each in `<part>/part.json`."""

import dataclasses
import datetime
import functools
import hashlib
import pathlib
import time
from collections.abc import Callable, Sequence
from importlib import util
from typing import Any

from benchmarks import child
from benchmarks.campaign_plan import Part
from jaxcnn.config import UserError
from jaxcnn.machine import json_text
from jaxcnn.train.interrupts import INTERRUPTED, Interrupts
from jaxcnn.train.workdir import write_json

STAMP, LOG = "part.json", "log.txt"
DONE, FAILED, STOPPED, NOT_RUN = "done", "failed", "stopped", "not measured"
SOURCES = ("jaxcnn", "benchmarks", "configs")
UNTIMED = 1.5  # a part that does not plan its time may take this much more than its share before it is stopped
PROBE_SECONDS = 180.0


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a campaign.

    Attributes:
      folder: the folder of all its files, absolute.
      paths: absolute paths by the names that commands use: cifar10, cifar100 and torch_scripts; those that are given.
      minutes: minutes for the whole campaign.
      only: the names of the parts that are run; empty: all.
      other_sources: whether parts that were begun with other Python sources count and go on.
    """

    folder: pathlib.Path
    paths: dict[str, pathlib.Path]
    minutes: float
    only: tuple[str, ...] = ()
    other_sources: bool = False


class Campaign:
    """The parts, and what is known about each.

    Attributes:
      machine: facts of the machine, from `benchmarks.machine`.
      states: state of each part, by name: the contents of its `part.json`, or state and reason if it was not begun.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        options: Options,
        interrupts: Interrupts,
        say: Callable[[str], None],
        keep: Callable[["Campaign"], None],
    ) -> None:
        self.parts, self.options = parts, options
        self.machine: dict[str, Any] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self._interrupts, self._say, self._keep = interrupts, say, keep
        self._until = time.monotonic() + 60 * options.minutes
        self._sources, self._data = sources(), {name: digest(path) for name, path in options.paths.items()}

    def run(self) -> None:
        """Run what is not done yet, until the time is over; `keep` is called after each part.

        Raises:
          Interrupted: the command was asked to stop.
          UserError: the facts of the machine could not be read.
        """
        self.machine = probe(self.options.folder, self._interrupts)
        for part in self.parts:
            self.states[part.name] = self._standing(part)
        self._keep(self)
        for part in self.parts:
            self._visit(part)
        for part in self.parts:  # time left over by earlier parts goes to later ones
            if part.resumable and self.states[part.name]["state"] == STOPPED:
                self._visit(part)
        child.check(self._interrupts)

    def _visit(self, part: Part) -> None:
        child.check(self._interrupts)
        state = self.states[part.name]
        if state["state"] == DONE:
            self._say(f"{part.name}: done before")
            return
        why = self._why_not(part)
        minutes = 0.0 if why else self._minutes(part)
        if not why and (minutes < part.least or minutes <= 0):
            least = f": it needs at least {part.least:g} minutes, and {max(0.0, minutes):.1f} were left"
            why = "no time was left" + (least if part.least else "")
        if why:
            self.states[part.name] = state if state["state"] in (STOPPED, FAILED) else _not_run(why)
            self._keep(self)
            self._say(f"{part.name}: {why}")
        else:
            self._say(f"{part.name}: {part.title}, up to {minutes:.1f} minutes")
            try:
                self._run(part, minutes)
            finally:
                self.states[part.name] = self._standing(part)
                self._keep(self)
            self._say(f"{part.name}: {in_words(self.states[part.name])}")

    def _why_not(self, part: Part) -> str:
        """The reason why a part cannot run here; empty if it can."""
        if self.options.only and part.name not in self.options.only:
            return "it was not chosen"
        if part.gpu and self.machine["device_kind"] != "gpu":
            return "it needs a GPU"
        for name in part.needs:
            if name not in self.options.paths:
                return f"it needs --{name}=<an .npz>"
        for package in part.packages:
            if util.find_spec(package) is None:
                return f"it needs {package}, which is not installed"
        return ""

    def _minutes(self, part: Part) -> float:
        """The minutes for a part: its share of the time left, at least its least if so much is left."""
        left = (self._until - time.monotonic()) / 60
        after = self.parts[self.parts.index(part) :]
        waiting = [each for each in after if self.states[each.name]["state"] != DONE and not self._why_not(each)]
        return min(left, max(part.least, left * part.share / sum(each.share for each in waiting)))

    def _run(self, part: Part, minutes: float) -> None:
        """Run a part's command and keep how it ended in its folder."""
        folder = self._folder(part)
        before = self._prepared(part)
        command = self._command(part)
        if part.timed:
            position = command.index("--") if "--" in command else len(command)
            command.insert(position, f"--minutes={minutes:.2f}")
        stamp = {
            "part": part.name,
            "state": STOPPED,
            "why": "the campaign was killed",
            "command": ["python", "-m", *command],
            "identity": self._identity(part),
            "machine": self.machine,
            "commits": list(dict.fromkeys([*_commits(before), str(self.machine.get("commit"))])),
            "starts": before.get("starts", 0) + 1,
            "seconds": before.get("seconds", 0.0),
            "began": before.get("began", _now()),
        }
        write_json(folder / STAMP, stamp)
        limit = time.monotonic() + 60 * minutes * (1.0 if part.timed else UNTIMED)
        ended = child.run(child.python(*command), folder / LOG, self._interrupts, until=min(limit, self._until))
        stamp |= self._outcome(part, ended) | {"seconds": stamp["seconds"] + ended.seconds, "ended": _now()}
        write_json(folder / STAMP, stamp)

    def _outcome(self, part: Part, ended: child.Ended) -> dict[str, Any]:
        """The state and the reason of a part whose command has ended."""
        folder = self._folder(part)
        told = child.last_line(folder / LOG)
        if ended.code == 0 and read_json(folder / part.result) is not None:
            state, why = DONE, ""
        elif ended.stopped:
            state, why = STOPPED, ended.stopped
        elif ended.code == INTERRUPTED:
            state, why = STOPPED, told.removeprefix("jaxcnn: ")
        else:
            state, why = FAILED, f"exit code {ended.code}: {told}" if ended.code else f"it left no sound {part.result}"
        return {"state": state, "why": why, "code": ended.code}

    def _prepared(self, part: Part) -> dict[str, Any]:
        """Make the folder of a part ready for its command; return the stamp of earlier starts that it continues."""
        folder = self._folder(part)
        stamp = read_json(folder / STAMP) or {}
        goes_on = part.resumable and self._is_ours(part, stamp) and _card(stamp.get("machine")) == _card(self.machine)
        if folder.exists() and not goes_on:
            aside = next(path for number in range(1, 10**6) if not (path := _aside(folder, number)).exists())
            folder.rename(aside)
            self._say(f"{part.name}: begins anew; what was there is now in {aside.name}")
            stamp = {}
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / part.result
        if result.exists() and read_json(result) is None:
            damaged = result.with_name(f"{result.name}.damaged")
            result.replace(damaged)
            self._say(f"{part.name}: {result.name} was damaged and is now {damaged.name}")
        return stamp

    def _standing(self, part: Part) -> dict[str, Any]:
        """The state of a part, from its files."""
        folder = self._folder(part)
        stamp = read_json(folder / STAMP)
        if stamp is None or not self._is_ours(part, stamp):
            return _not_run("it was not begun" if stamp is None else "it was measured with other sources or options")
        if stamp.get("state") == DONE and read_json(folder / part.result) is None:
            return stamp | {"state": STOPPED, "why": f"its {part.result} is damaged"}
        return stamp

    def _is_ours(self, part: Part, stamp: dict[str, Any]) -> bool:
        identity = self._identity(part)
        there = stamp.get("identity")
        if self.options.other_sources and isinstance(there, dict):
            identity |= {"sources": there.get("sources")}
        return there == identity

    def _identity(self, part: Part) -> dict[str, Any]:
        """All that a result depends on besides the machine: sources, flags, and the contents of its input files."""
        used = {name for name in self._data if any(f"{{{name}}}" in word for word in self._words(part))}
        return {"sources": self._sources, "flags": self._words(part), "data": {n: self._data[n] for n in sorted(used)}}

    def _words(self, part: Part) -> list[str]:
        """The command of a part with paths in place of their names, and with the flags that options add."""
        words: list[str] = []
        for word in part.command:
            if word == "{beside}":
                words += [w for name, more in part.beside.items() if self._has(name) for w in more]
            else:
                words.append(word)
        return words

    def _has(self, name: str) -> bool:
        """Whether a path or a package of this name is there."""
        return name in self.options.paths or util.find_spec(name) is not None

    def _command(self, part: Part) -> list[str]:
        paths = {"folder": self._folder(part)} | self.options.paths
        shown = {name: path.relative_to(child.ROOT) if path.is_relative_to(child.ROOT) else path
                 for name, path in paths.items()}  # fmt: skip
        return [word.format_map(shown) for word in self._words(part)]

    def _folder(self, part: Part) -> pathlib.Path:
        return self.options.folder / part.name


def probe(folder: pathlib.Path, interrupts: Interrupts) -> dict[str, Any]:
    """The facts of the machine, read in a separate process, because this one must not occupy the GPU.

    Raises:
      Interrupted: the command was asked to stop.
      UserError: the process failed or took too long.
    """
    log = folder / "machine.log"
    log.unlink(missing_ok=True)
    ended = child.run(child.python("benchmarks.machine"), log, interrupts, until=time.monotonic() + PROBE_SECONDS)
    child.check(interrupts)
    told = child.last_line(log) if ended.code else log.read_text(encoding="utf-8").strip().splitlines()[-1]
    if ended.code:
        raise UserError(f"the machine could not be looked at ({ended.stopped or f'exit code {ended.code}'}): {told}")
    facts = json_text.parse(told)
    write_json(folder / "machine.json", facts)
    return facts


@functools.cache
def sources() -> str:
    """A digest of all Python files of the package, the configs and the benchmarks."""
    whole = hashlib.blake2b(digest_size=8)
    for room in SOURCES:
        for path in sorted((child.ROOT / room).rglob("*.py")):
            whole.update(str(path.relative_to(child.ROOT)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def digest(path: pathlib.Path) -> str:
    """A digest of a file, or of the Python files in a folder."""
    whole = hashlib.blake2b(digest_size=8)
    for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
        whole.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                whole.update(block)
    return whole.hexdigest()


def in_words(state: dict[str, Any]) -> str:
    """The state of a part as one line."""
    seconds = f" after {state['seconds']:.0f} s" if state.get("seconds") else ""
    return f"{state['state']}{seconds}" + (f": {state['why']}" if state["why"] else "")


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none, or it is damaged."""
    try:
        value = json_text.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _not_run(why: str) -> dict[str, Any]:
    return {"state": NOT_RUN, "why": why}


def _commits(stamp: dict[str, Any]) -> list[str]:
    """The commits of the starts of a part; stamps of earlier versions have that of the last start alone."""
    alone = (stamp.get("machine") or {}).get("commit")
    commits: list[str] = stamp.get("commits", [str(alone)] if alone else [])
    return commits


def _card(machine: dict[str, Any] | None) -> tuple[Any, ...]:
    """The facts of the machine that must stay the same when a part is continued."""
    return tuple((machine or {}).get(name) for name in ("backend", "device", "devices"))


def _aside(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder.with_name(f"{folder.name}-earlier-{number}")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
