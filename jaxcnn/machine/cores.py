"""The processor's cores that this process may use."""

import os


def usable() -> list[int]:
    """The numbers of the cores that this process may run on; all of the machine's where the system cannot tell."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
