"""How good an explanation is: whether the network agrees with it, and whether it stays the same for the same image.

`network` is a `jaxcnn.explain.network.Network`, `images` are normalised [n, h, w, c], `target` is the explained output
of each [n], and `maps` [n, h, w] say how important each pixel is. All return one number for each image, [n]. A map with
the same value everywhere puts pixels in no order: scores that need one are NaN for it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcnn.explain.network import Images, Network, Targets

Maps = Float[Any, "n h w"]
Numbers = Float[np.ndarray, " n"]
Probability = Callable[[Float[Array, "n k"]], Float[Array, "n k"]]
BLUR = 0.15  # standard deviation of the blurred image of `insertion`, as a share of the side: no detail is left


def deletion(
    network: Network, images: Images, target: Targets, maps: Maps, *, probability: Probability, steps: int = 32
) -> tuple[Numbers, Float[np.ndarray, "steps+1 n"]]:
    """The mean probability while the most important pixels get the mean colour first, and its curve; lower is better.

    Petsiuk et al. 2018, arXiv:1806.07421, section 4.1; the mean is the area under the curve, by trapezoids.

    Args:
      network, images, target, maps: see the module.
      probability: makes probabilities of outputs, such as `jax.nn.softmax`.
      steps: parts of equal size in which pixels are deleted.
    """
    images, target = network.checked(images, target)
    return _curve(network, images, jnp.zeros_like(images), target, maps, probability, steps)


def insertion(
    network: Network, images: Images, target: Targets, maps: Maps, *, probability: Probability, steps: int = 32
) -> tuple[Numbers, Float[np.ndarray, "steps+1 n"]]:
    """The mean probability while the most important pixels return to a blurred image, and its curve; higher is better.

    As `deletion`, from the blurred image to the image itself.
    """
    images, target = network.checked(images, target)
    return _curve(network, blurred(images), images, target, maps, probability, steps)


def blurred(images: Images) -> Images:
    """Images after a Gaussian filter of standard deviation `BLUR` sides, normalised at the edges."""
    for axis in (1, 2):
        places = np.arange(images.shape[axis])
        weights = np.exp(-((places[:, None] - places) ** 2) / (2 * (BLUR * len(places)) ** 2))
        weights /= weights.sum(1, keepdims=True)
        moved = jnp.tensordot(images, jnp.asarray(weights, images.dtype), axes=(axis, 1), precision="highest")
        images = jnp.moveaxis(moved, -1, axis)
    return images


def _curve(
    network: Network,
    start: Images,
    end: Images,
    target: Targets,
    maps: Maps,
    probability: Probability,
    steps: int,
) -> tuple[Numbers, np.ndarray]:
    """Area and curve [steps + 1, n] of the probability, while pixels change from `start` to `end` by importance.

    Both are NaN where a map has no order.
    """
    rank = ranks(maps)
    steps = min(steps, rank[0].size)
    thresholds = jnp.asarray(np.round(np.linspace(0, rank[0].size, steps + 1)).astype(np.int32))

    def variant(numbers: Array) -> Float[Array, "m n h w c"]:
        changed = rank < thresholds[numbers][:, None, None, None]
        return jnp.where(changed[..., None], end, start)

    found = np.array(network.scores_of(variant, steps + 1, target, probability), np.float64)
    found[:, ~ordered(maps)] = np.nan
    return np.asarray(np.trapezoid(found, dx=1 / steps, axis=0)), found


def ordered(maps: Maps) -> Bool[np.ndarray, " n"]:
    """Which maps have pixels of different importance."""
    flat = np.asarray(maps).reshape(len(maps), -1)
    return flat.min(1) < flat.max(1)


def ranks(maps: Maps) -> Array:
    """The place of each pixel among those of its image, the most important first; equal ones in order of pixels."""
    flat = -np.asarray(maps).reshape(len(maps), -1)
    order = flat.argsort(1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(flat.shape[1])[None], 1)
    return jnp.asarray(rank.reshape(np.shape(maps)).astype(np.int32))


def infidelity(
    network: Network,
    images: Images,
    target: Targets,
    values: Images,
    perturbations: Iterable[Float[Any, "n h w c"]],
    *,
    relative: bool = False,
) -> Numbers:
    """The mean squared error of the change that signed values predict for perturbed images: lower is better.

    Yeh et al. 2019, arXiv:1901.09392, definition 2.1: E[(I · values - (f(x) - f(x - I)))^2] over perturbations I.

    Args:
      network, images, target: see the module.
      values: signed, for each channel of each pixel.
      perturbations: what is subtracted from the images, one after the other.
      relative: whether the error is divided by the mean squared change; NaN if the output never changes.
    """
    images, values = jnp.asarray(images), jnp.asarray(values)
    whole, pairs = network.scores(images, target), []
    for each in perturbations:
        shift = jnp.asarray(each)
        pairs.append((whole - network.scores(images - shift, target), (shift * values).sum((1, 2, 3))))
    change, predicted = (np.asarray(jnp.stack(each), np.float64) for each in zip(*pairs, strict=True))
    error = ((predicted - change) ** 2).mean(0)
    return error / _or_nan((change**2).mean(0)) if relative else error


def faded(
    network: Network, images: Images, target: Targets, maps: Maps, shares: Iterable[Float[Any, "n h w"]]
) -> Numbers:
    """Infidelity of a map that has one value for each pixel: in [0, 1], lower is better; 1 if it predicts nothing.

    As `infidelity`, relative, for shares of each pixel that fade to the mean colour, which is 0. The map predicts their
    sum, each share times its value, at the scale (not below 0) that fits best for each image (Yeh et al. 2019, section
    2.2): of a class activation map, the unit means nothing. NaN for a map of zeros.

    Args:
      network, images, target, maps: see the module.
      shares: shares of each pixel that fade, of either sign, one after the other.
    """
    images, maps = jnp.asarray(images), jnp.asarray(maps)
    whole, pairs = network.scores(images, target), []
    for each in shares:
        share = jnp.asarray(each, images.dtype)
        changed = network.scores(images * (1 - share[..., None]), target)
        pairs.append((whole - changed, (share * maps).sum((1, 2))))
    change, predicted = (np.asarray(jnp.stack(each), np.float64) for each in zip(*pairs, strict=True))
    fit = np.maximum((change * predicted).sum(0), 0) ** 2 / _or_nan((change**2).sum(0)) / _or_nan((predicted**2).sum(0))
    return np.maximum(1 - fit, 0)


def _or_nan(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.where(values > 0, values, np.nan)


def sensitivity(
    explain: Callable[[Images], Any], images: Images, values: Any, perturbations: Iterable[Float[Any, "n h w c"]]
) -> Numbers:
    """The largest relative change of an explanation among perturbed images: lower is better; NaN if it is 0 everywhere.

    Yeh et al. 2019, definition 3.1: max over perturbations d of |values(x + d) - values(x)| / |values(x)|.

    Args:
      explain: the values of images.
      images: see the module.
      values: those of the images themselves.
      perturbations: what is added to the images.
    """
    images = jnp.asarray(images)
    before = np.asarray(values, np.float64).reshape(len(images), -1)
    length = np.linalg.norm(before, axis=1)
    length[length == 0] = np.nan
    worst = np.zeros(len(images))
    for shift in perturbations:
        after = np.asarray(explain(images + jnp.asarray(shift)), np.float64).reshape(len(images), -1)
        worst = np.maximum(worst, np.linalg.norm(after - before, axis=1) / length)
    return worst


def pointing(maps: Maps, masks: Bool[Any, "n h w"]) -> Numbers:
    """1 if the most important pixel lies on the object, else 0; NaN for a map without an order.

    The pointing game of Zhang et al. 2016, arXiv:1608.00507.
    """
    flat, inside = np.asarray(maps).reshape(len(maps), -1), np.asarray(masks).reshape(len(maps), -1)
    hits = np.take_along_axis(inside, flat.argmax(1)[:, None], 1)[:, 0].astype(np.float64)
    return np.where(ordered(maps), hits, np.nan)


def overlap(maps: Maps, masks: Bool[Any, "n h w"]) -> Numbers:
    """The share of the positive values that lies on the object: relevance mass, Arras et al. 2022, arXiv:2003.07258."""
    positive = np.maximum(np.asarray(maps, np.float64), 0)
    total = positive.sum((1, 2))
    return (positive * np.asarray(masks)).sum((1, 2)) / np.where(total > 0, total, 1)


@dataclasses.dataclass(frozen=True)
class Noise:
    """Perturbations for `infidelity` and `sensitivity`, drawn one at a time, and the same each time.

    Attributes:
      shape: shape of each perturbation.
      count: number of perturbations; the first ones are the same for any count.
      radius: standard deviation of the normal numbers.
      seed: seed of the numbers.
      cells: 0: a number for each value; else cells each way of a grid with one number for each cell, for shapes
        [n, h, w].
    """

    shape: tuple[int, ...]
    count: int
    radius: float
    seed: int
    cells: int = 0

    def __iter__(self) -> Iterator[Float[np.ndarray, "..."]]:
        generator = np.random.Generator(np.random.PCG64(self.seed))
        for _ in range(self.count):
            if not self.cells:
                yield self.radius * generator.standard_normal(self.shape).astype(np.float32)
                continue
            drawn = generator.standard_normal((self.shape[0], self.cells, self.cells)).astype(np.float32)
            rows, columns = (np.arange(side) * self.cells // side for side in self.shape[1:])
            yield self.radius * drawn[:, rows[:, None], columns]


def noise(shape: tuple[int, ...], count: int, radius: float, seed: int) -> Noise:
    """Normal numbers of standard deviation `radius`, for each value of images of a shape."""
    return Noise(shape, count, radius, seed)


softmax: Probability = jax.nn.softmax
