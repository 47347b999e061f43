"""The faults: each strikes a run at a random moment, and says whether it came in time."""

import contextlib
import dataclasses
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.campaign import draws
from tests.campaign.draws import Draw
from tests.campaign.watched import PHASES, Watched

STOPPED, KILLED = {0, 75}, {0, 75, -9}
REFUSED = {0, 2, 75}  # the run may end before it meets what is wrong; of two processes, one learns of it by the other
ABORTED = {0, 1, 2, 75, -6, -11, -9, 127, 134}  # where memory ends, libraries may abort the process


@dataclasses.dataclass
class Struck:
    """What a fault did to one start of a run.

    Attributes:
      watched: the start; it may still run.
      allowed: the exit codes that it may have.
      phase: when it struck.
      hit: whether it came in time.
      may_trace: whether a traceback is no defect, as with a library that finds no memory.
      undo: removes the cause, after the start has ended.
      told: more for the record.
    """

    watched: Watched
    allowed: set[int]
    phase: str
    hit: bool
    may_trace: bool = False
    undo: Callable[[], None] = lambda: None
    told: dict[str, Any] = dataclasses.field(default_factory=dict)


CLOCKS = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))  # Debian's package faketime

Fault = Callable[[Draw, pathlib.Path, random.Random], Struck]


def start(draw: Draw, workdir: pathlib.Path, devices: int = 0, **environment: str) -> Watched:
    """A start of a run, watched."""
    return Watched(draws.start(draw, workdir, devices, **environment), workdir)


def by_signal(number: int) -> Fault:
    """A signal in any phase, to one process or to all."""

    def strike(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
        phase = generator.choice(PHASES)
        whom = generator.choice((None, *range(draw.processes)))
        watched = start(draw, workdir)
        hit = watched.wait_for(phase, generator)
        watched.send(number, whom)
        return Struck(watched, KILLED if number == signal.SIGKILL else STOPPED, phase, hit)

    return strike


def paused(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The process stands still for some seconds, as one whose machine was suspended."""
    phase, watched = generator.choice(PHASES), start(draw, workdir)
    hit = watched.wait_for(phase, generator)
    watched.send(signal.SIGSTOP)
    time.sleep(3)
    watched.send(signal.SIGCONT)
    return Struck(watched, STOPPED, phase, hit)


def clock(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The clock of the machine, not that of intervals, jumps ahead or back at a random moment, and stays so.

    Two processes are not struck: there sleeps fail under libfaketime.
    """
    if draw.processes > 1:
        return Struck(start(draw, workdir), STOPPED, "", hit=False)
    seconds, told = generator.choice((-400 * 86400, -3600, -30, 30, 3600, 400 * 86400)), workdir.parent / "clock"
    told.write_text("+0")
    variables = {
        "LD_PRELOAD": str(CLOCKS[0]),
        "FAKETIME_TIMESTAMP_FILE": str(told),
        "FAKETIME_CACHE_DURATION": "1",  # seconds after which it looks at the file
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    phase, watched = generator.choice(PHASES[:5]), start(draw, workdir, **variables)  # time for it to be seen
    hit = watched.wait_for(phase, generator)
    told.write_text(f"{seconds:+d}")
    return Struck(watched, STOPPED, phase, hit, told={"clock": seconds})


def limited(what: int, values: tuple[int, ...], allowed: set[int]) -> Fault:
    """From a random moment on, the process may have no more of something: bytes of a file, open files, memory."""

    def strike(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
        phase, watched = generator.choice(PHASES), start(draw, workdir)
        hit = watched.wait_for(phase, generator)
        most = generator.choice(values)
        for process in watched.processes:
            try:
                limit = most + (_mapped(process.pid) if what == resource.RLIMIT_AS else 0)
                resource.prlimit(process.pid, what, (limit, resource.RLIM_INFINITY))
            except (OSError, ValueError, IndexError):  # it has ended
                hit = False
        return Struck(watched, allowed, phase, hit, allowed is ABORTED, told={"limit": most})

    return strike


def _mapped(process: int) -> int:
    """Bytes of address space of a process now."""
    pages = int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def full_disk(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The disk is full from a random moment on, but for some bytes. Its file system must be that of the trial alone."""
    phase, watched = generator.choice(PHASES), start(draw, workdir)
    hit = watched.wait_for(phase, generator)
    left = generator.choice((0, 0, 4096, 20_000))
    filler = workdir.parent / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):  # the run took some of it meanwhile
        os.posix_fallocate(file.fileno(), 0, max(shutil.disk_usage(workdir.parent).free - left, 1))
    return Struck(watched, REFUSED, phase, hit, undo=filler.unlink, told={"left": left})


def read_only(draw: Draw, workdir: pathlib.Path, _generator: random.Random) -> Struck:
    """The file system of the workdir cannot be written when the run starts."""
    subprocess.run(["mount", "-o", "remount,ro", str(workdir.parent)], check=True)
    watched = start(draw, workdir)
    back = ["mount", "-o", "remount,rw", str(workdir.parent)]
    return Struck(watched, REFUSED, "start", True, undo=lambda: subprocess.run(back, check=True) and None)


def vanished(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The workdir is gone from a random moment on, and comes back after the end of the start."""
    phase, watched = generator.choice(PHASES), start(draw, workdir)
    hit = watched.wait_for(phase, generator)
    away = workdir.with_name(f"{workdir.name}-away")
    hit = hit and workdir.exists()
    if workdir.exists():
        workdir.rename(away)

    def back() -> None:
        if away.exists():
            shutil.rmtree(workdir, ignore_errors=True)  # what the run made in its place
            away.rename(workdir)

    return Struck(watched, REFUSED, phase, hit, undo=back)


def two_runs(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """A second run starts in the workdir while the first is under way: it is refused, and the first goes on."""
    phase, watched = generator.choice(PHASES[1:7]), start(draw, workdir)
    hit = watched.wait_for(phase, generator)
    second = start(dataclasses.replace(draw, processes=1), workdir)
    codes, output, _ = second.end()
    refused = codes == [2] and "is in use by" in output and "Traceback" not in output
    wrong = hit and watched.runs() and not refused
    return Struck(watched, STOPPED, phase, hit, told={"second": output[-300:]} if wrong else {})


def other_devices(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The run is stopped in training, and goes on with another number of devices."""
    watched = start(draw, workdir, generator.choice([n for n in (1, 2, 4, 8) if n != draw.devices]))
    hit = watched.wait_for("train", generator)
    watched.send(generator.choice((signal.SIGKILL, signal.SIGTERM)))
    return Struck(watched, KILLED, "train", hit)


def damaged(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The run is stopped, and one of its files is truncated, flipped, emptied, cut in a line, or lost.

    What was there comes back after the start that meets it, unless that start went to the end.
    """
    phase = generator.choice(("train", "train", "train", "final evaluation", "report"))
    first = start(draw, workdir)
    first.wait_for(phase, generator)
    first.send(generator.choice((signal.SIGKILL, signal.SIGTERM)))
    first.end()
    file = generator.choice(list(_files(workdir)))
    how = generator.choice(list(WAYS)) if file.name != "metrics.jsonl" else "cut"
    content = file.read_bytes()
    WAYS[how](file, content, generator)
    name = str(file.relative_to(workdir))
    copy = workdir.with_name(f"{workdir.name}-copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(workdir, copy)

    def undo() -> None:
        """As it was before the start that met the damage."""
        shutil.rmtree(workdir)
        copy.rename(workdir)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    watched = start(draw, workdir)
    return Struck(watched, REFUSED, phase, True, undo=undo, told={"file": _kind(name), "path": name, "how": how})


def _files(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files of a run, each kind as likely as another: those of checkpoints are many."""
    beside = [path for path in sorted(workdir.iterdir()) if path.suffix in (".json", ".jsonl")]
    finished = [path for path in workdir.glob("checkpoints/*") if path.name.isdecimal()]
    inside = [path for each in sorted(finished) for path in sorted(each.rglob("*")) if path.is_file()]
    yield from beside
    if inside:
        step = max(int(path.relative_to(workdir).parts[1]) for path in inside)
        newest = [path for path in inside if path.relative_to(workdir).parts[1] == str(step)]
        yield from newest[:: max(1, len(newest) // 6)]
        yield from inside[:: max(1, len(inside) // 3)]


def _kind(name: str) -> str:
    return "checkpoint" if name.startswith("checkpoints") else name


def _flip(file: pathlib.Path, content: bytes, generator: random.Random) -> None:
    flipped = bytearray(content or b"\0")
    flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
    file.write_bytes(flipped)


WAYS: dict[str, Callable[[pathlib.Path, bytes, random.Random], object]] = {
    "truncated": lambda file, content, generator: file.write_bytes(content[: generator.randint(0, len(content))]),
    "flipped": _flip,
    "emptied": lambda file, _content, _generator: file.write_bytes(b""),
    "missing": lambda file, _content, _generator: file.unlink(),
    "cut": lambda file, content, generator: file.write_bytes(content[: -generator.randint(1, min(60, len(content)))]),
}

FAULTS: dict[str, Fault] = {
    "SIGKILL": by_signal(signal.SIGKILL),
    "SIGTERM": by_signal(signal.SIGTERM),
    "SIGINT": by_signal(signal.SIGINT),
    "a pause": paused,
    "a clock that jumps": clock,
    "a full disk": full_disk,
    "a limit on the size of files": limited(resource.RLIMIT_FSIZE, (0, 2_000, 20_000), REFUSED),
    "no more open files": limited(resource.RLIMIT_NOFILE, (3, 8, 24), REFUSED),
    "no more memory": limited(resource.RLIMIT_AS, (0, 1 << 20, 64 << 20), ABORTED),
    "a read-only workdir": read_only,
    "a workdir that vanishes": vanished,
    "a damaged file": damaged,
    "two runs in one workdir": two_runs,
    "other devices": other_devices,
}
UNABLE = () if CLOCKS else ("a clock that jumps",)
MOUNTED = ("a full disk", "a read-only workdir")  # need root, and Linux
OFTEN = {"SIGKILL": 4, "SIGTERM": 3, "SIGINT": 2, "a damaged file": 4}  # how often, where the others are drawn once
