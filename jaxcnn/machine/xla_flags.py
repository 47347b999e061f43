"""XLA flags that jaxcnn sets before JAX starts a GPU. Flags set by the user stay; nothing is set for a CPU.

These keep XLA's defaults, because none of our measurements supports another value: command buffers (CUDA graphs, on
for fusions and library calls; with convolutions too, jaxlib 0.11.2 on an H200 fails with cuDNN's status 5003),
autotuning (level 4; JAX keeps its results beside the compiled programs, so a restart uses the same algorithms), layouts
(XLA itself uses cuDNN's NHWC kernels where tensor cores need them), and determinism
(`--xla_gpu_deterministic_ops=true` gives equal bits in every run, but disables autotuning and expands scatters, at a
cost in time that we have not measured).
"""

import os
from collections.abc import Mapping
from importlib import metadata, util

SWITCH = "JAXCNN_XLA_FLAGS"

# Overlaps the sum of gradients over devices with the backward pass. XLA's default is off; NVIDIA's JAX images set it
# (docs.nvidia.com/jax-toolbox/environment-variables), and so does docs.jax.dev/en/latest/gpu_performance_tips.html.
GPU_FLAGS = {"xla_gpu_enable_latency_hiding_scheduler": "true"}

# XLA aborts the process for an unknown flag, so flags are set only for jaxlib versions with which they were tried.
TRIED = ("0.10.",)


def apply() -> None:
    """Add `GPU_FLAGS` to XLA_FLAGS if a JAX GPU plugin is installed. Must be called before JAX starts a backend.

    `JAXCNN_XLA_FLAGS=off` prevents it. A flag already in XLA_FLAGS keeps its value.
    """
    if switched_off(SWITCH) or not gpu_wanted(os.environ) or not _tried():
        return
    os.environ["XLA_FLAGS"] = merged(os.environ.get("XLA_FLAGS", ""), GPU_FLAGS)


def merged(flags: str, defaults: Mapping[str, str]) -> str:
    """XLA_FLAGS plus those `defaults` that it does not contain; unchanged if it names a file of flags."""
    if names_file(flags):
        return flags
    named = {word.lstrip("-").partition("=")[0] for word in flags.split()}
    added = [f"--{name}={value}" for name, value in defaults.items() if name not in named]
    return " ".join([*added, *flags.split()])


def names_file(flags: str) -> bool:
    """Whether XLA_FLAGS names a file of flags instead of flags."""
    return bool(flags.strip()) and not flags.strip().startswith("-")


def switched_off(switch: str) -> bool:
    """Whether the environment variable `switch` turns its feature off."""
    return os.environ.get(switch, "").lower() in ("off", "0", "no")


def gpu_wanted(environment: Mapping[str, str]) -> bool:
    """Whether JAX may start a GPU: a CUDA plugin is installed, and JAX_PLATFORMS does not exclude it."""
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return False
    return any(util.find_spec(f"jax_cuda{version}_plugin") is not None for version in (12, 13))


def _tried() -> bool:
    try:
        return metadata.version("jaxlib").startswith(TRIED)
    except metadata.PackageNotFoundError:
        return False
