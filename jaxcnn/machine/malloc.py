"""The host's memory: huge pages, memory that is kept from step to step, and release.

XLA:CPU asks the C library anew for the memory of every step and gives it back after it. Taking it from the kernel in
pages of 4 KiB, one fault each, costs a third of a step; glibc (from 2.35) asks for pages of 2 MiB when told so before
the process starts, and so a command starts itself once more, unless a debugger or somebody at a prompt would lose the
process by it. Fresh memory costs time even then, as the kernel must
clear it, and where the machine is a virtual one, its host must find it: so once all is compiled, and on a machine
without a GPU, glibc is told to keep what is freed. That is for the rest of the process, so it is done in commands, and
not in a process that calls jaxcnn from Python.
"""

import contextlib
import ctypes
import os
import pathlib
import resource
import sys

from jaxcnn.machine.xla_flags import gpu_wanted, switched_off

HUGE_PAGES = {"glibc.malloc.hugetlb": "1"}
# XLA's arrays are aligned, and the few bytes cut off at their ends become free chunks of their own. A thread's cache of
# such chunks keeps them from joining the array's place again, which is then too small for the array of the next step:
# the memory of a step came to lie in the heap twice, in about one of five starts. Where a GPU computes, memory is not
# kept, and the caches stay, for threads that decode images.
WHOLE_PLACES = {"glibc.malloc.tcache_count": "0"}
# Nothing outside of the heaps, and nothing given back before `release`: parameters of mallopt(3), by the name of the
# setting that would say the same from the start, while a compiler's memory should still go back.
KEEP = {"glibc.malloc.mmap_max": (-4, 0), "glibc.malloc.trim_threshold": (-1, -1)}
SWITCH = "JAXCNN_HUGE_PAGES"
HELP = (
    f"On Linux a command starts itself once more, with huge pages (GLIBC_TUNABLES), unless {SWITCH}=off, or a debugger "
    "or profiler is at work, or Python is at a prompt."
)
SETTLING = (
    5  # calls until the heap has its shape: what lives long lies beside the memory of the steps, not in its place
)
LOOK_EVERY = 16  # calls
GROWN = 1.25  # times the resident memory of the settling calls
_MEMORY = pathlib.Path("/proc/meminfo")
_GROUPS = pathlib.Path("/proc/self/cgroup")
_GROUP_FILES = pathlib.Path("/sys/fs/cgroup")
_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


_command = False


def of_command() -> None:
    """This process is a command of jaxcnn's, or a child of one: from here on `keep` may keep memory."""
    global _command
    _command = True


def use_huge_pages() -> None:
    """Replace this process by the same command with huge pages, where they help and were not asked for yet.

    They help on Linux with glibc where the kernel gives huge pages to those who ask ("madvise"); where it gives them to
    all ("always"), this start is for what goes with them. JAXCNN_HUGE_PAGES=off or a setting of glibc.malloc.hugetlb in
    GLIBC_TUNABLES leaves everything as it is; one of glibc.malloc.tcache_count stays. To be called before anything is
    imported or opened that could not be done twice. A process that is watched step by step is left as it is.
    """
    if _is_watched():
        return
    there = os.environ.get("GLIBC_TUNABLES", "")
    if switched_off(SWITCH) or any(name in there for name in HUGE_PAGES) or not _on_request():
        return
    wanted = HUGE_PAGES if gpu_wanted(os.environ) else HUGE_PAGES | WHOLE_PLACES
    added = [f"{name}={value}" for name, value in wanted.items() if name not in there]
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [there, *added]))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep() -> None:
    """Give back what a compiler used; from here on keep what is freed, for the steps to come.

    Memory is kept in commands, with huge pages and without a GPU, whose host's threads decode images, and where no
    setting of the user's says otherwise.
    """
    release()
    if keeps():
        for parameter, value in KEEP.values():
            ctypes.CDLL(None).mallopt(parameter, value)


def keeps() -> bool:
    """Whether `keep` does so here."""
    there = os.environ.get("GLIBC_TUNABLES", "")
    asked = all(f"{name}={value}" in there for name, value in HUGE_PAGES.items())
    own = any(name in there for name in KEEP)
    return _command and asked and not own and not switched_off(SWITCH) and not gpu_wanted(os.environ) and bool(_glibc())


class KeptMemory:
    """Holds a process that keeps its memory to what its steps need.

    The first steps leave gaps, where something that lives longer took a place in the memory of a step; from these, and
    from what grew later, memory goes back to the kernel.
    """

    def __init__(self) -> None:
        self._on = keeps()
        self._calls = 0
        self._settled = 0

    def after_call(self) -> None:
        """To be called after each call of the compiled step."""
        self._calls += 1
        if not self._on:
            return
        if self._calls <= SETTLING:
            self._settled = _resident()
            release()
        elif self._calls % LOOK_EVERY == 0 and _resident() > GROWN * self._settled:
            release()


def release() -> None:
    """Give memory that is no longer used, such as a compiler's, back to the kernel; does nothing without glibc."""
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


def obtainable() -> int | None:
    """Bytes of memory that this process can have in all, what it has already included; None: nobody knows.

    Swap counts, and so do the limits of control groups, of containers and of schedulers' jobs.
    """
    try:
        lines = (line.split() for line in _MEMORY.read_text().splitlines())
        kibibytes = {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}
        swap = kibibytes.get("SwapFree", 0) * 1024
        return min(kibibytes["MemAvailable"] * 1024 + _resident(), *_limits()) + swap
    except (OSError, ValueError, KeyError):
        return None


def _limits() -> list[int]:
    """Bytes that the control groups of this process, and those around them, may have at most."""
    found = []
    for line in _GROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = _GROUP_FILES / controllers
        place = root / path.lstrip("/")
        for folder in (place, *place.parents):
            for name in ("memory.max", "memory.limit_in_bytes"):
                with contextlib.suppress(OSError, ValueError):  # "max": none here
                    found.append(int((folder / name).read_text()))
            if folder == root:
                break
    return found or [2**63]


def _is_watched() -> bool:
    """Whether a debugger, a profiler, a measure of coverage or a person at a prompt would lose this process."""
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12
    return (
        sys.gettrace() is not None
        or sys.getprofile() is not None
        or (monitoring is not None and any(monitoring.get_tool(tool) for tool in range(6)))
        or any(name in sys.modules for name in ("debugpy", "pydevd", "coverage", "ipykernel"))
        or bool(sys.flags.interactive or sys.flags.inspect)
        or hasattr(sys, "ps1")
    )


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _on_request() -> bool:
    """Whether the kernel and the C library give huge pages on request."""
    if _glibc() < [2, 35]:
        return False
    return _KERNEL.is_file() and any(word in _KERNEL.read_text() for word in ("[madvise]", "[always]"))


def _glibc() -> list[int]:
    """Version of the C library, if it is glibc; else nothing."""
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", ()):
        return []
    version = (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ").split(".")
    return [int(part) for part in version[:2] if part.isdecimal()]
