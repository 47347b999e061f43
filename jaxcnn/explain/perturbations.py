"""Methods that change the image and look at the output; they see the network as a black box.

`network` is a `jaxcnn.explain.network.Network`, `images` are normalised [n, h, w, c], `target` is the output to
explain, for each image [n]. Hidden pixels get the colour of `baseline`, of a shape that fits [n, h, w, c]; 0 is the
mean colour. All return maps [n, h, w].
"""

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcnn.config import UserError
from jaxcnn.config.ranges import Above, AboveZero, AtMost, Count
from jaxcnn.explain import superpixels
from jaxcnn.explain.network import Images, Network, Targets, Variant, as_images

Maps = Float[Array, "n h w"]
Samples = Annotated[int, Above(1), AtMost(10**6)]
Cells = Annotated[int, Above(0), AtMost(64)]  # each way
MOST_EXACT = 2048  # coalitions; for up to 11 segments all are taken, and the values are exact
_PENALTY = 1.0  # of the ridge regression
_PART, _PART_PIXELS = 128, 2**23  # masks in memory at once, and all their pixels


def occlusion(
    network: Network,
    images: Images,
    target: Targets,
    *,
    baseline: Any = 0.0,
    window: Count = 0,
    stride: Count = 0,
) -> Maps:
    """By how much the output falls when a square that covers the pixel is hidden, on average over such squares.

    Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2.

    Args:
      network, images, target, baseline: see the module.
      window: side of the square in pixels; 0: a quarter of the image.
      stride: pixels between squares; 0: half of the window.

    Raises:
      UserError: the stride leaves pixels that no square covers.
    """
    images, target = network.checked(images, target)
    window = min(window or max(1, round(min(images.shape[1:3]) / 4)), *images.shape[1:3])
    stride = stride or max(1, window // 2)
    if stride > window:
        raise UserError(
            f"occlusion: stride={stride} must be at most window={window}, else no square covers some pixels"
        )
    rows, columns = (_squares(side, window, stride) for side in images.shape[1:3])

    def mask_of(numbers: Array) -> Float[Array, "m h w"]:
        return rows[numbers // len(columns), :, None] * columns[numbers % len(columns), None, :]

    whole = network.scores(images, target)
    total: Any = 0
    for start, count in _parts(len(rows) * len(columns), images):
        masks = mask_of(start + jnp.arange(count))
        fall = whole - network.scores_of(_hiding(images, masks.__getitem__, baseline), count, target)
        total = total + jnp.einsum("kn,khw->nhw", fall, masks)
    return total / (rows.sum(0)[:, None] * columns.sum(0))


def _squares(side: int, window: int, stride: int) -> Float[Array, "k side"]:
    """1 where each square is, along one side of the image; the last one may reach over its edge."""
    starts = stride * np.arange(math.ceil((side - window) / stride) + 1)[:, None]
    places = np.arange(side)
    return jnp.asarray((places >= starts) & (places < starts + window), jnp.float32)


def _parts(count: int, images: Images) -> Iterator[tuple[int, int]]:
    """The start and the size of parts of `count` masks, which depend on the size of the images alone."""
    most = max(1, min(_PART, _PART_PIXELS // math.prod(images.shape[1:3])))
    for start in range(0, count, most):
        yield start, min(most, count - start)


def _hiding(images: Images, mask_of: Callable[[Array], Array], baseline: Any) -> Variant:
    """The variants of images that have the baseline where a mask [h, w] is 1, and a mixture where it is in between."""
    start = jnp.asarray(baseline, images.dtype)

    def variant(numbers: Array) -> Float[Array, "m n h w c"]:
        mask = mask_of(numbers)[:, None, :, :, None].astype(images.dtype)
        return images * (1 - mask) + start * mask

    return variant


def rise(
    network: Network,
    images: Images,
    target: Targets,
    *,
    baseline: Any = 0.0,
    masks: Samples = 1000,
    cells: Cells = 7,
    share: Annotated[float, Above(0), AtMost(1)] = 0.5,
    seed: Count = 0,
    probability: Any = None,
    centred: bool = False,
) -> Maps:
    """The mean output of images seen through random smooth masks, for each pixel over the masks that show it.

    Petsiuk et al. 2018, "RISE", arXiv:1806.07421, who explain probabilities: their eq. 4. In place of the expected sum
    of the masks (eq. 6), the sum is divided by that of the masks that were drawn, so that a pixel that was shown more
    often than others by chance is not more important: the map of a constant output is flat. A pixel that no mask
    shows has the mean over all masks. The same masks are used for all images.

    Args:
      network, images, target, baseline: see the module.
      masks: number of masks.
      cells: cells of the grid each way; a mask is such a grid, enlarged and shifted.
      share: probability that a cell is seen.
      seed: seed of the masks.
      probability: makes probabilities of outputs, such as `jax.nn.softmax`; None: the outputs are explained.
      centred: whether to give the mean over the masks that show a pixel minus the mean over all masks, and 0 where this
        is negative; for outputs that are no probabilities and may have any offset.
    """
    images, target = network.checked(images, target)
    whole = network.scores(images, target, probability) if centred else 0  # near the others, so that little rounds off
    total: Any = 0
    of_all: Any = 0
    weight: Any = 0
    for number, (_, count) in enumerate(_parts(masks, images)):
        shown = jnp.asarray(random_masks(images.shape[1:3], count, cells, share, (seed, number)), images.dtype)
        scores = network.scores_of(_hiding(images, (1 - shown).__getitem__, baseline), count, target, probability)
        scores = scores - whole
        total = total + jnp.einsum("kn,khw->nhw", scores, shown)
        of_all, weight = of_all + scores.sum(0), weight + shown.sum(0)
    mean = (of_all / masks)[:, None, None]
    found = jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), mean)
    return jnp.maximum(found - mean, 0) if centred else found


def random_masks(
    size: tuple[int, ...], count: int, cells: int, share: float, seed: Any
) -> Float[np.ndarray, "count h w"]:
    """The masks of `rise`: random grids, enlarged by linear interpolation and shifted at random by up to one cell."""
    generator = np.random.Generator(np.random.PCG64(seed))
    grid = (generator.random((count, cells + 1, cells + 1)) < share).astype(np.float32)
    cell = [math.ceil(side / cells) for side in size]
    large = np.asarray(jax.image.resize(grid, (count, *[(cells + 1) * side for side in cell]), "linear"))
    shift = [generator.integers(0, side, count) for side in cell]
    return np.stack([one[i : i + size[0], j : j + size[1]] for one, i, j in zip(large, *shift, strict=True)])


def kernel_shap(
    network: Network,
    images: Images,
    target: Targets,
    *,
    baseline: Any = 0.0,
    segments: Any = None,
    cells: Cells = 7,
    samples: Samples = 1000,
    seed: Count = 0,
) -> Maps:
    """The Shapley values of segments: what each adds to the output, on average over all orders of adding them.

    Lundberg & Lee 2017, arXiv:1705.07874: a regression over coalitions of segments, all of them for at most 11, which
    is exact; else samples with their complements, weighted as Covert & Lee 2021 (arXiv:2012.01536) do. The values of an
    image add up to the change of its output since the baseline. Each pixel has the value of its segment, divided by the
    pixels of the segment.

    Args:
      network, images, target, baseline: see the module.
      segments: None or "grid"; "slic" for superpixels (`superpixels.slic`), as many as cells of the grid; or integers
        [h, w], or [n, h, w] with others for each image.
      cells: cells of the grid, each way.
      samples: number of coalitions, if there are more than 11 segments.
      seed: seed of the samples.

    Raises:
      UserError: the segments do not fit, or the samples are too few for them.
    """
    images = as_images(images)
    segments = superpixels.segments_of(images, segments, cells)
    if np.ndim(segments) == 3:
        images, target = network.checked(images, target)
        return _each(kernel_shap, network, images, target, baseline, segments, samples=samples, seed=seed)
    segments, count = _checked(segments, images.shape[1:3], cells)
    coalitions, weights = _coalitions(count, samples, seed)
    _check_enough(coalitions, weights)
    images, target = network.checked(images, target)
    ends = np.stack([np.zeros(count, bool), np.ones(count, bool)])
    scores = _seen_scores(network, images, target, baseline, segments, np.vstack([ends, coalitions]))
    nothing, change = scores[0], scores[1] - scores[0]
    values = _constrained(coalitions.astype(np.float64), weights, scores[2:] - nothing, change)
    pixels = np.bincount(segments.ravel(), minlength=count)
    return jnp.asarray((values / pixels)[:, segments], images.dtype)


def lime(
    network: Network,
    images: Images,
    target: Targets,
    *,
    baseline: Any = 0.0,
    segments: Any = None,
    cells: Cells = 7,
    samples: Samples = 1000,
    width: AboveZero = 0.25,
    seed: Count = 0,
) -> Maps:
    """The weights of a linear model of the output, fitted around the image: Ribeiro et al. 2016, arXiv:1602.04938.

    Each segment is seen with probability 1/2. A sample weighs exp(-d^2 / width^2), where d is the cosine distance of
    the seen segments to all of them; the authors' code and Captum take the square root of this weight, so their width w
    is sqrt(2) w here. The model is a ridge regression with penalty 1, as in the authors' code. Each pixel has the
    weight of its segment.

    Args:
      network, images, target, baseline, segments, cells, seed: as for `kernel_shap`.
      samples: number of images for the fit.
      width: width of the kernel.

    Raises:
      UserError: the segments do not fit.
    """
    images, target = network.checked(images, target)
    segments = superpixels.segments_of(images, segments, cells)
    if np.ndim(segments) == 3:
        return _each(lime, network, images, target, baseline, segments, samples=samples, width=width, seed=seed)
    segments, count = _checked(segments, images.shape[1:3], cells)
    generator = np.random.Generator(np.random.PCG64(seed))
    seen = (generator.random((samples, count)) < 0.5).astype(np.float64)
    seen[0] = 1  # the image itself
    distance = 1 - np.sqrt(seen.mean(1))  # the cosine to all segments is the square root of the share that is seen
    scores = _seen_scores(network, images, target, baseline, segments, seen.astype(bool))
    values = _ridge(seen, np.exp(-(distance**2) / width**2), scores)
    return jnp.asarray(values[:, segments], images.dtype)


def _each(
    method: Callable[..., Maps],
    network: Network,
    images: Images,
    target: Targets,
    baseline: Any,
    segments: Any,
    **options: Any,
) -> Maps:
    """The maps of a method for images one by one, each with segments of its own."""
    if len(segments) != len(images):
        raise UserError(f"segments are those of {len(segments)} images, but there are {len(images)}")
    start = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)
    rows = [slice(k, k + 1) for k in range(len(images))]
    return jnp.concatenate(
        [
            method(network, images[row], target[row], baseline=start[row], segments=segments[row.start], **options)
            for row in rows
        ]
    )


def _checked(segments: Any, size: tuple[int, ...], cells: int) -> tuple[np.ndarray, int]:
    """The segments [h, w], numbered without gaps, and their number."""
    segments = superpixels.grid(size, cells) if segments is None else np.asarray(segments)
    if segments.shape != tuple(size) or segments.dtype.kind not in "iu":
        raise UserError(
            f"segments must be integers [h, w] of shape {tuple(size)}, not {segments.dtype} {segments.shape}"
        )
    numbers = np.unique(segments, return_inverse=True)[1].reshape(segments.shape)
    return numbers, int(numbers.max()) + 1


def _seen_scores(
    network: Network, images: Images, target: Targets, baseline: Any, segments: np.ndarray, seen: np.ndarray
) -> Float[np.ndarray, "k n"]:
    """The outputs of images of which only some segments are seen, bool [k, segments]."""
    hidden, places = jnp.asarray(~seen), jnp.asarray(segments)
    variant = _hiding(images, lambda numbers: hidden[numbers][:, places], baseline)
    return np.asarray(network.scores_of(variant, len(seen), target), np.float64)


def _coalitions(count: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Coalitions, bool [k, count], without the empty and the full one, and the weight of each in the regression."""
    if 2**count - 2 <= MOST_EXACT:
        all_of_them = (np.arange(1, 2**count - 1)[:, None] >> np.arange(count) & 1).astype(bool)
        sizes = all_of_them.sum(1)
        ways = np.array([math.comb(count, size) for size in range(count + 1)])
        return all_of_them, (count - 1) / (ways[sizes] * sizes * (count - sizes))
    generator = np.random.Generator(np.random.PCG64(seed))
    sizes = np.arange(1, count)
    chance = 1 / (sizes * (count - sizes))
    drawn = generator.choice(sizes, -(-samples // 2), p=chance / chance.sum())
    half = generator.random((len(drawn), count)).argsort(1).argsort(1) < drawn[:, None]
    return np.vstack([half, ~half]), np.ones(2 * len(drawn))


def _check_enough(seen: np.ndarray, weights: np.ndarray) -> None:
    """Refuse coalitions that do not determine the values of `_constrained`."""
    as_numbers = seen.astype(np.float64)
    matrix = (as_numbers * weights[:, None]).T @ as_numbers
    if len(matrix) > 1 and np.linalg.matrix_rank(matrix) < len(matrix):
        raise UserError(f"{len(seen)} samples are too few for the Shapley values of {len(matrix)} segments; take more")


def _constrained(
    seen: Float[np.ndarray, "k m"], weights: np.ndarray, scores: Float[np.ndarray, "k n"], total: np.ndarray
) -> Float[np.ndarray, "n m"]:
    """The weighted least-squares fit of scores by sums over what is seen, whose values add up to `total`."""
    if seen.shape[1] == 1:
        return total[:, None]
    matrix = (seen * weights[:, None]).T @ seen
    free = np.linalg.solve(matrix, (seen * weights[:, None]).T @ scores)  # [m, n]
    ones = np.linalg.solve(matrix, np.ones(len(matrix)))
    return (free - ones[:, None] * (free.sum(0) - total) / ones.sum()).T


def _ridge(
    seen: Float[np.ndarray, "k m"], weights: np.ndarray, scores: Float[np.ndarray, "k n"]
) -> Float[np.ndarray, "n m"]:
    """The weighted ridge regression of scores on what is seen, with an intercept that is not penalised."""
    share = weights / weights.sum()
    centred, offset = seen - share @ seen, scores - share @ scores
    matrix = (centred * weights[:, None]).T @ centred + _PENALTY * np.eye(seen.shape[1])
    return np.linalg.solve(matrix, (centred * weights[:, None]).T @ offset).T
