"""Images composed of several of a batch, with the objects of all: copy-paste, mosaic, and the mean of two.

The others are the augmented examples at the positions before an example's own in the global batch
(`mixing.partners`), and all draws come from the example's own key. So devices and microbatches never change a bit, as
long as a draw is an integer and no product is fused with a following sum.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt32

import jaxcnn.config as configuration
from jaxcnn.data import mixing
from jaxcnn.data.image_ops import FACTOR_BITS
from jaxcnn.tasks.moving import COORDINATE_BITS, Composable, Move, Pastable, product
from jaxcnn.tasks.task import Targets

Image = Float32[Array, "h w c"]
Images = Float32[Array, "b h w c"]
Words = UInt32[Array, " words"]  # random bits

COPY_PASTE, MOSAIC, MEAN = range(3)  # constants folded into an example's key
TILES = 4
SMALLEST = 0.5  # smallest size of a mosaic's images, as a factor
WEIGHT_BITS = 11  # fraction bits of a neighbour's weight


def compose(
    config: configuration.Augment,
    targets: Targets,
    image: Images,
    target: Any,
    keys: Key[Array, " b"],
    on: Bool[Array, ""] | bool = True,
    *,
    axis_name: str | None = None,
    microbatches: int = 1,
) -> tuple[Images, Any]:
    """The examples of a batch, some of which are composed of several as `config` says.

    In order: objects of the example one position before are pasted; four examples, its own and the three before it,
    become a mosaic; the mean is taken with the example before those.

    Args:
      config: static.
      targets: the kind of the targets: `Composable`, and `Pastable` for `config.copy_paste`.
      image: the normalised images of this device's part of the batch.
      target: targets of these images.
      keys: one key per example, used for composing only.
      on: whether images are composed in this step.
      axis_name, microbatches: as in `mixing.mix`.
    """
    before = functools.partial(mixing.partners, axis_name=axis_name, microbatches=microbatches)
    own: Any = (image, target)
    if config.copy_paste:
        assert isinstance(targets, Pastable)
        paste = functools.partial(pasted, targets)
        own = _some(paste, config.copy_paste, on, _words(keys, COPY_PASTE, targets.most), own, before(own))
    assert isinstance(targets, Composable)
    last = own
    if config.mosaic:
        others = []
        for _ in range(TILES - 1):
            last = before(last)
            others.append(last)
        tiles = jax.tree.map(lambda *parts: jnp.stack(parts, axis=1), own, *others)
        own = _some(functools.partial(mosaic, targets), config.mosaic, on, _words(keys, MOSAIC, 3), own, tiles)
    if config.mixup_boxes:
        join = functools.partial(mean, targets)
        own = _some(join, config.mixup_boxes, on, _words(keys, MEAN, 0), own, before(last))
    return own


def pasted(targets: Pastable, own: Any, other: Any, words: Words) -> Any:
    """An example with objects of another one pasted in: each object with probability 1/2, if there is room.

    Ghiasi et al. 2021, "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation" (arXiv
    2012.07177), section 3: pixels are copied by masks without smoothing, what they hide leaves the masks and boxes of
    the example's own objects. `words` are as many as there are places for objects.
    """
    (image, target), (other_image, other_target) = own, other
    target, over = targets.pasted(target, other_target, words & 1 == 1, image.shape[:2])
    return jnp.where(over[..., None], other_image, image), target


def mosaic(targets: Composable, own: Any, tiles: Any, words: Words) -> Any:
    """Four examples two by two, shrunk by one factor from [1/2, 1], cropped to a part as large as an image.

    Bochkovskiy et al. 2020, "YOLOv4" (arXiv 2004.10934), section 3.4; the factor takes the place of the random scale
    that follows there. The part lies anywhere, in whole pixels of the unshrunk images.

    Args:
      targets: kind of the targets.
      own: the example itself.
      tiles: images [4, h, w, c] and targets: upper left and right, then lower left and right.
      words: three words of random bits.
    """
    del own
    images, target = tiles
    height, width = sides = images.shape[1:3]
    inverse, start = window(words, sides)
    lower, row = _in_tile(height, inverse, start[1])
    right, column = _in_tile(width, inverse, start[0])
    tile = 2 * lower[:, None] + right[None, :]
    first = start - jnp.array([[0, 0], [width, 0], [0, height], [width, height]])  # place of the part in each tile
    scale = jnp.broadcast_to(inverse * jnp.eye(2, dtype=jnp.int32), (TILES, 2, 2))
    matrices = jnp.concatenate([scale, (first << COORDINATE_BITS)[..., None]], axis=2)
    moved = jax.vmap(lambda of_one, matrix: targets.moved(of_one, Move.of_matrix(matrix), sides))(target, matrices)
    seen = tile == jnp.arange(TILES)[:, None, None]
    return _read(images, tile, row, column), targets.composed(moved, seen)


def window(words: Words, sides: tuple[int, int]) -> tuple[Int32[Array, ""], Int32[Array, "2"]]:
    """The view of a mosaic: input pixels for each output pixel, times 2^COORDINATE_BITS, and the first x and y.

    The remainders of 32 bits are uniform to a millionth.
    """
    one = 1 << FACTOR_BITS
    least = round(SMALLEST * one)
    factor = least + (words[0] % (one - least + 1)).astype(jnp.int32)
    inverse = (1 << COORDINATE_BITS + FACTOR_BITS) // factor
    spare = jnp.array([((2 * side << COORDINATE_BITS) - inverse * side) >> COORDINATE_BITS for side in sides[::-1]])
    return inverse, (words[1:3] % (spare + 1).astype(jnp.uint32)).astype(jnp.int32)


def mean(targets: Composable, own: Any, other: Any, words: Words) -> Any:
    """The mean of two examples with the objects of both, as in YOLOX: Ge et al. 2021 (arXiv 2107.08430), 2.1."""
    del words
    (image, target), (other_image, other_target) = own, other
    both = jax.tree.map(lambda *parts: jnp.stack(parts), target, other_target)
    return 0.5 * image + 0.5 * other_image, targets.composed(both, jnp.ones((2, *image.shape[:2]), bool))


def _words(keys: Key[Array, " b"], constant: int, count: int) -> UInt32[Array, "b words"]:
    """Random bits for an operation: one word decides whether it happens, and `count` words are for its draws."""
    return jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, constant), (count + 1,), jnp.uint32))(keys)


def _some(
    make: Any, probability: float, on: Bool[Array, ""] | bool, words: UInt32[Array, "b words"], own: Any, others: Any
) -> Any:
    """The examples, each of which is replaced with a probability by a new one made from itself and others."""

    def one(own: Any, others: Any, words: Words) -> Any:
        happens = on & (words[0] >> 8 < round(probability * 2**24))
        return jax.tree.map(lambda new, old: jnp.where(happens, new, old), make(own, others, words[1:]), own)

    return jax.vmap(one)(own, others, words)


def _in_tile(side: int, inverse: Int32[Array, ""], start: Int32[Array, ""]) -> tuple[Any, Int32[Array, " s"]]:
    """Whether the centres of pixels lie in the second tile of a direction, and their places in their tile."""
    place = (start << COORDINATE_BITS) + inverse * jnp.arange(side) + (inverse >> 1)
    second = place >= side << COORDINATE_BITS
    return second.astype(jnp.int32), place - jnp.where(second, side << COORDINATE_BITS, 0)


def _read(
    images: Float32[Array, "t h w c"], tile: Int32[Array, "h w"], row: Int32[Array, " h"], column: Int32[Array, " w"]
) -> Image:
    """Pixels of the tiles, sampled bilinearly; beyond a tile its border pixels repeat."""
    parts = [
        product(images[tile, y[:, None], x], (of_y[:, None] * of_x)[..., None].astype(jnp.float32))
        for y, of_y in _neighbours(row, images.shape[1])
        for x, of_x in _neighbours(column, images.shape[2])
    ]
    return ((parts[0] + parts[1]) + (parts[2] + parts[3])) / (1 << 2 * WEIGHT_BITS)


def _neighbours(place: Int32[Array, " s"], side: int) -> list[tuple[Int32[Array, " s"], Int32[Array, " s"]]]:
    """The pixels before and after each place, with their weights."""
    place = place - (1 << COORDINATE_BITS - 1)
    after = (place >> COORDINATE_BITS - WEIGHT_BITS) & ((1 << WEIGHT_BITS) - 1)
    first = place >> COORDINATE_BITS
    weights = (1 << WEIGHT_BITS) - after, after
    return [(jnp.clip(first + step, 0, side - 1), weight) for step, weight in enumerate(weights)]
