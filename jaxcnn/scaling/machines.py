"""Machines that are not available: those that `--simulate` names, and how to compile for them."""

import dataclasses
import importlib.util
import math
import os
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import xla_flags
from jaxcnn.scaling.bandwidth import ETHERNET, LINKS, TORI, Ethernet, Links, Torus

EXAMPLES = "gpu:256, gpu:h100:256, gpu:a100:64, tpu:v5e:16x16 or cpu:512"
DEFAULT_GPU = "h100"
MOST_DEVICES = 4096  # with more virtual CPU devices, compilation takes too long


@dataclasses.dataclass(frozen=True)
class Machine:
    """A cluster by name.

    Attributes:
      platform: "gpu", "tpu" or "cpu".
      name: name of the device, such as "h100"; empty for CPUs.
      devices: number of devices.
      grid: grid of TPUs, such as (16, 16).
    """

    platform: str
    name: str
    devices: int
    grid: tuple[int, ...] = ()

    def __str__(self) -> str:
        size = "x".join(map(str, self.grid)) or str(self.devices)
        return ":".join(filter(None, (self.platform, self.name, size)))

    @property
    def links(self) -> Links | Torus | Ethernet:
        """The links between its devices."""
        return LINKS.get(self.name) or TORI.get(self.name) or ETHERNET

    @property
    def device_kind(self) -> str:
        """JAX's name of the device, as used by `train.flops.peak`."""
        return _KINDS.get(self.name, "cpu")


_KINDS = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200", "a100": "NVIDIA A100-SXM4-80GB", "v5e": "TPU v5 lite"}


def parse(text: str) -> Machine:
    """The machine named by a value of `--simulate`.

    Raises:
      UserError: the value names no machine.
    """
    platform, *rest = text.lower().split(":")
    size = rest[-1] if rest else ""
    name = rest[0] if len(rest) == 2 else ""
    sides = size.split("x")
    if platform not in ("gpu", "tpu", "cpu") or len(rest) > 2 or not all(side.isdecimal() for side in sides):
        raise UserError(f"--simulate={text} is not a machine; write for example {EXAMPLES}")
    grid = tuple(int(side) for side in sides)
    if platform == "gpu":
        name = name or DEFAULT_GPU
    known = {"gpu": tuple(LINKS), "tpu": tuple(TORI), "cpu": ("",)}[platform]
    if name not in known or (len(grid) > 1) != (platform == "tpu"):
        raise UserError(
            f"--simulate={text}: unknown machine; write for example {EXAMPLES}; known devices: "
            f"{', '.join((*LINKS, *TORI))}"
        )
    if not 1 <= math.prod(grid) <= MOST_DEVICES:
        raise UserError(f"--simulate={text}: the number of devices must be from 1 to {MOST_DEVICES}")
    node = LINKS[name].node if platform == "gpu" else 1
    if grid[0] % node and grid[0] > node:
        raise UserError(f"--simulate={text}: a node has {node} GPUs; take a multiple of {node}, or fewer")
    return Machine(platform, name, math.prod(grid), grid if platform == "tpu" else ())


@dataclasses.dataclass(frozen=True)
class Compiler:
    """The way in which the step of a machine is compiled here.

    Attributes:
      target: the compiler that is used: "cuda", "tpu" or "cpu".
      remark: note on it for the reader; empty if it is the machine's own compiler.
    """

    target: str
    remark: str


def compiler_for(machine: Machine) -> Compiler:
    """The machine's own compiler if its plugin is installed; else XLA:CPU with the same number of virtual devices."""
    if machine.platform == "cpu":
        return Compiler("cpu", "")
    modules: tuple[str, ...]
    if machine.platform == "gpu":
        target, modules, extra = "cuda", ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13"), "simulate-gpu"
    else:
        target, modules, extra = "tpu", ("libtpu",), "tpu"
    if any(_installed(module) for module in modules):
        return Compiler(target, "")
    return Compiler(
        "cpu",
        f"compiled for {machine.devices} virtual CPU devices, since {modules[0]} is not installed (pip install "
        f"'jaxcnn[{extra}]', in an environment of its own): the collectives are the same in kind and bytes, though "
        "XLA:GPU and XLA:TPU may join them into other numbers of operations; memory is that of the CPU's program",
    )


def environment(machine: Machine, compiler: Compiler) -> dict[str, str]:
    """Environment variables for the process that compiles for a machine."""
    changes = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if compiler.target == "cpu":
        changes["JAX_NUM_CPU_DEVICES"] = str(machine.devices)
    elif compiler.target == "cuda":
        changes["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # for libraries needed only at run time
        # Without a GPU, kernels cannot be timed.
        flags = xla_flags.GPU_FLAGS | {"xla_gpu_autotune_level": "0"}
        changes["XLA_FLAGS"] = xla_flags.merged(os.environ.get("XLA_FLAGS", ""), flags)
    else:
        changes["TPU_SKIP_MDS_QUERY"] = "1"  # this query asks the cloud for the type of this machine
    return changes


def devices(machine: Machine, compiler: Compiler) -> list[Any]:
    """Devices to compile for, in the order of a ring through the nodes; call it in a process with `environment`."""
    import jax
    from jax.experimental import topologies

    if compiler.target == "cpu":
        return jax.devices()[: machine.devices]
    if compiler.target == "tpu":
        topology = topologies.get_topology_desc(f"{machine.name}:{'x'.join(map(str, machine.grid))}", platform="tpu")
        return list(topology.devices)
    node = min(machine.devices, LINKS[machine.name].node)
    topology = topologies.get_topology_desc(
        platform="cuda",
        target_config=_GPUS[machine.name].target_config(),
        topology=f"1x{machine.devices // node}x{node}",  # slices x hosts x GPUs per host
    )
    return list(topology.devices)


@dataclasses.dataclass(frozen=True)
class _Gpu:
    """The properties of a GPU that XLA needs to compile for it."""

    description: str
    major: int
    multiprocessors: int
    single_units: int  # float32 units per multiprocessor
    shared_memory: int  # KiB per multiprocessor
    level2_cache: int  # MiB
    clock: float  # GHz, boost
    memory: int  # bytes
    bandwidth: int  # bytes/s

    def target_config(self) -> str:
        """The text of XLA's `GpuTargetConfigProto`."""
        limits = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "threads_per_core_limit": 2048,
            "registers_per_core_limit": 65536,
            "registers_per_block_limit": 65536,
            "block_dim_limit_x": 2**31 - 1,
            "block_dim_limit_y": 65535,
            "block_dim_limit_z": 65535,
            "shared_memory_per_block": 48 * 1024,
            "shared_memory_per_block_optin": (self.shared_memory - 1) * 1024,
            "shared_memory_per_core": self.shared_memory * 1024,
            "core_count": self.multiprocessors,
            "fpus_per_core": self.single_units,
            "l2_cache_size": self.level2_cache * 2**20,
            "clock_rate_ghz": self.clock,
            "memory_bandwidth": self.bandwidth,
            "device_memory_size": self.memory,
        }
        lines = "\n".join(f"  {name}: {value}" for name, value in limits.items())
        return (
            f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ major: {self.major} }}\n}}\n"
            f'platform_name: "CUDA"\ndnn_version_info {{ major: 9 minor: 8 }}\n'
            f'device_description_str: "{self.description}"\n'
        )


# From NVIDIA's data sheets and architecture papers of the SXM modules, and the table of technical specifications per
# compute capability in the CUDA C++ Programming Guide.
_GPUS = {
    "h100": _Gpu(_KINDS["h100"], 9, 132, 128, 228, 50, 1.98, 80 * 10**9, 3350 * 10**9),
    "h200": _Gpu(_KINDS["h200"], 9, 132, 128, 228, 50, 1.98, 141 * 10**9, 4800 * 10**9),
    "a100": _Gpu(_KINDS["a100"], 8, 108, 64, 164, 40, 1.41, 80 * 10**9, 2039 * 10**9),
}


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False
