"""The machine that measures, as JSON: `python -m benchmarks.machine`, in a process of its own.

The environment that runs record, and of an NVIDIA GPU its driver, power limit and clock, and the versions of PyTorch.
"""

import json
import shutil
import subprocess
from typing import Any

from benchmarks import jaxcnn_tasks
from jaxcnn import command
from jaxcnn.machine import extras

BESIDE = ("torch", "torchvision", "triton", "timm", "nvidia-cudnn-cu13", "optuna", "tensorflow")
OF_GPU = ("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm")


def facts() -> dict[str, Any]:
    """The facts; starts JAX's backend."""
    found = jaxcnn_tasks.facts()
    found["packages"] |= {name: version for name in BESIDE if (version := extras.version(name))}
    return found | {"gpus": gpus()}


def gpus() -> list[dict[str, str]]:
    """The facts that `nvidia-smi` has about each GPU; empty without it."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", f"--query-gpu={','.join(OF_GPU)}", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(",") for line in told.splitlines() if line.strip()]
    return [dict(zip(OF_GPU, map(str.strip, row), strict=False)) for row in rows]


def main() -> int:
    """Print the facts; return the exit code."""
    print(json.dumps(facts()))
    return 0


if __name__ == "__main__":
    command.run(main)
