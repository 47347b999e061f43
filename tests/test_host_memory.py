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
    assert start() == "['a b', '--c'] glibc.malloc.hugetlb=1"
    assert start(GLIBC_TUNABLES="glibc.malloc.arena_max=2") == (
        "['a b', '--c'] glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    )


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
