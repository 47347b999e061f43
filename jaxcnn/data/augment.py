"""Processing of a training batch: augmentation, normalisation and mixing, as one pure function.

The randomness of an example comes only from `fold_in(key of the step, position in the global batch)`, so its
augmentation does not depend on its place in memory, the number of devices or the loader. Each kind of operation folds
its own constant into that key: enabling one never changes the random numbers of another.
"""

import enum
from collections.abc import Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key, Num

import jaxcnn.config as configuration
from jaxcnn.config import UserError
from jaxcnn.data import composing, image_ops, mixing, policy
from jaxcnn.data.batch import Batch
from jaxcnn.data.rotation import linear, rotation_matrix
from jaxcnn.machine import plugins
from jaxcnn.tasks.moving import COORDINATE_BITS, Movable, Move
from jaxcnn.tasks.task import Targets

Keys = Key[Array, " b"]
Channels = Float32[Array, " c"]


@flax.struct.dataclass
class Augmented:
    """A batch ready for the network, or one device's shard of it.

    Attributes:
      image: normalised; smaller than the input images if `small_side` was given.
      target: from `jaxcnn.tasks.task.Targets.whole` or, if images are mixed, `mixed`.
    """

    image: Float32[Array, "b h w c"]
    target: Any


class Draw(enum.IntEnum):
    """The constant that each kind of operation folds into an example's key. A change would alter every seed's run."""

    CROP = 0
    FLIP = 1
    POLICY = 2
    COLOR = 3
    CUTOUT = 4
    MIXING = 5
    OWN = 6
    ERASING = 7
    ZOOM = 8
    ROTATION = 9
    COMPOSING = 10


def augment(
    config: configuration.Augment,
    targets: Targets,
    batch: Batch,
    key: Key[Array, ""],
    mean: Channels,
    std: Channels,
    *,
    run_key: Key[Array, ""] | None = None,
    epoch: Int[Array, " b"] | None = None,
    composing_on: Bool[Array, ""] | bool = True,
    axis_name: str | None = None,
    microbatches: int = 1,
    small_side: int = 0,
) -> Augmented:
    """Augment a training batch.

    In order: rotation, zoom, crop, flip, policy, colour jitter, functions of the user, normalisation, cutout, random
    erasing, images made of several (`composing`), mixing, shrinking.

    Policies and colour jitter need 8-bit pixels; the other operations take any.

    Pure; every argument except the arrays is static. It can be jitted, vmapped and run inside
    `shard_map(check_vma=False)`.

    Args:
      config: operations and their strengths.
      targets: the kind of the targets, which are mixed or composed with the images, and move with them if they can.
      batch: inside `shard_map`, this device's shard, in the layout of `mixing.partners`.
      key: key of this step, equal on all devices. Its implementation must be counter-based under `vmap`, as JAX's
        default (threefry) is.
      mean: mean of the training split, in [0, 1]; ignored if `config.normalize` is off.
      std: standard deviation of the training split, in the same unit; also ignored then.
      run_key: key of the whole run; used by flip="alternating" only.
      epoch: epoch of each example, from 0; used by flip="alternating" only.
      composing_on: whether images may be made of several in this step.
      axis_name: mesh axis over which the batch is split; None if this is the whole batch.
      microbatches: number of microbatches in the batch.
      small_side: side in pixels to which square images are finally shrunk, with their targets; 0 keeps their size.

    Raises:
      ValueError: flip="alternating" without `run_key` or `epoch`.
    """
    if not config.normalize:
        mean, std = jnp.zeros_like(mean), jnp.ones_like(std)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch.position)
    flipped = _flipped(config, keys, batch.index, run_key, epoch)
    image = jax.vmap(lambda image, key, flipped: _augment_one(config, image, key, flipped, mean, std))(
        batch.image, keys, flipped
    )
    target = batch.target
    if isinstance(targets, Movable):
        sides = batch.image.shape[1], batch.image.shape[2]
        for moves in _moves(config, keys, flipped, sides):
            target = jax.vmap(targets.moved, in_axes=(0, 0, None))(target, moves, sides)
    if config.composes:
        own_keys = jax.vmap(lambda key: jax.random.fold_in(key, Draw.COMPOSING))(keys)
        image, target = composing.compose(
            config, targets, image, target, own_keys, composing_on, axis_name=axis_name, microbatches=microbatches
        )
    mixing_keys = jax.vmap(lambda key: jax.random.fold_in(key, Draw.MIXING))(keys)
    image, target = mixing.mix(
        config, targets, image, target, mixing_keys, axis_name=axis_name, microbatches=microbatches
    )
    if small_side:
        move, sides = Move.of_size(small_side, image.shape[1]), (small_side, small_side)
        image = image_ops.shrink(image, small_side)
        if isinstance(targets, Movable):
            target = jax.vmap(targets.moved, in_axes=(0, None, None))(target, move, sides)
    return Augmented(image, target)


def normalize(image: Num[Array, "... c"], mean: Channels, std: Channels) -> Float32[Array, "... c"]:
    """Scale integers to [0, 1], subtract the mean and divide by the standard deviation of each channel.

    Args:
      image: integers from 0 to the highest of their type, or floating-point numbers, which are not scaled.
      mean: in units of [0, 1], or of the floating-point numbers.
      std: in the same units; a constant channel (0) is only centred.
    """
    whole = jnp.issubdtype(image.dtype, jnp.unsignedinteger)
    scaled = image_ops.unit_interval(image, jnp.iinfo(image.dtype).max) if whole else image.astype(jnp.float32)
    return (scaled - mean) / jnp.where(std > 0, std, 1)


def denormalize(image: Float[Array, "... c"], mean: Channels, std: Channels) -> Float32[Array, "... c"]:
    """The inverse of `normalize`: in [0, 1] for an image that `normalize` returned."""
    return image * jnp.where(std > 0, std, 1) + mean


def _flipped(
    config: configuration.Augment,
    keys: Keys,
    index: Int32[Array, " b"],
    run_key: Key[Array, ""] | None,
    epoch: Int[Array, " b"] | None,
) -> Bool[Array, " b"]:
    """Decides which images are mirrored left to right: half of them (Krizhevsky et al. 2012, section 4.1).

    "random" draws anew each time an example is seen. "alternating" draws once per example and run, and inverts the
    result every epoch, so two consecutive epochs show each example both ways: Jordan 2024 (arXiv:2404.00498).
    """
    fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    if config.flip == "random":
        return jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, Draw.FLIP)))(keys)
    if config.flip == "none":
        return jnp.zeros(index.shape, bool)
    if run_key is None or epoch is None:
        raise ValueError('flip="alternating" needs the key of the run and the epoch of each example')
    coins = jax.vmap(jax.random.bernoulli)(fold_in(jax.random.fold_in(run_key, Draw.FLIP), index))
    return coins ^ (epoch % 2 == 1)


def _moves(
    config: configuration.Augment, keys: Keys, flipped: Bool[Array, " b"], sides: tuple[int, int]
) -> Iterator[Move]:
    """The moves of the images, drawn with `keys`: one for each time that pixels which leave the image are lost.

    `sides` are height and width.
    """

    width = sides[1]

    def rotate(key: Key[Array, ""]) -> Move:
        return Move.of_rotation(rotation_matrix(jax.random.fold_in(key, Draw.ROTATION), config.rotate, sides))

    def zoom(key: Key[Array, ""]) -> Move:
        return Move.of_matrix(image_ops.zoom_matrix(jax.random.fold_in(key, Draw.ZOOM), config.factors, sides))

    def crop_and_flip(key: Key[Array, ""], flipped: Bool[Array, ""]) -> Move:
        top = left = jnp.zeros((), jnp.int32)
        if config.crop != "none":
            top, left = image_ops.crop_shift(jax.random.fold_in(key, Draw.CROP), config.crop_padding)
        across = jnp.where(flipped, -1, 1)
        matrix = jnp.array([[across, 0, jnp.where(flipped, width + left, left)], [0, 1, top]])
        return Move.of_matrix(matrix.astype(jnp.int32) << COORDINATE_BITS)

    if config.rotate:
        yield jax.vmap(rotate)(keys)
    if config.factors:
        yield jax.vmap(zoom)(keys)
    if config.crop != "none" or config.flip != "none":
        yield jax.vmap(crop_and_flip)(keys, flipped)


def _augment_one(
    config: configuration.Augment,
    image: Num[Array, "h w c"],
    key: Key[Array, ""],
    flipped: Bool[Array, ""],
    mean: Channels,
    std: Channels,
) -> Float32[Array, "h w c"]:
    """Augment and normalise one image; `key` is the example's own."""
    sides = image.shape[0], image.shape[1]
    if config.rotate:
        image = linear(image, rotation_matrix(jax.random.fold_in(key, Draw.ROTATION), config.rotate, sides))
    if config.factors:
        matrix = image_ops.zoom_matrix(jax.random.fold_in(key, Draw.ZOOM), config.factors, sides)
        image = image_ops.affine_nearest(image, matrix)
    if config.crop != "none":
        image = image_ops.random_crop(image, jax.random.fold_in(key, Draw.CROP), config.crop_padding, config.crop)
    if config.flip != "none":
        image = jnp.where(flipped, image[:, ::-1], image)
    if config.policy == "randaugment":
        policy_key = jax.random.fold_in(key, Draw.POLICY)
        image = policy.randaugment(image, policy_key, config.policy_layers, config.policy_magnitude)
    elif config.policy == "trivialaugment":
        image = policy.trivialaugment(image, jax.random.fold_in(key, Draw.POLICY))
    elif config.policy == "autoaugment":
        image = policy.autoaugment(image, jax.random.fold_in(key, Draw.POLICY))
    if config.brightness or config.contrast or config.saturation or config.hue:
        color_key = jax.random.fold_in(key, Draw.COLOR)
        image = image_ops.color_jitter(
            image, color_key, config.brightness, config.contrast, config.saturation, config.hue
        )
    for number, name in enumerate(config.own):
        image = _own(name, image, jax.random.fold_in(jax.random.fold_in(key, Draw.OWN), number))
    image = normalize(image, mean, std)
    if config.cutout:
        image = image_ops.random_cutout(image, jax.random.fold_in(key, Draw.CUTOUT), config.cutout)
    if config.erasing:
        image = image_ops.random_erasing(image, jax.random.fold_in(key, Draw.ERASING), config.erasing)
    return image


def _own(name: str, image: Num[Array, "h w c"], key: Key[Array, ""]) -> Num[Array, "h w c"]:
    """An image changed by a function of the user, which gets the stored image and its own key."""
    changed = plugins.load("augmentations", name).function(image, key)
    if (changed.shape, changed.dtype) != (image.shape, image.dtype):
        raise UserError(
            f"config.augment.own: {name!r} makes an image {changed.shape} of {changed.dtype} from one {image.shape} of "
            f"{image.dtype}; it must keep both"
        )
    return changed
