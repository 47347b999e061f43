"""The checks of `python -m jaxcnn.doctor`. No check raises because of its result; each says what to do."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import util

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.config import Config, UserError
from jaxcnn.data.source import open_splits
from jaxcnn.data.tfds_prepare import find_prepared
from jaxcnn.machine import extras
from jaxcnn.machine import mesh as meshes
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.text import counted

STEPS = 20
SLOW = 0.7  # share of the median speed: a slower device delays all others
CLOCKS_SECONDS = 2.0  # with a larger difference, logs and file times mislead
DISK_MIB = 32
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
DISK_MIB_PER_SECOND = 50


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
      name: what was checked.
      status: "ok", "warn" or "fail".
      found: what was found, in words.
      advice: what to do; empty if the status is "ok".
    """

    name: str
    status: str
    found: str
    advice: str = ""

    def as_list(self) -> list[str]:
        """The check as a list, the form in which it is sent to the other processes."""
        return [self.name, self.status, self.found, self.advice]


def count(statuses: Sequence[str]) -> str:
    """How many checks have each status, such as "7 ok, 1 warning, 0 failures"."""
    warnings, failures = statuses.count("warn"), statuses.count("fail")
    return f"{statuses.count('ok')} ok, {counted(warnings, 'warning')}, {counted(failures, 'failure')}"


def examine(config: Config, workdir: pathlib.Path, cluster: Cluster) -> list[Check]:
    """The results of all checks of this process, in the same order in all processes."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("versions", versions),
        ("devices", lambda: devices(config)),
        ("TensorFlow", tensorflow),
        ("data", lambda: data(config)),
        ("workdir", lambda: writable(workdir, cluster.process)),
        ("compile cache", compile_cache),
    ]
    found = [_guarded(name, check) for name, check in checks]
    found.append(clocks(cluster))
    rate = _guarded("throughput", throughput)
    found.append(compared(rate, cluster))
    found.append(_guarded("exchange", lambda: exchange(config)))
    return found


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except UserError as error:
        return Check(name, "fail", str(error).partition("\n")[0])
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        return Check(name, "fail", f"{type(error).__name__}: {reason[0][:200]}", "see the message")


def versions() -> Check:
    """Check the versions of packages, and pairs of versions that do not work together."""
    names = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: extras.version(name) or "" for name in names}
    text = f"Python {platform.python_version()}, " + ", ".join(f"{name} {version}" for name, version in found.items())
    bad = bad_pairs({name: extras.version(name) or "" for name in (*names, *PLUGINS, "tensorflow", "tensorflow-cpu")})
    advice = "install the versions in requirements.lock" if bad else ""
    return Check("versions", "fail" if bad else "ok", "; ".join(bad) or text, advice)


PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-cuda12-pjrt", "jax-cuda13-pjrt")


def bad_pairs(found: dict[str, str]) -> list[str]:
    """Known incompatibilities among versions, given by package name ("" for a missing package)."""
    bad = []
    jax_version, jaxlib = found.get("jax", ""), found.get("jaxlib", "")
    if _numbers(jaxlib)[:2] != _numbers(jax_version)[:2]:
        bad.append(f"jax {jax_version} with jaxlib {jaxlib}: both must be of the same release")
    for plugin in PLUGINS:
        if (version := found.get(plugin, "")) and _numbers(version)[:2] != _numbers(jaxlib)[:2]:
            bad.append(f"{plugin} {version} with jaxlib {jaxlib}: both must be of the same release")
    if found.get("jax-cuda12-plugin") and found.get("jax-cuda13-plugin"):
        bad.append("jax-cuda12-plugin and jax-cuda13-plugin together: JAX loads both; uninstall one")
    if found.get("tensorflow") and found.get("tensorflow-cpu"):
        bad.append("tensorflow and tensorflow-cpu together overwrite each other; uninstall both and install one")
    for name in ("tensorflow", "tensorflow-cpu"):
        if found.get(name) and _numbers(found[name]) < [2, 18] and _numbers(found.get("numpy", "")) >= [2]:
            bad.append(f"{name} {found[name]} was built for numpy 1, and numpy is {found['numpy']}")
    return bad


def devices(config: Config) -> Check:
    """Check JAX's devices and their memory."""
    mesh = meshes.make_mesh(config.parallel.devices)
    local = jax.local_devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in local]
    memory = f", {limits[0] / 2**30:.1f} GiB each" if limits[0] else ""
    text = f"{len(local)} x {local[0].device_kind}{memory}; {meshes.describe(mesh)} in all"
    idle = pathlib.Path("/dev/nvidiactl").exists() and local[0].platform == "cpu"
    advice = "this machine has an NVIDIA driver, but JAX uses the CPU: pip install 'jaxcnn[cuda13]', see JAX_PLATFORMS"
    return Check("devices", "warn" if idle else "ok", text, advice * idle)


def tensorflow() -> Check:
    """Check whether TensorFlow, which reads data, leaves the accelerators to JAX."""
    if util.find_spec("tensorflow") is None:
        return Check(
            "TensorFlow",
            "warn",
            "not installed",
            "needed only by the stream loader and to prepare TFDS sets: pip install 'jaxcnn[tfds]'",
        )
    from jaxcnn.data.tensorflow import import_tensorflow

    tf = import_tensorflow()
    seen = [device.name for kind in ("GPU", "TPU") for device in tf.config.get_visible_devices(kind)]
    if seen:
        return Check(
            "TensorFlow", "fail", f"{tf.__version__} sees {', '.join(seen)}", "import jaxcnn before TensorFlow"
        )
    return Check("TensorFlow", "ok", f"{tf.__version__}, sees no accelerator")


def data(config: Config) -> Check:
    """Check whether the data set is present; nothing is downloaded."""
    source = config.data.source
    if source.startswith("tfds:"):
        folder = find_prepared(source.removeprefix("tfds:"), config.data)
        if folder is None:
            advice = "the first run downloads it; without a network, set config.data.dir to a prepared set"
            return Check("data", "warn", f"{source} is not prepared", advice)
    splits = open_splits(config.data, config.task)
    parts = [f"{split.name} {len(split)}" for split in (splits.train, splits.val, splits.test) if split is not None]
    return Check("data", "ok", f"{source}: {', '.join(parts)}")


def writable(workdir: pathlib.Path, process: int) -> Check:
    """Check whether the workdir is writable, and how fast."""
    file = workdir / f".doctor-{platform.node()}-{process}"
    block = np.random.default_rng(0).bytes(2**20)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        with file.open("wb") as handle:
            for _ in range(DISK_MIB):
                handle.write(block)
            handle.flush()
            os.fsync(handle.fileno())
        rate = DISK_MIB / (time.perf_counter() - began)
    except OSError as error:
        return Check(
            "workdir", "fail", f"{workdir}: {error.strerror}", "choose another --workdir, or repair the folder"
        )
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
    slow = rate < DISK_MIB_PER_SECOND
    advice = "checkpoints will delay the run: choose a faster disk, or save less often (config.checkpoint.every_epochs)"
    return Check("workdir", "warn" if slow else "ok", f"{workdir} takes {rate:.0f} MiB/s", advice * slow)


def compile_cache() -> Check:
    """Check whether compiled programs can be kept between starts."""
    meshes.enable_compile_cache()
    folder = pathlib.Path(jax.config.values["jax_compilation_cache_dir"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".doctor").touch()
        (folder / ".doctor").unlink(missing_ok=True)
        sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    except OSError as error:
        advice = "every start compiles again; set JAXCNN_CACHE to a writable folder"
        return Check("compile cache", "warn", f"{folder}: {error.strerror}", advice)
    return Check("compile cache", "ok", f"{folder}: {counted(len(sizes), 'file')}, {sum(sizes) / 2**20:.0f} MiB")


def clocks(cluster: Cluster) -> Check:
    """Check how much the clocks of the hosts differ from that of process 0."""
    if cluster.heartbeat is None:
        return Check("hosts", "ok", f"one process on {platform.node()}")
    skew = max((abs(card.get("skew", 0.0)) for card in cluster.heartbeat.roster), default=0.0)
    met = f"{counted(cluster.processes, 'process', 'processes')} on {counted(len(set(cluster.hosts)), 'host')} met"
    text = f"{met}; clocks within {skew:.2f} s"
    far = skew > CLOCKS_SECONDS
    return Check(
        "hosts",
        "warn" if far else "ok",
        text,
        "synchronise the clocks by NTP (chrony), or the times in logs will be misleading" * far,
    )


def throughput() -> Check:
    """Measure images/s per device in 20 steps of a network of three convolutions on all devices of this process.

    It uses a special network, because those of `jaxcnn.models` take longer to compile than to measure.
    """
    local = jax.local_devices()
    mesh = jax.sharding.Mesh(np.array(local), (meshes.DATA_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    generator = np.random.default_rng(0)
    images = meshes.put(generator.random((64 * len(local), 32, 32, 3), np.float32), meshes.over_data(mesh))
    shapes = ((3, 3, 3, 32), (3, 3, 32, 32), (3, 3, 32, 10))
    kernels = [0.1 * generator.standard_normal(shape, np.float32) for shape in shapes]

    def loss(kernels: list[jax.Array], x: jax.Array) -> jax.Array:
        for kernel in kernels:
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=_DIMENSIONS))
        return jnp.mean(jnp.square(jnp.mean(x, axis=(1, 2)) - 1))

    @functools.partial(jax.jit, out_shardings=meshes.replicated(mesh))
    def step(kernels: list[jax.Array], images: jax.Array) -> list[jax.Array]:
        return [
            kernel - 0.1 * gradient for kernel, gradient in zip(kernels, jax.grad(loss)(kernels, images), strict=True)
        ]

    state = jax.block_until_ready(step(meshes.put(kernels, meshes.replicated(mesh)), images))
    began = time.perf_counter()
    for _ in range(STEPS):
        state = step(state, images)
    jax.block_until_ready(state)
    return Check("throughput", "ok", f"{STEPS * 64 / (time.perf_counter() - began):.1f}")


def compared(check: Check, cluster: Cluster) -> Check:
    """The result of `throughput` compared with that of all processes."""
    mine = float(check.found) if check.status == "ok" else None
    everyone = [rate for rate in cluster.gather(mine) if rate is not None]
    if mine is None:
        return check
    median = statistics.median(everyone)
    text = f"{STEPS} steps: {mine:.0f} images/s per device (median of all processes {median:.0f})"
    advice = "it slows down all others: check which other programs run there" if mine < SLOW * median else ""
    return Check("throughput", "warn" if advice else "ok", text, advice)


def exchange(config: Config) -> Check:
    """Check whether the devices of all processes can sum an array."""
    mesh = meshes.make_mesh(config.parallel.devices)
    if mesh.size == 1:
        return Check("exchange", "ok", "one device: nothing to exchange")
    ones = meshes.put(np.ones((mesh.size, 2**18), np.float32), meshes.over_data(mesh))
    total = jax.jit(lambda x: x.sum(axis=0), out_shardings=meshes.replicated(mesh))
    result = total(ones)
    if float(result.addressable_data(0)[0]) != mesh.size:
        return Check(
            "exchange", "fail", "the sum over all devices is wrong", "check the network and the log of the driver"
        )
    return Check("exchange", "ok", f"1 MiB summed over {mesh.size} devices")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]
