"""Faults of the machine that need root: full and read-only disks, too little memory, a cut link between two hosts."""

import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from tests import runs
from tests.campaign import draws
from tests.campaign.draws import Draw
from tests.campaign.struck import ABORTED, REFUSED, STOPPED, Fault, Struck, start
from tests.campaign.watched import PHASES, Watched
from tests.hosts import lab

GROUPS = pathlib.Path("/sys/fs/cgroup")
CUT = STOPPED | {-6, 134, 1}  # JAX's own watch aborts the process where the coordinator is gone


def full_disk(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The disk is full from a random moment on, but for some bytes. Its file system must be that of the trial alone."""
    phase, watched = draw.phase(generator, PHASES), start(draw, workdir)
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


def becomes_read_only(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """No file of the workdir can be opened for writing from a random moment on; those that are open go on."""
    phase, watched = draw.phase(generator, PHASES), start(draw, workdir)
    hit = watched.wait_for(phase, generator) and workdir.exists()
    if hit:
        subprocess.run(["mount", "--bind", str(workdir), str(workdir)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(workdir)], check=True)

    def back() -> None:
        if hit:
            subprocess.run(["umount", "--lazy", str(workdir)], check=True)

    return Struck(watched, REFUSED, phase, hit, undo=back)


def short_of_memory(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The machine has little more memory than the run takes at a random moment; what takes more, the kernel kills."""
    group = GROUPS / f"jaxcnn-campaign-{workdir.parent.name}"
    if (GROUPS / "memory").is_dir():
        group, limit, used = GROUPS / "memory" / group.name, "memory.limit_in_bytes", "memory.usage_in_bytes"
    else:
        limit, used = "memory.max", "memory.current"
    phase, watched = draw.phase(generator, PHASES), start(draw, workdir)
    more = generator.choice((0, 1 << 20, 16 << 20, 64 << 20))
    group.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):  # it has ended
        for process in watched.processes:
            (group / "cgroup.procs").write_text(str(process.pid))
    hit = watched.wait_for(phase, generator)
    with contextlib.suppress(OSError):  # the kernel could not take back as much
        (group / limit).write_text(str(int((group / used).read_text()) + more))

    def back() -> None:
        with contextlib.suppress(OSError):
            group.rmdir()

    return Struck(watched, ABORTED, phase, hit, may_trace=True, undo=back, told={"limit": more})


def memory_can_be_limited() -> bool:
    """Whether a group of processes can be given less memory here."""
    group = GROUPS / "memory" if (GROUPS / "memory").is_dir() else GROUPS
    controllers = GROUPS / "cgroup.subtree_control"
    there = group != GROUPS or (controllers.exists() and "memory" in controllers.read_text().split())
    return there and os.access(group, os.W_OK)


def cut_link(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The link between the hosts of two processes is cut at a random moment, for some seconds or for good."""
    if draw.processes == 1:
        return Struck(start(draw, workdir), STOPPED, "", hit=False)
    phase, seconds = draw.phase(generator, PHASES), generator.choice((1.0, 3.0, 3600.0, 3600.0))
    with _two_hosts() as hosts:
        watched = Watched(_on(hosts, draw, workdir), workdir, draw.validations)
        hit = watched.wait_for(phase, generator)
        hosts.link(2, "down")
        healed = time.monotonic() + seconds
        while watched.runs() and time.monotonic() < min(healed, watched.began + 300):
            time.sleep(0.1)
        hosts.link(2, "up")
        watched.end()
    return Struck(watched, CUT, phase, hit, told={"cut": seconds})


@contextlib.contextmanager
def _two_hosts() -> Iterator[lab.Hosts]:
    with lab.one_at_a_time(), tempfile.TemporaryDirectory() as folder, lab.Hosts(pathlib.Path(folder), 2) as hosts:
        yield hosts


def _on(hosts: lab.Hosts, draw: Draw, workdir: pathlib.Path) -> list[subprocess.Popen]:
    """The processes of a run, one on each host."""
    environment = os.environ | draws.variables(draw)
    environment |= {"JAX_NUM_CPU_DEVICES": str(draw.devices), "PYTHONUNBUFFERED": "1"}
    return [
        subprocess.Popen(
            hosts.command(host, sys.executable, "-m", "jaxcnn.main", *flags),
            cwd=runs.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for host, flags in enumerate(draws.flags_of_each(draw, workdir, f"{lab.NETWORK}.1"), start=1)
    ]  # fmt: skip


FAULTS: dict[str, Fault] = {
    "a full disk": full_disk,
    "a read-only workdir": read_only,
    "a workdir that becomes read-only": becomes_read_only,
    **({"a machine short of memory": short_of_memory} if memory_can_be_limited() else {}),
    **({"a cut link": cut_link} if shutil.which("nsenter") and shutil.which("ip") else {}),
}
MOUNTED = ("a full disk", "a read-only workdir", "a workdir that becomes read-only")
