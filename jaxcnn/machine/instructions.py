"""The name of the processor and its instructions for int8, from what Linux shows."""

import functools
import pathlib
import platform
import sys

INT8 = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "i8mm": "I8MM", "asimddp": "SDOT"}
CPUINFO = pathlib.Path("/proc/cpuinfo")


def of_int8(told: str) -> list[str]:
    """The names of the int8 instructions in the text of /proc/cpuinfo."""
    lines = (line.partition(":") for line in told.splitlines())
    flags = {flag for name, _, text in lines if name.strip() in ("flags", "Features") for flag in text.split()}
    return [name for flag, name in INT8.items() if flag in flags]


def in_words() -> str:
    """A line on how int8 runs here; empty where the system does not say (not Linux)."""
    try:
        found = of_int8(CPUINFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    if found:
        return f"this processor has instructions for int8 ({', '.join(found)}); how much they bring is what is measured"
    wanted = ", ".join(INT8.values())
    return (
        f"this processor has no instructions for int8 ({wanted}): expect a smaller file, and less time only where most "
        "of it goes into reading weights"
    )


@functools.cache
def processor() -> str:
    """The name of the processor."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or sys.platform
