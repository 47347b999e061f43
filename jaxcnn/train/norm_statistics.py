"""The running statistics of BatchNorm, computed again from the training images (`config.init.reestimate_norm`).

An average of weights has other statistics than the average of the statistics: Izmailov et al., "Averaging weights leads
to wider optima and better generalization", 2018, arXiv:1803.05407, section 3.2. Statistics of the whole set in place of
moving averages: Wu and Johnson, "Rethinking 'batch' in BatchNorm", 2021, arXiv:2105.07576, section 3.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Num

from jaxcnn.config import UserError
from jaxcnn.data import augment
from jaxcnn.data.batch import Constants, Split
from jaxcnn.learn import quantized
from jaxcnn.learn.network import network
from jaxcnn.learn.state import State
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.models.batch_norm import BatchNorm
from jaxcnn.text import counted
from jaxcnn.train import seals, starting
from jaxcnn.train.setup import Setup

BATCH = 256  # most images that are normalised together, on one device, whatever the devices of the run
FEWEST = 8  # of them, also where images are large: their statistics must say something of the whole set
PIXELS = 2**22  # most pixels of a batch: 256 images of 128 x 128


def reestimated(found: Setup, state: State, constants: Constants, say: Callable[[str], None]) -> State:
    """A new state with statistics of BatchNorm computed from the training images, if the config asks for it.

    Raises:
      UserError: the network has no BatchNorm of jaxcnn.
    """
    if not found.config.init.reestimate_norm:
        return state
    began, train = time.monotonic(), found.splits.train
    variables = jax.tree.map(starting.on_host, quantized.without_ranges(state.variables()))
    new = of_split(found.spec, variables, train, jax.tree.map(starting.on_host, constants))
    say(
        f"  BatchNorm's statistics computed from {counted(len(train), 'training image')} in "
        f"{time.monotonic() - began:.1f} s"
    )
    ema = state.ema and {**state.ema, "batch_stats": seals.replaced(state.ema["batch_stats"], new)}
    return dataclasses.replace(state, batch_stats=seals.replaced(state.batch_stats, new), ema=ema)


def of_split(
    spec: StepSpec, variables: Mapping[str, Any], split: Split, constants: Constants
) -> dict[str, Float32[np.ndarray, " c"]]:
    """The mean and the unbiased variance of what each BatchNorm normalises, over all images of a split, by path.

    Images are as in evaluation: in the order of the split, without augmentation; nothing is dropped out. They go
    through the network in batches of equal size, one image more or less, and each batch is normalised by its own
    statistics, as in training. Means, and variances around the mean of the whole split, are added in float64.

    Args:
      spec: the spec of the step.
      variables: weights of the network, on the host.
      split: the images.
      constants: mean and standard deviation of the images.

    Raises:
      UserError: the network has no BatchNorm, or one of another library.
    """
    wanted = {name.rpartition("/")[0] for name, _ in seals.leaves(variables.get("batch_stats", {}))}
    if not wanted:
        raise UserError(f"config.init.reestimate_norm is for networks with BatchNorm; this {spec.model.name} has none")
    device = jax.local_devices()[0]
    placed, normal = jax.device_put((dict(variables), (constants.mean, constants.std)), device)
    sums: dict[str, np.ndarray] = {}
    look = jax.jit(_looker(spec))
    for indices in np.array_split(np.arange(len(split)), -(-len(split) // batch_of(spec.image_shape))):
        moments = look(placed, jax.device_put(split.read(indices), device), normal)
        for name, calls in jax.device_get(moments).items():
            for count, mean, variance in calls:
                mean, variance = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
                part = np.stack([np.full_like(mean, count), count * mean, count * (variance + mean**2)])
                sums[name] = sums.get(name, 0) + part
    if sums.keys() != wanted:
        raise UserError(
            f"config.init.reestimate_norm is for BatchNorm of jaxcnn, and {spec.model.name} has others: "
            f"{', '.join(sorted(wanted ^ sums.keys())[:4])}"
        )
    found: dict[str, np.ndarray] = {}
    for name, (count, first, second) in sums.items():
        mean = first / count
        variance = np.maximum(second / count - mean**2, 0) * count / np.maximum(count - 1, 1)
        found |= {f"{name}/mean": mean.astype(np.float32), f"{name}/var": variance.astype(np.float32)}
    return found


def batch_of(image_shape: tuple[int, ...]) -> int:
    """The images that are normalised together; it depends on their size [h, w, c] alone, so no device changes a bit."""
    height, width, _ = image_shape
    return max(FEWEST, min(BATCH, PIXELS // (height * width)))


def _looker(spec: StepSpec) -> Callable[..., Any]:
    """A function of variables, images and their normalisation: size, mean and variance of each BatchNorm's input."""
    plain = dataclasses.replace(
        spec,
        norm=dataclasses.replace(spec.norm, group_size=0),
        optim=dataclasses.replace(spec.optim, layers=(), freeze_norm=False, quantized=0),
        model=dataclasses.replace(spec.model, dropout=0.0, stochastic_depth=0.0),
    )
    model: Any = network(plain)

    def look(variables: Any, images: Num[Array, "b h w c"], normal: Any) -> dict[str, list[Any]]:
        seen: dict[str, list[Any]] = {}

        def beside(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
                x = args[0].astype(jnp.promote_types(args[0].dtype, jnp.float32))
                axes = tuple(range(x.ndim - 1))
                name = "/".join(context.module.path)
                seen.setdefault(name, []).append((x.size // x.shape[-1], x.mean(axes), x.var(axes)))
            return call(*args, **kwargs)

        with nn.intercept_methods(beside):
            inputs = augment.normalize(images, *normal)
            rngs = {"dropout": jax.random.key(0)}  # of networks with a rate of their own
            model.apply(variables, inputs, train=True, mutable=["batch_stats"], rngs=rngs)
        return seen

    return look
