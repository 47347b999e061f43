"""Limits that data and machine impose on a config, checked before a run hangs or is killed for lack of memory."""

import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxcnn.config import Config, ConfigError
from jaxcnn.config.ranges import INT32
from jaxcnn.data import resident
from jaxcnn.data.source import Splits
from jaxcnn.learn import sharded
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine import malloc
from jaxcnn.machine.mesh import data_devices
from jaxcnn.train import loaders

SLIP = 1e-3  # of a step; intervals from this length up to one step count as one step
MOST_STOPS = 10**7  # most evaluations and checkpoints of a run, whose steps are listed in memory
SPARE = 1.25  # factor of the available memory: a program does not always use all that its compiler allots


def check_spec(config: Config, spec: StepSpec) -> None:
    """Refuse numbers that make no sense for images of this size, or a run of this length.

    Raises:
      ConfigError: some numbers are refused; the message has a line for each.
    """
    wrong = [*_rhythms(config, spec), *_times(config, spec)]
    side = max(spec.image_shape[:2])
    for name, value, most in (
        ("crop_padding", config.augment.crop_padding * (config.augment.crop != "none"), side),
        ("cutout", config.augment.cutout, 2 * side),
    ):
        if value > most:
            wrong.append(
                f"config.augment.{name}={value} is more than {most} pixels, for images with a side of {side} pixels"
            )
    if wrong:
        raise ConfigError("\n".join(wrong))


def _rhythms(config: Config, spec: StepSpec) -> list[str]:
    """Errors for intervals that are shorter than a step, or due too often to be listed."""
    checkpoint, epoch, total = config.checkpoint, spec.steps_per_epoch, spec.total_steps
    rhythms = [
        ("run.eval_every_epochs", config.run.eval_every_epochs, epoch),
        ("checkpoint.every_epochs", checkpoint.every_epochs * (not checkpoint.every_steps), epoch),
        ("checkpoint.every_steps", checkpoint.every_steps, 1.0),
        ("checkpoint.keep_every_steps", checkpoint.keep_every_steps, 1.0),
    ]
    wrong = []
    for key, value, unit in rhythms:
        steps = value * unit
        if 0 < steps < SLIP:
            wrong.append(
                f"config.{key}={value:g} is {steps:.1g} steps; the minimum is one step, {1 / epoch:.2g} epochs"
            )
        elif steps and total / max(steps, 1) > MOST_STOPS:
            times = total / max(steps, 1)
            wrong.append(
                f"config.{key}={value:g} is due {times:,.0f} times in {total:,} steps; choose a larger interval"
            )
    return wrong


def _times(config: Config, spec: StepSpec) -> list[str]:
    """Error lines for times after the last step that a program can count."""
    unit = spec.steps_per_epoch if config.schedule.unit == "epochs" else 1.0
    wrong = []
    if any(boundary * unit > INT32 for boundary in config.schedule.boundaries):
        wrong.append(f"config.schedule.boundaries={config.schedule.boundaries} are above the limit of 2^31 steps")
    if config.schedule.name == "restarts" and config.schedule.period * unit > INT32:
        wrong.append(f"config.schedule.period={config.schedule.period:g} is above the limit of 2^31 steps")
    if config.optim.whitening_bias_epochs * spec.steps_per_epoch > INT32:
        wrong.append(
            f"config.optim.whitening_bias_epochs={config.optim.whitening_bias_epochs:g} is above the limit of 2^31 "
            "steps"
        )
    return wrong


def check_memory(config: Config, spec: StepSpec, mesh: Mesh, loader: str, splits: Splits) -> None:
    """Refuse a run whose state, data and batch alone exceed the memory of a device, before anything compiles.

    Raises:
      ConfigError: state, data and batch do; the message lists the large parts in GiB.
    """
    parts = _alive(spec, mesh, loader, splits)
    batch = max(
        spec.global_batch_size,
        loaders.eval_batch_size(config.run.eval_batch_size, spec, mesh) * bool(splits.val or splits.test),
    )
    parts["a batch"] = batch // data_devices(mesh) * math.prod(spec.image_shape) * np.dtype(spec.image_dtype).itemsize
    _check_fits(parts, mesh, 1.0)


def check_compiled(
    spec: StepSpec, mesh: Mesh, loader: str, splits: Splits, compiled: list[jax.stages.Compiled]
) -> None:
    """Refuse a run whose programs need more memory than available; on CPU only, as a GPU's allocator reports it itself.

    Raises:
      ConfigError: the programs do; the message lists the large parts in GiB.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return
    worked_with = [getattr(each.memory_analysis(), "temp_size_in_bytes", 0) for each in compiled]
    _check_fits(_alive(spec, mesh, loader, splits) | {"a step": max(worked_with, default=0)}, mesh, SPARE)


def _alive(spec: StepSpec, mesh: Mesh, loader: str, splits: Splits) -> dict[str, int]:
    """The bytes on one device that stay allocated, by readable names."""

    def on_a_device(leaf: jax.ShapeDtypeStruct) -> int:
        assert isinstance(leaf.sharding, NamedSharding)
        return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize

    state = sum(map(on_a_device, jax.tree.leaves(sharded.abstract_state(spec, mesh))))
    there_are = [split for split in (splits.train, splits.val, splits.test) if split is not None]
    data = sum(resident.nbytes(split) for split in there_are) if loader == "resident" else 0
    return {"the parameters and the optimiser's state": state, "the resident set": data}


def _check_fits(parts: dict[str, int], mesh: Mesh, spare: float) -> None:
    """Raise ConfigError if the parts, in bytes on one device, exceed `spare` times its memory."""
    device = next(device for device in mesh.devices.flat if device.process_index == jax.process_index())
    needed, there_is = sum(parts.values()), (device.memory_stats() or {}).get("bytes_limit")
    if device.platform == "cpu":  # CPU devices share the host's memory, and may share the data set as well
        devices = len(mesh.local_devices)
        needed, there_is = needed * devices - parts["the resident set"] * (devices - 1), malloc.obtainable()
    if there_is is None or needed <= spare * there_is:
        return
    listed = ", ".join(f"{what} {size / 2**30:,.1f}" for what, size in parts.items() if size >= 2**27)
    raise ConfigError(
        f"the run needs at least {needed / 2**30:,.1f} GiB of memory ({listed}), but only {there_is / 2**30:,.1f} GiB "
        f"are available ({device.device_kind}); lower config.model.width, config.global_batch_size, "
        "config.run.eval_batch_size or config.data.image_size, or stream the set (config.data.loader='stream')"
    )
