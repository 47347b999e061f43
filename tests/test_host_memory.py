"""Commands start themselves once more where huge pages are to be had, and only there."""

import os
import subprocess
import sys

import pytest

from jaxcnn import host_memory

SCRIPT = """
import os, sys
from jaxcnn.host_memory import use_huge_pages
use_huge_pages()
print(sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))
"""


def start(**environment: str) -> str:
    """What a process that asks for huge pages prints: its arguments, and the tunables it ends up with."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", host_memory.SWITCH)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "a b", "--c"], capture_output=True, text=True, env=kept | environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not host_memory._on_request(), reason="no huge pages on request here")
def test_a_process_comes_back_with_huge_pages_and_its_arguments():
    huge, kept = "glibc.malloc.hugetlb=1", [f"{name}={value}" for name, value in host_memory.KEEP.items()]
    cpu = {"JAX_PLATFORMS": "cpu"}
    assert start(**cpu) == f"['a b', '--c'] {':'.join([huge, *kept])}"
    # A setting of the user's own stays.
    own = "glibc.malloc.arena_max=2"
    assert start(GLIBC_TUNABLES=own, **cpu) == f"['a b', '--c'] {':'.join([own, huge, *kept[1:]])}"


def test_memory_is_kept_only_where_no_gpu_computes(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv(host_memory.SWITCH, raising=False)
    monkeypatch.setattr(host_memory, "_on_request", lambda: True)
    monkeypatch.setattr(host_memory, "gpu_wanted", lambda environment: True)
    monkeypatch.setattr(os, "execv", lambda *_: None)
    host_memory.use_huge_pages()
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"


def test_memory_goes_back_while_the_heap_settles_and_when_it_has_grown(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", ":".join(f"{name}={value}" for name, value in host_memory.KEEP.items()))
    released, resident = [], iter([100, 120, 126])
    memory = host_memory.KeptMemory()
    monkeypatch.setattr(host_memory, "release", lambda: released.append(memory._calls))
    monkeypatch.setattr(host_memory, "_resident", lambda: next(resident))
    for _ in range(3 * host_memory.LOOK_EVERY):
        memory.after_call()
    assert released == [*range(1, host_memory.SETTLING + 1), 3 * host_memory.LOOK_EVERY]


def test_memory_that_is_not_kept_is_left_alone(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    memory = host_memory.KeptMemory()
    monkeypatch.setattr(host_memory, "release", lambda: pytest.fail("released"))
    for _ in range(2 * host_memory.LOOK_EVERY):
        memory.after_call()


def test_the_user_has_the_last_word():
    assert start(JAXCNN_HUGE_PAGES="off") == "['a b', '--c'] None"
    assert start(GLIBC_TUNABLES="glibc.malloc.hugetlb=0") == "['a b', '--c'] glibc.malloc.hugetlb=0"


@pytest.mark.parametrize("setting", ["always [never]", "[always] madvise never"])
def test_nothing_is_done_where_the_kernel_does_not_take_requests(setting, monkeypatch, tmp_path):
    kernel = tmp_path / "enabled"
    kernel.write_text(setting)
    monkeypatch.setattr(host_memory, "_KERNEL", kernel)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv(host_memory.SWITCH, raising=False)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started anew"))
    host_memory.use_huge_pages()
