"""Devices: the mesh, the placement of arrays on it, and the cache of compiled programs."""

import itertools
import operator
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from jaxcnn.config import Config, ConfigError
from jaxcnn.machine import paths

DATA_AXIS = "data"  # splits the batch
MODEL_AXIS = "model"  # splits the output channels of wide layers


def prepare_backend() -> None:
    """Apply the settings needed before JAX first uses a device: the cache of programs, and synchronous steps on a CPU.

    On a CPU, a call then runs its step before it returns. A queued call would start when the results of the previous
    one exist, before its working memory is freed, so the memory of two steps would be in use. The queue gains nothing
    if the host is the device. GPUs and TPUs are not affected.
    """
    enable_compile_cache()
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def enable_compile_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another one.

    Programs that compile in less than a second are kept too, unless JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS is set:
    a start needs several of them. On a GPU, JAX keeps XLA's autotuning results in the same folder.
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(paths.cache_folder() / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def make_mesh(devices: int = 0, model_devices: int = 1) -> Mesh:
    """A mesh of axes (`data`, `model`) over the first `devices` devices of each process (0: all of them).

    The devices of a process are consecutive along `data`, in process order. Each group of `model_devices` consecutive
    devices of a process shares the wide layers; the size of `data` is the number of such groups.

    Raises:
      ConfigError: more devices requested than exist, `model_devices` does not divide them, or no backend starts.
    """
    try:
        local = jax.local_devices()
        all_devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    except Exception as error:  # a backend may fail to start in any way
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"JAX finds no devices ({reason[0][:300]}); see JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')!r} and "
            "the installed jaxlib and plugins"
        ) from error
    if devices > len(local):
        raise ConfigError(
            f"config.parallel.devices={devices}, but this process has {len(local)} ({local[0].device_kind})"
        )
    of_processes = itertools.groupby(all_devices, key=operator.attrgetter("process_index"))
    shares = [list(share)[: devices or None] for _, share in of_processes]
    if len({len(share) for share in shares}) > 1:
        raise ConfigError(
            f"processes have {', '.join(str(len(share)) for share in shares)} devices; give each the same number, or "
            "set config.parallel.devices to a number that all have"
        )
    if len(shares[0]) % model_devices:
        raise ConfigError(
            f"config.parallel.model_devices={model_devices} does not divide the {len(shares[0])} devices of a process; "
            "change it, or set the number of devices with config.parallel.devices"
        )
    return over(np.array(shares), model_devices)


def over(devices: Any, model_devices: int = 1) -> Mesh:
    """A mesh of axes (`data`, `model`) over these devices in order; `model_devices` must divide their number."""
    grid = np.array(devices).reshape(-1, model_devices)
    return Mesh(grid, (DATA_AXIS, MODEL_AXIS), axis_types=(AxisType.Auto, AxisType.Auto))


def alone(mesh: Mesh) -> Mesh:
    """A mesh of one device: the first of this process in another mesh."""
    return over(mesh.local_devices[:1])


def data_devices(mesh: Mesh) -> int:
    """The number of parts into which a batch is split."""
    return mesh.shape[DATA_AXIS]


def model_devices(mesh: Mesh) -> int:
    """The number of devices over which the wide layers are split."""
    return mesh.shape[MODEL_AXIS]


def check_batch(config: Config, devices: int) -> None:
    """Refuse a batch that cannot be split into `devices` parts (`data_devices`).

    Raises:
      ConfigError: the global batch, its microbatches or the BatchNorm groups are not divisible by `devices`.
    """
    batch, microbatches, group = config.global_batch_size, config.optim.accumulate_steps, config.norm.group_size
    if batch % (devices * microbatches):
        parts = f"{devices} devices" + (f" x config.optim.accumulate_steps={microbatches}" if microbatches > 1 else "")
        raise ConfigError(
            f"config.global_batch_size={batch} is not divisible by {parts}; "
            "change it, or choose fewer devices with config.parallel.devices"
        )
    local = batch // (devices * microbatches)
    if group and local % group and group % local:
        raise ConfigError(
            f"config.norm.group_size={group} does not fit {local} examples per device ({devices} devices): "
            "one must divide the other"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays of which every device holds a complete copy."""
    return NamedSharding(mesh, jax.P())


def device_scalar(value: int, mesh: Mesh) -> jax.Array:
    """An int32 scalar on every device, transferred explicitly, as `jax.transfer_guard` requires."""
    return put(np.int32(value), replicated(mesh))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays on devices; each process supplies the parts of its own devices. All must have equal arrays.

    With several processes, `jax.device_put` would send every array to all of them for comparison.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def one(value: Any) -> jax.Array:
        value = np.asarray(value)
        return jax.make_array_from_callback(value.shape, sharding, value.__getitem__)

    return jax.tree.map(one, tree)


def over_data(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, jax.P(DATA_AXIS))


def describe(mesh: Mesh) -> str:
    """A text such as "4 x NVIDIA H200", "8 x cpu (data 4 x model 2)" or "16 x NVIDIA H200 of 2 processes"."""
    axes = f" (data {data_devices(mesh)} x model {model_devices(mesh)})" if model_devices(mesh) > 1 else ""
    processes = len({device.process_index for device in mesh.devices.flat})
    of = f" of {processes} processes" if processes > 1 else ""
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind}{axes}{of}"
