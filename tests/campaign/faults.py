"""The faults: each strikes a run at a random moment, and says whether it came in time."""

import dataclasses
import os
import pathlib
import random
import resource
import shutil
import signal
import time

from tests.campaign import damages, machines
from tests.campaign.draws import Draw
from tests.campaign.struck import ABORTED, KILLED, REFUSED, STOPPED, Fault, Struck, start
from tests.campaign.watched import PHASES

CLOCKS = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))  # Debian's package faketime


def by_signal(number: int, phases: tuple[str, ...] = PHASES) -> Fault:
    """A signal in one of the phases, to one process or to all."""

    def strike(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
        phase = draw.phase(generator, phases)
        whom = generator.choice((None, *range(draw.processes)))
        watched = start(draw, workdir)
        hit = watched.wait_for(phase, generator)
        watched.send(number, whom)
        return Struck(watched, KILLED if number == signal.SIGKILL else STOPPED, phase, hit)

    return strike


def paused(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The process stands still for some seconds, as one whose machine was suspended."""
    phase, watched = draw.phase(generator, PHASES), start(draw, workdir)
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
    phase, watched = draw.phase(generator, PHASES[:5]), start(draw, workdir, **variables)  # time for it to be seen
    hit = watched.wait_for(phase, generator)
    told.write_text(f"{seconds:+d}")
    return Struck(watched, STOPPED, phase, hit, told={"clock": seconds})


def limited(what: int, values: tuple[int, ...], allowed: set[int]) -> Fault:
    """From a random moment on, the process may have no more of something: bytes of a file, open files, memory."""

    def strike(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
        phase, watched = draw.phase(generator, PHASES), start(draw, workdir)
        hit = watched.wait_for(phase, generator)
        most = generator.choice(values)
        for process in watched.processes:
            try:
                limit = most + (_mapped(process.pid) if what == resource.RLIMIT_AS else 0)
                _, hard = resource.prlimit(process.pid, what)  # of open files, the kernel refuses a higher one
                resource.prlimit(process.pid, what, (limit, hard))
            except (OSError, ValueError, IndexError):  # it has ended
                hit = False
        return Struck(watched, allowed, phase, hit, allowed is ABORTED, told={"limit": most})

    return strike


def _mapped(process: int) -> int:
    """Bytes of address space of a process now."""
    pages = int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def vanished(phases: tuple[str, ...] = PHASES) -> Fault:
    """The workdir is gone from a random moment of a phase on, and comes back after the end of the start."""

    def strike(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
        phase, watched = draw.phase(generator, phases), start(draw, workdir)
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

    return strike


def two_runs(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """A second run starts in the workdir while the first is under way: it is refused, and the first goes on."""
    phase, watched = draw.phase(generator, PHASES[1:8]), start(draw, workdir)
    hit = watched.wait_for(phase, generator)
    second = start(dataclasses.replace(draw, processes=1), workdir)
    codes, output, _ = second.end()
    refused = codes == [2] and "is in use by" in output and "Traceback" not in output
    wrong = hit and watched.runs() and not refused
    return Struck(watched, STOPPED, phase, hit, told={"second": output[-300:]} if wrong else {})


def others(devices: int) -> tuple[int, ...]:
    """Numbers of devices on which a run goes on: two, since each has programs of its own to compile."""
    return {1: (2, 4), 2: (1, 4), 4: (2, 8), 8: (1, 4)}[devices]


def other_devices(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The run is stopped in training or a validation, and goes on with another number of devices."""
    phase = draw.phase(generator, ("train", "train", "validate"))
    watched = start(draw, workdir, generator.choice(others(draw.devices)))
    hit = watched.wait_for(phase, generator)
    watched.send(generator.choice((signal.SIGKILL, signal.SIGTERM)))
    return Struck(watched, KILLED, phase, hit)


FAULTS: dict[str, Fault] = {
    "SIGKILL": by_signal(signal.SIGKILL),
    "SIGKILL in a save": by_signal(signal.SIGKILL, ("save",)),
    "SIGTERM": by_signal(signal.SIGTERM),
    "SIGINT": by_signal(signal.SIGINT),
    "a pause": paused,
    "a clock that jumps": clock,
    "a limit on the size of files": limited(resource.RLIMIT_FSIZE, (0, 2_000, 20_000), REFUSED),
    "no more open files": limited(resource.RLIMIT_NOFILE, (3, 8, 24), REFUSED),
    "no more memory": limited(resource.RLIMIT_AS, (0, 1 << 20, 64 << 20), ABORTED),
    "a workdir that vanishes": vanished(),
    "a workdir that vanishes in a save": vanished(("save",)),
    "a damaged file": damages.damaged,
    "two runs in one workdir": two_runs,
    "other devices": other_devices,
    **machines.FAULTS,
}
UNABLE = () if CLOCKS else ("a clock that jumps",)
OF_ROOT = tuple(machines.FAULTS)
# How often, where the others are drawn once.
OFTEN: dict[str, float] = {
    "SIGKILL": 5,
    "SIGKILL in a save": 3,
    "SIGTERM": 4,
    "SIGINT": 3,
    "a damaged file": 5,
    "other devices": 2,
    "a clock that jumps": 0.3,
    "a cut link": 0.3,
}  # of the last two, each start is a new Python
