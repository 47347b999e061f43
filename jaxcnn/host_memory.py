"""Huge pages for the host's memory, without which a training step on CPU spends a third of its time on page faults.

XLA:CPU asks the C library for the memory of every step anew, which comes from the kernel in pages of 4 KiB, one fault
each. glibc (from 2.35) asks for pages of 2 MiB when told so before the process starts, so a command starts itself once
more with that setting.
"""

import os
import pathlib
import sys

TUNABLE = "glibc.malloc.hugetlb"
SWITCH = "JAXCNN_HUGE_PAGES"
_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Replace this process by the same command with huge pages, where that helps and has not been done.

    It helps on Linux with glibc where the kernel gives huge pages to those who ask ("madvise"). JAXCNN_HUGE_PAGES=off
    or a setting of glibc.malloc.hugetlb in GLIBC_TUNABLES leaves everything as it is. To be called before anything is
    imported or opened that could not be done twice.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if os.environ.get(SWITCH, "").lower() in ("off", "0", "no") or TUNABLE in tunables or not _on_request():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{TUNABLE}=1"]))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _on_request() -> bool:
    """Whether the kernel and the C library give huge pages on request."""
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", ()):
        return False
    version = (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ").split(".")
    if [int(part) for part in version[:2] if part.isdecimal()] < [2, 35]:
        return False
    return _KERNEL.is_file() and "[madvise]" in _KERNEL.read_text()
