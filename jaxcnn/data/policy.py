"""Augmentation policies: a few operations drawn from one list, with their strengths.

Both policies draw from the same fourteen operations and differ in the strengths. Operations act on pixel values 0..255
as Pillow defines them, with nearest-neighbour sampling, black outside the image, and integers throughout.

A branch for each operation would cost all fourteen under `vmap`, which turns a switch into a selection. So every
operation is said in one of three common forms, each the identity when another is meant: an affine map, a look-up table
for each channel, a blend with a degenerate image. An image pays for one of each.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxcnn.data import image_ops

OPERATIONS = (
    "identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize",
    "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
LEVELS = 30  # strengths run from 0 to this


@dataclasses.dataclass(frozen=True)
class Strengths:
    """What the highest level means.

    Attributes:
      enhance: color, contrast, brightness and sharpness: factors of 1 - enhance and 1 + enhance.
      rotate: degrees, either way.
      shear: pixels per pixel, either way.
      translate: pixels, either way, cut to whole ones; None stands for 150/331 of the image's side.
      posterize: bits taken from 8.
    """

    enhance: float
    rotate: float
    shear: float
    translate: float | None
    posterize: int


RANDAUGMENT = Strengths(enhance=0.9, rotate=30.0, shear=0.3, translate=None, posterize=4)
TRIVIALAUGMENT_WIDE = Strengths(enhance=0.99, rotate=135.0, shear=0.99, translate=32.0, posterize=6)


def randaugment(image: jax.Array, key: jax.Array, layers: int, magnitude: float) -> jax.Array:
    """Apply `layers` uniformly drawn operations (with replacement), all at one strength.

    Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space" (2019), section 3;
    its N is `layers`, its M is `magnitude`. What magnitude 30 means for each operation is as in torchvision's
    RandAugment of 31 bins; operations with a direction take either with probability 1/2.

    Args:
      image: uint8 [H, W, C].
      key: of this operation; each layer folds its number into it.
      layers: operations for each image.
      magnitude: of 30; any number in between is fine.
    """
    for layer in range(layers):
        operation_key, sign_key = jax.random.split(jax.random.fold_in(key, layer))
        image = _draw_and_apply(image, operation_key, sign_key, jnp.float32(magnitude), RANDAUGMENT)
    return image


def trivialaugment(image: jax.Array, key: jax.Array) -> jax.Array:
    """Apply one uniformly drawn operation at a strength drawn uniformly from 31.

    Müller & Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation" (2021), the wide space (TA),
    table 1. `image` is uint8 [H, W, C]; `key` is of this operation.
    """
    operation_key, sign_key, level_key = jax.random.split(key, 3)
    level = jax.random.randint(level_key, (), 0, LEVELS + 1).astype(jnp.float32)
    return _draw_and_apply(image, operation_key, sign_key, level, TRIVIALAUGMENT_WIDE)


def amounts(level: jax.Array, sign: jax.Array, strengths: Strengths, height: int, width: int) -> jax.Array:
    """The amount float32 [14] of each of `OPERATIONS` at a level of 30, in the units of `apply_operation`."""

    def of(highest: float) -> jax.Array:
        return level * highest / LEVELS

    def translate(side: int) -> jax.Array:
        highest = side * 150 / 331 if strengths.translate is None else strengths.translate
        return sign * jnp.floor(of(highest) + 1e-3)  # a compiler may divide by 30 a little too low

    enhance, shear, zero = 1 + sign * of(strengths.enhance), sign * of(strengths.shear), jnp.float32(0)
    by_name = {
        "rotate": sign * of(strengths.rotate),
        "solarize": 255 - of(255),
        "posterize": 8 - jnp.round(of(strengths.posterize)),
        **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), enhance),
        **dict.fromkeys(("shear_x", "shear_y"), shear),
        "translate_x": translate(width),
        "translate_y": translate(height),
    }
    return jnp.stack([by_name.get(name, zero) for name in OPERATIONS])


def apply_operation(image: jax.Array, operation: jax.Array | int, amount: jax.Array | float) -> jax.Array:
    """Apply one operation to an image, uint8 [H, W, C] to the same.

    Args:
      image: uint8 [H, W, C]; with one channel, color does nothing.
      operation: index in `OPERATIONS`; it may be traced.
      amount: float32; its unit depends on the operation. rotate: degrees counter-clockwise; shear_x (shear_y): x moves
        by `amount` pixels per row (y per column); translate_x, translate_y: pixels to the left, up; solarize: the first
        value that is inverted; posterize: bits kept; color, contrast, brightness, sharpness: factor, 1 for no change.
        The others ignore it.
    """
    height, width, _ = image.shape

    def chosen(*names: str) -> jax.Array:
        return jnp.any(jnp.asarray(operation) == jnp.array([OPERATIONS.index(name) for name in names]))

    amount = jnp.asarray(amount, jnp.float32)
    moved = image_ops.affine_nearest(image, _matrix(chosen, amount, height, width)).astype(jnp.int32)
    looked_up = _table(chosen, amount, moved)[jnp.arange(image.shape[-1]), moved]
    return _enhance(chosen, amount, looked_up).astype(jnp.uint8)


def _draw_and_apply(image, operation_key, sign_key, level, strengths: Strengths) -> jax.Array:
    operation = jax.random.randint(operation_key, (), 0, len(OPERATIONS))
    sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
    return apply_operation(image, operation, amounts(level, sign, strengths, *image.shape[:2])[operation])


def _matrix(chosen, amount: jax.Array, height: int, width: int) -> jax.Array:
    """The affine map, output to input pixels, of the five geometric operations; the identity for the others."""

    def if_chosen(name: str) -> jax.Array:
        return jnp.where(chosen(name), amount, 0)

    angle = jnp.deg2rad(if_chosen("rotate"))
    cosine, sine, half_width, half_height = jnp.cos(angle), jnp.sin(angle), width / 2, height / 2
    x_shift = half_width - cosine * half_width + sine * half_height + if_chosen("translate_x")
    y_shift = half_height - sine * half_width - cosine * half_height + if_chosen("translate_y")
    return jnp.array([[cosine, if_chosen("shear_x") - sine, x_shift], [if_chosen("shear_y") + sine, cosine, y_shift]])


def _table(chosen, amount: jax.Array, image: jax.Array) -> jax.Array:
    """The look-up tables int32 [C, 256] of the four tonal operations; the identity for the others."""
    values = jnp.arange(256)
    kept_bits = 256 - (1 << jnp.clip(8 - jnp.round(amount).astype(jnp.int32), 0, 8))
    table = jnp.where(chosen("autocontrast"), image_ops.autocontrast_table(image), values)
    table = jnp.where(chosen("equalize"), image_ops.equalize_table(image), table)
    table = jnp.where(chosen("solarize") & (values >= amount), 255 - values, table)
    return jnp.where(chosen("posterize"), values & kept_bits, table)


def _enhance(chosen, amount: jax.Array, image: jax.Array) -> jax.Array:
    """Blend int32 [H, W, C] in 0..255 with what the four enhancements have at factor 0; others change nothing."""
    luminance = image_ops.luminance_uint8(image)
    pixels = luminance.size
    mean = (2 * jnp.sum(luminance) + pixels) // (2 * pixels)
    other = jnp.where(chosen("brightness"), 0, image)
    other = jnp.where(chosen("contrast"), mean, other)
    other = jnp.where(chosen("sharpness"), image_ops.smooth_uint8(image), other)
    if image.shape[-1] == 3:
        other = jnp.where(chosen("color"), luminance, other)
    factor = jnp.where(chosen("brightness", "contrast", "sharpness", "color"), amount, 1)
    factor = jnp.round(factor * (1 << image_ops.FIXED_POINT_BITS)).astype(jnp.int32)
    blended = ((other << image_ops.FIXED_POINT_BITS) + factor * (image - other)) >> image_ops.FIXED_POINT_BITS
    return jnp.clip(blended, 0, 255)
