"""Flags of XLA that jaxcnn sets before JAX starts a GPU; what the user set stays, and a CPU is left alone.

Left at XLA's own defaults, because no measurement of ours speaks for another value: command buffers (CUDA graphs, on
for fusions and library calls; with convolutions too, jaxlib 0.11.2 on an H200 ends in cuDNN's status 5003), autotuning
(level 4, its results kept by JAX beside the compiled programs, so that a restart takes the same algorithms), layouts
(XLA itself takes cuDNN's NHWC kernels where tensor cores want them), and determinism
(`--xla_gpu_deterministic_ops=true` gives equal bits from run to run, but turns autotuning off and expands scatters, at
a cost in time that we have not measured).
"""

import os
from collections.abc import Mapping
from importlib import metadata, util

SWITCH = "JAXCNN_XLA_FLAGS"

# Gradients are summed over the devices while the backward pass goes on. XLA's default is off; NVIDIA's JAX images set
# it (docs.nvidia.com/jax-toolbox/environment-variables), and so does docs.jax.dev/en/latest/gpu_performance_tips.html.
GPU_FLAGS = {"xla_gpu_enable_latency_hiding_scheduler": "true"}

# XLA ends the process at a flag that it does not know, so none is set for a jaxlib that it was not tried with.
TRIED = ("0.10.",)


def apply() -> None:
    """Add `GPU_FLAGS` to XLA_FLAGS where a GPU plugin of JAX is installed; to be called before JAX starts a backend.

    `JAXCNN_XLA_FLAGS=off` prevents it. A flag that XLA_FLAGS has already keeps its value there.
    """
    if switched_off(SWITCH) or not gpu_wanted(os.environ) or not _tried():
        return
    os.environ["XLA_FLAGS"] = merged(os.environ.get("XLA_FLAGS", ""), GPU_FLAGS)


def merged(flags: str, defaults: Mapping[str, str]) -> str:
    """XLA_FLAGS with those of `defaults` that it does not name; unchanged where it names a file of flags."""
    if names_file(flags):
        return flags
    named = {word.lstrip("-").partition("=")[0] for word in flags.split()}
    added = [f"--{name}={value}" for name, value in defaults.items() if name not in named]
    return " ".join([*added, *flags.split()])


def names_file(flags: str) -> bool:
    """Whether XLA_FLAGS names a file of flags in place of flags."""
    return bool(flags.strip()) and not flags.strip().startswith("-")


def switched_off(switch: str) -> bool:
    """Whether an environment variable of ours turns off what it is named after."""
    return os.environ.get(switch, "").lower() in ("off", "0", "no")


def gpu_wanted(environment: Mapping[str, str]) -> bool:
    """Whether JAX may start a GPU: a CUDA plugin is installed, and JAX_PLATFORMS does not leave it out."""
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return False
    return any(util.find_spec(f"jax_cuda{version}_plugin") is not None for version in (12, 13))


def _tried() -> bool:
    try:
        return metadata.version("jaxlib").startswith(TRIED)
    except metadata.PackageNotFoundError:
        return False
