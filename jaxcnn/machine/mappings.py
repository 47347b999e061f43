"""Mapped regions of memory, of which Linux allows a process some number (vm.max_map_count, 65,530 by default).

XLA:CPU maps several regions for every kernel: the training step of a ResNet50 takes 2,000. LLVM does not check whether
a mapping succeeded, so a process with too many compiled programs ends in a segmentation fault.
"""

import contextlib
import pathlib

_REGIONS = pathlib.Path("/proc/self/maps")
_MOST = pathlib.Path("/proc/sys/vm/max_map_count")


def used() -> float:
    """The share of the allowed regions that this process has mapped, 0 … 1; 0 where there is no such limit."""
    with contextlib.suppress(OSError, ValueError):
        return _REGIONS.read_bytes().count(b"\n") / int(_MOST.read_text())
    return 0.0
