"""Augmentation policies: a few operations drawn from a list, with their strengths.

RandAugment and TrivialAugment draw from the same fourteen operations and differ in the strengths; AutoAugment draws a
pair from a list. Operations act on pixel values 0..255 as Pillow defines them, with nearest-neighbour sampling, black
outside the image, and integers throughout.

With one branch per operation, `vmap` would compute all of them, since it turns a switch into a selection. So every
operation is a `Setting` of a common form: an affine map, a look-up table per channel, and a blend with another image;
two of the three are the identity. A policy is a table of settings, computed once with NumPy; a draw takes one row.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key, UInt8

from jaxcnn.data import image_ops
from jaxcnn.tasks.moving import COORDINATE_BITS

OPERATIONS = (
    "identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize",
    "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
LEVELS = 30  # strengths run from 0 to this
# AutoAugment for CIFAR-10: pairs of operations, each with its probability in tenths and its strength from 0 to 9.
PAIRS = (
    (("invert", 1, 7), ("contrast", 2, 6)),
    (("rotate", 7, 2), ("translate_x", 3, 9)),
    (("sharpness", 8, 1), ("sharpness", 9, 3)),
    (("shear_y", 5, 8), ("translate_y", 7, 9)),
    (("autocontrast", 5, 8), ("equalize", 9, 2)),
    (("shear_y", 2, 7), ("posterize", 3, 7)),
    (("color", 4, 3), ("brightness", 6, 7)),
    (("sharpness", 3, 9), ("brightness", 7, 9)),
    (("equalize", 6, 5), ("equalize", 5, 1)),
    (("contrast", 6, 7), ("sharpness", 6, 5)),
    (("color", 7, 7), ("translate_x", 5, 8)),
    (("equalize", 3, 7), ("autocontrast", 4, 8)),
    (("translate_y", 4, 3), ("sharpness", 2, 6)),
    (("brightness", 9, 6), ("color", 2, 8)),
    (("solarize", 5, 2), ("invert", 0, 3)),
    (("equalize", 2, 0), ("autocontrast", 6, 0)),
    (("equalize", 2, 8), ("equalize", 6, 4)),
    (("color", 9, 9), ("equalize", 6, 6)),
    (("autocontrast", 8, 4), ("solarize", 2, 8)),
    (("brightness", 1, 3), ("color", 7, 0)),
    (("solarize", 4, 5), ("autocontrast", 9, 3)),
    (("translate_y", 9, 9), ("translate_y", 7, 9)),
    (("autocontrast", 9, 2), ("solarize", 8, 3)),
    (("equalize", 8, 8), ("invert", 1, 3)),
    (("translate_y", 7, 9), ("autocontrast", 9, 1)),
)
_BLENDED_WITH = ("itself", "brightness", "contrast", "color", "sharpness")

Image = UInt8[Array, "h w c"]
Number = Int32[Any, "*rows"]


@flax.struct.dataclass
class Setting:
    """One operation with its amount, or a table of operations with a leading axis of rows.

    Attributes:
      matrix: matrix for `image_ops.affine_nearest`.
      stretch: 1 for autocontrast, 2 for equalize, else 0.
      invert_from: the first pixel value that solarize inverts; invert: 0; 256 for none.
      kept_bits: the mask of the bits that posterize keeps.
      blended_with: index in `_BLENDED_WITH`.
      factor: factor of the blend, in units of 2^-FACTOR_BITS.
    """

    matrix: Int32[Any, "*rows 2 3"]
    stretch: Number
    invert_from: Number
    kept_bits: Number
    blended_with: Number
    factor: Number


def randaugment(image: Image, key: Key[Array, ""], layers: int, magnitude: float) -> Image:
    """Apply `layers` uniformly drawn operations (with replacement), all at one strength.

    Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space" (2019), section 3;
    its N is `layers`, its M is `magnitude`. The amount of each operation at magnitude 30 is that of torchvision's
    RandAugment with 31 bins; operations with a direction take each with probability 1/2.

    Args:
      image: the pixels.
      key: key of this call; each layer folds its number into it.
      layers: operations per image.
      magnitude: strength from 0 to 30; need not be an integer.
    """
    table = _table_of(randaugment_amount, (magnitude,), *image.shape[:2])
    for layer in range(layers):
        image = apply(image, _draw(table, jax.random.fold_in(key, layer)))
    return image


def trivialaugment(image: Image, key: Key[Array, ""]) -> Image:
    """Apply one uniformly drawn operation at one of 31 strengths, also drawn uniformly.

    Müller & Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation" (2021), the wide space (TA),
    table 1; operations with a direction take each with probability 1/2. Translation is by up to 32 pixels for any image
    size, as in the paper, so a few images of 32 x 32 become completely black.
    """
    levels = tuple(float(level) for level in range(LEVELS + 1))
    return apply(image, _draw(_table_of(trivialaugment_amount, levels, *image.shape[:2]), key))


def autoaugment(image: Image, key: Key[Array, ""]) -> Image:
    """Apply one uniformly drawn pair of `PAIRS`: each of its two operations with its own probability.

    Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data" (2018, arXiv:1805.09501), the policy that was
    found on CIFAR-10 and is also used for CIFAR-100, from its appendix. The amounts are those of torchvision's
    AutoAugment: strength 9 is RandAugment's 30, and operations with a direction take each with probability 1/2.
    """
    table = _table_of_pairs(*image.shape[:2])
    words = jax.random.bits(key, (3,), jnp.uint32)  # the remainders are uniform to 10^-8
    for number in (0, 1):
        at = words[0] % len(PAIRS), number, words[1 + number] % table.factor.shape[-1]
        image = apply(image, jax.tree.map(lambda values, at=at: jnp.asarray(values)[at], table))
    return image


def randaugment_amount(name: str, level: float, sign: int, height: int, width: int) -> float:
    """The amount of an operation at `level` (0 to 30) in RandAugment, in the units of `setting`."""
    side = width if name == "translate_x" else height
    return _amount(
        name, level / LEVELS, sign, enhance=0.9, rotate=30, shear=0.3, translate=side * 150 / 331, posterize=4
    )


def trivialaugment_amount(name: str, level: float, sign: int, height: int, width: int) -> float:
    """The amount of an operation at `level` (0 to 30) in TrivialAugment (wide), for any image size."""
    del height, width
    return _amount(name, level / LEVELS, sign, enhance=0.99, rotate=135, shear=0.99, translate=32, posterize=6)


def _amount(name, share, sign, *, enhance, rotate, shear, translate, posterize) -> float:
    """The amount at `share` (0 to 1) of the maximum strengths, which are the keyword arguments."""
    match name:
        case "color" | "contrast" | "brightness" | "sharpness":
            return 1 + sign * share * enhance
        case "rotate":
            return sign * share * rotate
        case "shear_x" | "shear_y":
            return sign * share * shear
        case "translate_x" | "translate_y":
            return sign * math.floor(share * translate + 1e-9)
        case "posterize":
            return 8 - round(share * posterize)
        case "solarize":
            return 255 - share * 255
    return 0.0


def setting(name: str, amount: float, height: int, width: int) -> Setting:
    """The `Setting` of one of `OPERATIONS`, or of "invert", with its amount, for images of one size.

    The unit of `amount` depends on the operation. rotate: degrees counter-clockwise; shear_x (shear_y): pixels by which
    each row (column) moves to the left (up) relative to the previous one; translate_x, translate_y: pixels to the left,
    up; solarize: the lowest inverted pixel value; posterize: bits kept; color, contrast, brightness, sharpness: a
    factor, 1 for no change. The others ignore it.
    """
    matrix = np.array([[1, 0, 0], [0, 1, 0]], np.float64)
    match name:
        case "shear_x":
            matrix[0, 1] = amount
        case "shear_y":
            matrix[1, 0] = amount
        case "translate_x":
            matrix[0, 2] = amount
        case "translate_y":
            matrix[1, 2] = amount
        case "rotate":
            cosine, sine = math.cos(math.radians(amount)), math.sin(math.radians(amount))
            matrix[:, :2] = [[cosine, -sine], [sine, cosine]]
            center = np.array([width / 2, height / 2])
            matrix[:, 2] = center - matrix[:, :2] @ center
    blended = name in _BLENDED_WITH
    inverted = {"invert": 0, "solarize": math.ceil(amount - 1e-9)}
    return Setting(
        matrix=np.round(matrix * (1 << COORDINATE_BITS)).astype(np.int32),
        stretch=np.int32({"autocontrast": 1, "equalize": 2}.get(name, 0)),
        invert_from=np.int32(inverted.get(name, 256)),
        kept_bits=np.int32(256 - (1 << (8 - round(amount))) if name == "posterize" else 255),
        blended_with=np.int32(_BLENDED_WITH.index(name) if blended else 0),
        factor=np.int32(round((amount if blended else 1) * (1 << image_ops.FACTOR_BITS))),
    )


def apply(image: Image, setting: Setting) -> Image:
    """Apply one operation to an image. With one channel, color does nothing."""
    moved = image_ops.affine_nearest(image, setting.matrix).astype(jnp.int32)
    looked_up = _lookup_table(moved, setting)[jnp.arange(image.shape[-1]), moved]
    return _enhance(looked_up, setting).astype(jnp.uint8)


@functools.lru_cache(maxsize=16)
def _table_of(amount, levels: tuple[float, ...], height: int, width: int) -> Setting:
    """The operations at all levels in both directions, each equally often; NumPy, with a leading axis."""
    rows = [
        setting(name, amount(name, level, sign, height, width), height, width)
        for name in OPERATIONS
        for level in levels
        for sign in (1, -1)
    ]
    return _stacked(rows)


@functools.lru_cache(maxsize=16)
def _table_of_pairs(height: int, width: int) -> Setting:
    """The settings of `PAIRS`; NumPy, with three leading axes: pair, first or second operation, equally likely rows.

    The twenty rows are both directions in each tenth of the probability: the operation or, in the rest, the identity.
    """
    identity = setting("identity", 0, height, width)

    def rows(name: str, tenths: int, strength: int) -> Setting:
        amounts = [randaugment_amount(name, strength * LEVELS / 9, sign, height, width) for sign in (1, -1)]
        both = [setting(name, amount, height, width) for amount in amounts]
        return _stacked(both * tenths + [identity] * 2 * (10 - tenths))

    return _stacked([_stacked([rows(*operation) for operation in pair]) for pair in PAIRS])


def _stacked(settings: Sequence[Setting]) -> Setting:
    return jax.tree.map(lambda *values: np.stack(values), *settings)


def _draw(table: Setting, key: Key[Array, ""]) -> Setting:
    row = jax.random.randint(key, (), 0, len(table.factor))
    return jax.tree.map(lambda values: jnp.asarray(values)[row], table)


def _lookup_table(image: image_ops.Pixels, setting: Setting) -> image_ops.Table:
    """The look-up tables of the four tonal operations; the identity for the others."""
    values = jnp.arange(256)
    table = jnp.where(setting.stretch == 1, image_ops.autocontrast_table(image), values)
    table = jnp.where(setting.stretch == 2, image_ops.equalize_table(image), table)
    return jnp.where(values >= setting.invert_from, 255 - table, table) & setting.kept_bits


def _enhance(image: image_ops.Pixels, setting: Setting) -> image_ops.Pixels:
    """Blend an image in 0..255 with the factor-0 image of the four enhancements; the others change nothing."""
    luminance = image_ops.luminance(image)
    mean = (2 * jnp.sum(luminance) + luminance.size) // (2 * luminance.size)
    others = {
        "brightness": jnp.int32(0),
        "contrast": mean,
        "color": luminance if image.shape[-1] == 3 else image,
        "sharpness": image_ops.smooth(image),
    }
    other = image
    for name, candidate in others.items():
        other = jnp.where(setting.blended_with == _BLENDED_WITH.index(name), candidate, other)
    return image_ops.blend(image, other, setting.factor, 255)
