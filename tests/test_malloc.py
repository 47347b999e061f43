"""Commands start themselves once more where huge pages are to be had, and only there."""

import os
import resource
import subprocess
import sys

import pytest

from jaxcnn.machine import malloc

SCRIPT = """
import os, sys
from jaxcnn.machine.malloc import use_huge_pages
use_huge_pages()
print(sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))
"""


def test_what_help_says_of_it_fits_a_terminal():
    assert all(len(line) <= 80 for line in malloc.HELP.splitlines())


def start(**environment: str) -> str:
    """What a process that asks for huge pages prints: its arguments, and the tunables it ends up with."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", malloc.SWITCH)}
    kept["JAX_PLATFORMS"] = "cpu"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "a b", "--c"], capture_output=True, text=True, env=kept | environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not malloc._on_request(), reason="no huge pages on request here")
def test_a_process_comes_back_with_huge_pages_and_its_arguments():
    huge, whole = "glibc.malloc.hugetlb=1", "glibc.malloc.tcache_count=0"
    assert start() == f"['a b', '--c'] {huge}:{whole}"
    # A setting of the user's own stays.
    own = "glibc.malloc.arena_max=2"
    assert start(GLIBC_TUNABLES=own) == f"['a b', '--c'] {own}:{huge}:{whole}"
    own = "glibc.malloc.tcache_count=7"
    assert start(GLIBC_TUNABLES=own) == f"['a b', '--c'] {own}:{huge}"


@pytest.mark.skipif(not malloc._on_request(), reason="no huge pages on request here")
def test_threads_keep_their_caches_where_a_gpu_computes(tmp_path):
    (tmp_path / "jax_cuda12_plugin.py").touch()
    assert start(PYTHONPATH=str(tmp_path), JAX_PLATFORMS="") == "['a b', '--c'] glibc.malloc.hugetlb=1"


class Library:
    """A C library that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def mallopt(self, parameter: int, value: int) -> None:
        self.told.append((parameter, value))

    def malloc_trim(self, pad: int) -> None:
        """Give memory back."""


@pytest.fixture
def library(monkeypatch) -> Library:
    """What `ctypes` finds for the C library, on a machine with huge pages and without a GPU."""
    found = Library()
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: found)
    monkeypatch.setattr(malloc, "_glibc", lambda: [2, 36])
    monkeypatch.setattr(malloc, "gpu_wanted", lambda environment: False)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    monkeypatch.delenv(malloc.SWITCH, raising=False)
    monkeypatch.setattr(malloc, "_command", True)
    return found


def test_memory_is_kept_once_all_is_compiled(library):
    malloc.keep()
    # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h; -1 turns trimming off.
    assert library.told == [(-4, 0), (-1, -1)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GLIBC_TUNABLES", ""),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=65536"),
        (malloc.SWITCH, "off"),
    ],
)
def test_memory_is_not_kept_against_a_setting_of_the_users(name, value, library, monkeypatch):
    monkeypatch.setenv(name, value)
    left_alone(monkeypatch)
    assert library.told == []


def test_memory_is_kept_only_where_no_gpu_computes(library, monkeypatch):
    monkeypatch.setattr(malloc, "gpu_wanted", lambda environment: True)
    left_alone(monkeypatch)
    assert library.told == []


def test_memory_is_kept_only_in_commands(library, monkeypatch):
    monkeypatch.setattr(malloc, "_command", False)
    left_alone(monkeypatch)
    assert library.told == []
    malloc.of_command()
    assert malloc.keeps()


def left_alone(monkeypatch) -> None:
    """Ask to keep memory, and make calls that must not release any."""
    malloc.keep()
    monkeypatch.setattr(malloc, "release", lambda: pytest.fail("released"))
    memory = malloc.KeptMemory()
    for _ in range(2 * malloc.LOOK_EVERY):
        memory.after_call()


def test_memory_goes_back_while_the_heap_settles_and_when_it_has_grown(library, monkeypatch):
    released, resident = [], iter([100] * malloc.SETTLING + [120, 126, 124])
    memory = malloc.KeptMemory()
    monkeypatch.setattr(malloc, "release", lambda: released.append(memory._calls))
    monkeypatch.setattr(malloc, "_resident", lambda: next(resident))
    for _ in range(3 * malloc.LOOK_EVERY):
        memory.after_call()
    assert released == [*range(1, malloc.SETTLING + 1), 2 * malloc.LOOK_EVERY]


def test_the_user_has_the_last_word():
    assert start(JAXCNN_HUGE_PAGES="off") == "['a b', '--c'] None"
    assert start(GLIBC_TUNABLES="glibc.malloc.hugetlb=0") == "['a b', '--c'] glibc.malloc.hugetlb=0"


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Where the kernel's setting is read from, in a process of no settings, debugger or notebook, and glibc 2.36."""
    for name in ("debugpy", "pydevd", "coverage", "ipykernel"):  # tests of notebooks import their kernel
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(malloc, "_KERNEL", tmp_path / "enabled")
    monkeypatch.setattr(malloc, "_glibc", lambda: [2, 36])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv(malloc.SWITCH, raising=False)
    return tmp_path / "enabled"


def test_nothing_is_done_where_the_kernel_has_no_huge_pages_to_give(kernel, monkeypatch):
    kernel.write_text("always madvise [never]")
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started anew"))
    malloc.use_huge_pages()


@pytest.mark.parametrize("setting", ["always [madvise] never", "[always] madvise never"])
def test_a_process_starts_anew_where_the_kernel_gives_them_to_some_or_all(setting, kernel, monkeypatch):
    kernel.write_text(setting)
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that it is put back
    started = []
    monkeypatch.setattr(os, "execv", lambda *_: started.append(os.environ["GLIBC_TUNABLES"]))
    malloc.use_huge_pages()
    assert len(started) == 1 and started[0].startswith("glibc.malloc.hugetlb=1")


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/", {}, 1100),
        ("0::/job/step", {"memory.max": "max", "job/memory.max": f"{300 * 1024}", "job/step/memory.max": "max"}, 400),
        ("4:memory:/docker/a\n0::/", {"memory/memory.limit_in_bytes": f"{200 * 1024}"}, 300),
        ("4:cpu:/a\n0::/..", {"cpu/memory.max": "1"}, 1100),
    ],
    ids=["none", "of a job", "of a container", "of other controllers"],
)
def test_what_a_process_can_have_is_what_machine_and_groups_leave_it(groups, files, limit, tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 1000 kB\nSwapFree: 100 kB\nHugePages_Free: 0\n")
    (tmp_path / "cgroup").write_text(groups + "\n")
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text + "\n")
    monkeypatch.setattr(malloc, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(malloc, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(malloc, "_GROUP_FILES", tmp_path / "fs")
    monkeypatch.setattr(malloc, "_resident", lambda: 0)
    assert malloc.obtainable() == limit * 1024
    (tmp_path / "meminfo").unlink()
    assert malloc.obtainable() is None


@pytest.mark.parametrize("watcher", ["trace", "profile", "debugpy", "prompt"])
def test_a_process_that_somebody_watches_is_not_started_anew(watcher, kernel, monkeypatch):
    kernel.write_text("always [madvise] never")
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that it is put back
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started anew"))
    if watcher == "debugpy":
        monkeypatch.setitem(sys.modules, "debugpy", sys)
    elif watcher == "prompt":
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    set_watcher = {"trace": sys.settrace, "profile": sys.setprofile}.get(watcher, lambda _: None)
    set_watcher(lambda *_: None)
    try:
        malloc.use_huge_pages()
    finally:
        set_watcher(None)


def test_python_i_keeps_its_process():
    done = subprocess.run(
        [sys.executable, "-i", "-c", SCRIPT], input="", capture_output=True, text=True, timeout=60,
        env={name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"},
    )  # fmt: skip
    assert done.stdout.strip() == "[] None"


def test_what_a_limit_on_the_address_space_leaves_is_known_and_without_one_nothing():
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = 1 << 44
    try:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        left = malloc.address_space_left()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert most - (1 << 40) < left < most
    assert soft != resource.RLIM_INFINITY or malloc.address_space_left() is None
