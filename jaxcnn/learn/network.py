"""The network for which a step is compiled, and which of its layers are frozen or have their own learning rate."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import Collection, VariableDict

from jaxcnn import models
from jaxcnn.config import ConfigError
from jaxcnn.config.convert import nearest
from jaxcnn.config.layers import Layers
from jaxcnn.learn import prune, quantized, rates, slimming
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.models import sizes, split
from jaxcnn.models.batch_norm import PartlyFrozen
from jaxcnn.models.network import Trainable
from jaxcnn.tasks.task import FindingWithin


def network(spec: StepSpec, axis_name: str | None = None) -> Trainable:
    """The network of a spec; `axis_name` as for `jaxcnn.models.build`."""
    norm = spec.norm
    if spec.optim.layers or spec.optim.freeze_norm:
        norm = PartlyFrozen(**dataclasses.asdict(norm), layers=spec.optim.layers, all_frozen=spec.optim.freeze_norm)
    built: Any = models.build(spec.model, norm, spec.task.targets.outputs, axis_name)
    evaluation = spec.task.evaluation
    return built.clone(**evaluation.search) if isinstance(evaluation, FindingWithin) else built


def answering(spec: StepSpec, axis_name: str | None = None) -> Trainable:
    """The network as it is trained and as it answers: with rounding if `optim.quantized` asks for it."""
    plain = network(spec, axis_name)
    return quantized.Quantized(plain, spec.optim.quantized) if spec.optim.quantized else plain


def unrounded(spec: StepSpec) -> StepSpec:
    """The spec without the rounding of `optim.quantized`."""
    return (
        dataclasses.replace(spec, optim=dataclasses.replace(spec.optim, quantized=0)) if spec.optim.quantized else spec
    )


def _initialize(spec: StepSpec, image_shape: tuple[int, int, int]) -> VariableDict:
    """The variables of the network for images of a shape; to be traced, because only shapes are needed."""
    return network(spec).init(jax.random.key(0), jnp.zeros((1, *image_shape), jnp.float32))


@functools.lru_cache(maxsize=16)
def split_layers(spec: StepSpec) -> dict[str, jax.P]:
    """The parameters that are split over the mesh axis `model`, by path, with their partitions."""
    return split.layers_of(lambda: _initialize(spec, spec.image_shape))


def layers_of(spec: StepSpec, batch_stats: Collection) -> Layers:
    """The patterns of all layers that have their own learning rate, including frozen ones."""
    return rates.effective(spec.optim, models.frozen(spec.model), batch_stats)


def head_of(spec: StepSpec) -> str:
    """The name of the module that makes the outputs."""
    return getattr(network(spec), "HEAD", "") or "classifier"


def mapped_of(spec: StepSpec) -> str:
    """The name of the layer whose maps explain the outputs, if not all outputs come from the last maps; else empty."""
    return getattr(network(spec), "MAPPED", "")


def check_layers(spec: StepSpec) -> None:
    """Refuse layers in `model.channels`, patterns in `optim.layers` or `prune.layers`, or scales that do not exist.

    Raises:
      ConfigError: a name or pattern fits nothing, or nothing is left to train.
    """
    if spec.model.channels:
        check_channels(spec)
    if spec.optim.layers or spec.prune.is_on or spec.optim.slimming:
        variables = jax.eval_shape(lambda: _initialize(spec, spec.image_shape))
        if spec.optim.layers:
            rates.check(spec.optim.layers, variables["params"])
        batch_stats = variables.get("batch_stats", {})
        part = rates.trainable(variables["params"], layers_of(spec, batch_stats))
        if spec.prune.is_on:
            prune.check(spec.prune, part)
        if spec.optim.slimming:
            slimming.check(part, batch_stats)


def check_quantized(spec: StepSpec, drawn: bool) -> None:
    """Refuse what `optim.quantized` cannot round.

    Args:
      spec: the static part of the run.
      drawn: whether the weights are randomly drawn, not loaded.

    Raises:
      ConfigError or UserError: as in `quantized.check`.
    """
    if spec.optim.quantized:
        quantized.check(network(spec), spec.task, spec.image_shape, drawn)


def usual_sizes(spec: StepSpec) -> dict[str, int]:
    """The layers whose channels `model.channels` can set, with the channels that each has by default."""
    plain = dataclasses.replace(spec, model=dataclasses.replace(spec.model, channels=()))
    return sizes.usual_sizes(lambda: _initialize(plain, spec.image_shape))


def check_channels(spec: StepSpec) -> None:
    """Refuse `model.channels` for layers that have no channels of their own.

    Raises:
      ConfigError: a layer has none.
    """
    known = usual_sizes(spec)
    for layer, _ in spec.model.channels:
        if layer not in known:
            near = (
                nearest(layer, known) or f"; they are {', '.join(list(known)[:12])}{', …' if len(known) > 12 else ''}"
            )
            raise ConfigError(
                f"config.model.channels: {layer!r:.200} is no layer of {spec.model.name} with channels of its own{near}"
            )
    jax.eval_shape(lambda: _initialize(spec, spec.image_shape))


def check_sides(spec: StepSpec) -> None:
    """Refuse sides of training images that the network cannot take with its parameters.

    Raises:
      ConfigError: the network has other parameters for such images, or the images are smaller or not square.
      UserError: the network needs larger images.
    """
    height, width, channels = spec.image_shape
    drawn = spec.augment.sides
    sides = spec.augment.small_sides or drawn
    if not sides:
        return
    field = "sides" if drawn else "small_sides"
    if height != width:
        raise ConfigError(f"config.augment.{field}={sides} is for square images, but these are {height}x{width}")
    if max(sides) > height:
        raise ConfigError(
            f"config.augment.{field}={sides} must not be larger than the side of the images, {height} pixels"
        )

    def shapes(side: int) -> VariableDict:
        return jax.eval_shape(lambda: _initialize(spec, (side, side, channels)))

    whole = shapes(height)
    for side in sides:
        if shapes(side) != whole:
            raise ConfigError(
                f"config.augment.{field}={sides}: {spec.model.name} has different parameters for images of {side} "
                f"pixels than for those of {height}; choose sides that give the same number of positions before its "
                "dense layer, or a network that pools over all of them, such as resnet50"
            )
