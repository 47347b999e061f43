"""Host memory settings: huge pages, keeping freed memory from step to step, and releasing it.

XLA:CPU allocates the memory of every step anew and frees it afterwards. Getting it from the kernel in pages of 4 KiB,
with one page fault each, costs a third of a step. glibc (from 2.35) uses pages of 2 MiB if this is set before the
process starts, so a command restarts itself once, unless a debugger or an interactive prompt would lose the process.

Fresh memory still costs time: the kernel must clear it, and on a virtual machine the host must provide it. So after
compilation, on a machine without a GPU, glibc is set to keep freed memory. This holds for the rest of the process, so
it is done only in commands, not in a process that calls jaxcnn from Python.
"""

import contextlib
import ctypes
import os
import pathlib
import resource
import sys

from jaxcnn.machine.xla_flags import gpu_wanted, switched_off

HUGE_PAGES = {"glibc.malloc.hugetlb": "1"}
# XLA's arrays are aligned, and the few bytes cut off at their ends become free chunks. A thread's cache (tcache) of
# such chunks prevents merging them with the freed array, whose place is then too small for the array of the next step:
# in about one of five starts, the heap grew to twice the memory of a step. With a GPU, memory is not kept, and the
# caches stay on for threads that decode images.
WHOLE_PLACES = {"glibc.malloc.tcache_count": "0"}
# mallopt(3) parameters, keyed by the equivalent tunable: no memory outside the heaps, and none returned before
# `release`. Not set at start-up, because compilation should still return its memory.
KEEP = {"glibc.malloc.mmap_max": (-4, 0), "glibc.malloc.trim_threshold": (-1, -1)}
SWITCH = "JAXCNN_HUGE_PAGES"
HELP = (
    "On Linux a command restarts itself once, with huge pages (GLIBC_TUNABLES),\n"
    f"unless {SWITCH}=off, a debugger or profiler is active, or Python is\ninteractive."
)
SETTLING = 5  # calls until the heap is stable: long-lived data lies beside the memory of the steps, not inside it
LOOK_EVERY = 16  # calls between two looks at the memory
GROWN = 1.25  # factor of the resident memory of the settling calls, from which unused memory is returned
_MEMORY = pathlib.Path("/proc/meminfo")
_SIZES = pathlib.Path("/proc/self/statm")
_GROUPS = pathlib.Path("/proc/self/cgroup")
_GROUP_FILES = pathlib.Path("/sys/fs/cgroup")
_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


_command = False


def of_command() -> None:
    """Mark this process as a jaxcnn command, or a child of one: from now on `keep` may keep memory."""
    global _command
    _command = True


def use_huge_pages() -> None:
    """Replace this process by the same command with huge pages, if they help and are not requested yet.

    They help on Linux with glibc if the kernel gives huge pages on request ("madvise"); if it always gives them
    ("always"), the restart is for the settings that go with them. JAXCNN_HUGE_PAGES=off or a glibc.malloc.hugetlb in
    GLIBC_TUNABLES prevents the restart; a glibc.malloc.tcache_count there is kept. Must be called before importing or
    opening anything that cannot be repeated. A process under a debugger, profiler or prompt is not replaced.
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
    """Release the memory that compilation used; from now on keep freed memory for later steps.

    Memory is kept only in commands, with huge pages, without a GPU (whose host threads decode images), and unless a
    setting of the user says otherwise.
    """
    release()
    if keeps():
        for parameter, value in KEEP.values():
            ctypes.CDLL(None).mallopt(parameter, value)


def keeps() -> bool:
    """Whether `keep` keeps memory in this process."""
    there = os.environ.get("GLIBC_TUNABLES", "")
    asked = all(f"{name}={value}" in there for name, value in HUGE_PAGES.items())
    own = any(name in there for name in KEEP)
    return _command and asked and not own and not switched_off(SWITCH) and not gpu_wanted(os.environ) and bool(_glibc())


class KeptMemory:
    """Limits the memory of a process that keeps freed memory to the need of its steps.

    The first steps leave gaps in the heap, where longer-lived data occupies memory of a step. The unused memory from
    this, and from later growth, is returned to the kernel.
    """

    def __init__(self) -> None:
        self._on = keeps()
        self._calls = 0
        self._settled = 0

    def after_call(self) -> None:
        """Must be called after each call of the compiled step."""
        self._calls += 1
        if not self._on:
            return
        if self._calls <= SETTLING:
            self._settled = _resident()
            release()
        elif self._calls % LOOK_EVERY == 0 and _resident() > GROWN * self._settled:
            release()


def release() -> None:
    """Return unused memory, such as that of compilation, to the kernel; does nothing without glibc."""
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


def obtainable() -> int | None:
    """Total bytes of memory that this process can have, including what it has already; None if unknown.

    Includes free swap, and respects the limits of control groups, for example of containers and scheduler jobs.
    """
    try:
        lines = (line.split() for line in _MEMORY.read_text().splitlines())
        kibibytes = {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}
        swap = kibibytes.get("SwapFree", 0) * 1024
        return min(kibibytes["MemAvailable"] * 1024 + _resident(), *_limits()) + swap
    except (OSError, ValueError, KeyError):
        return None


def address_space_left() -> int | None:
    """Bytes that the limit on the address space (`ulimit -v`) leaves this process; None without a limit, or unknown."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or not _SIZES.exists():
        return None
    return most - int(_SIZES.read_text().split()[0]) * resource.getpagesize()


def _limits() -> list[int]:
    """Memory limits in bytes of the control groups of this process and of their parents."""
    found = []
    for line in _GROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = _GROUP_FILES / controllers
        place = root / path.lstrip("/")
        for folder in (place, *place.parents):
            for name in ("memory.max", "memory.limit_in_bytes"):
                with contextlib.suppress(OSError, ValueError):  # "max": no limit here
                    found.append(int((folder / name).read_text()))
            if folder == root:
                break
    return found or [2**63]


def _is_watched() -> bool:
    """Whether a debugger, a profiler, coverage measurement or an interactive prompt would lose this process."""
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
    """Resident memory of this process in bytes."""
    return int(_SIZES.read_text().split()[1]) * resource.getpagesize()


def _on_request() -> bool:
    """Whether the kernel and the C library give huge pages on request."""
    if _glibc() < [2, 35]:
        return False
    return _KERNEL.is_file() and any(word in _KERNEL.read_text() for word in ("[madvise]", "[always]"))


def _glibc() -> list[int]:
    """(major, minor) version of glibc; empty for another C library."""
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", ()):
        return []
    version = (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ").split(".")
    return [int(part) for part in version[:2] if part.isdecimal()]
