"""Operations on one image in pure JAX, the parts of batch augmentation.

Each operation gets its own random key. Shapes are static, so everything can be jitted and vmapped. Pixels, factors and
coordinates are integers, so the order of summation and fused multiply-adds cannot change a bit when the same example is
computed in a batch of another size, on another number of devices, or in another program.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Int32, Key, Shaped, UInt8

from jaxcnn.tasks.moving import COORDINATE_BITS, nearest

Image = Shaped[Array, "h w c"]  # of any type
Pixels = Int32[Array, "h w c"]
Factor = Int32[Array, ""]  # in units of 2^-FACTOR_BITS
Table = Int32[Array, "c 256"]
Pair = Int32[Array, "2"]

FACTOR_BITS = 12  # fraction bits of a blend factor
FINE = 64  # steps per pixel value in colour jitter
LARGEST_FACTOR = 31.0  # of colour jitter; 31 * 2^FACTOR_BITS * 255 * FINE just fits into int32


def random_crop(image: Image, key: Key[Array, ""], padding: int, mode: str) -> Image:
    """Pad an image on all sides and crop it back to its size at a uniformly drawn position.

    The standard augmentation of CIFAR: Lee et al., "Deeply-Supervised Nets" (2015); He et al., "Deep Residual Learning
    for Image Recognition" (2016), section 4.2, pad by 4.

    Args:
      image: the image.
      key: key of this operation.
      padding: pixels on each side.
      mode: "zero" fills with pixel value 0 (black before normalisation), as torchvision's RandomCrop does;
        "reflect" mirrors the image about its border pixels without repeating them.
    """
    height, width, _ = image.shape
    shift = crop_shift(key, padding)
    rows, columns = jnp.arange(height) + shift[0], jnp.arange(width) + shift[1]
    if mode == "reflect":
        return image[_reflect(rows, height)[:, None], _reflect(columns, width)]
    inside = _within(rows, height)[:, None] & _within(columns, width)
    cropped = image[jnp.clip(rows, 0, height - 1)[:, None], jnp.clip(columns, 0, width - 1)]
    return jnp.where(inside[..., None], cropped, jnp.zeros((), image.dtype))


def crop_shift(key: Key[Array, ""], padding: int) -> Int32[Array, "2"]:
    """The row and the column of the image at which the crop of `random_crop` begins."""
    return jax.random.randint(key, (2,), -padding, padding + 1)


def zoom_matrix(key: Key[Array, ""], factors: tuple[float, ...], sides: tuple[int, int]) -> Int32[Array, "2 3"]:
    """The matrix of `affine_nearest` that enlarges or shrinks an image by a factor between the two `factors`.

    A smaller image lies anywhere within the `sides`, height and width; of a larger image any part is seen. Places are
    whole pixels, and all draws uniform.
    """
    by, place = jax.random.split(key)
    inverse = (1 << COORDINATE_BITS + FACTOR_BITS) // _draw_fixed(by, *factors)
    beyond = ((1 << COORDINATE_BITS) - inverse) >> 4
    room = jnp.array([(side * beyond) >> COORDINATE_BITS - 4 for side in sides[::-1]])
    start = jax.random.randint(place, (2,), jnp.minimum(room, 0), jnp.maximum(room, 0) + 1)
    return jnp.concatenate([inverse * jnp.eye(2, dtype=jnp.int32), (start << COORDINATE_BITS)[:, None]], axis=1)


def shrink(images: Float32[Array, "b h w c"], side: int) -> Float32[Array, "b side side c"]:
    """Images resized to squares: bilinear with antialiasing.

    Training on small images first and on full-size ones last costs less for about the same accuracy: Howard, "Training
    Imagenet in 3 hours for USD 25" (fast.ai, 2018); Tan & Le 2021, "EfficientNetV2" (arXiv:2104.00298), section 4.
    """
    count, _, _, channels = images.shape
    return jax.image.resize(images, (count, side, side, channels), "linear")


def box_mask(height: int, width: int, center: Pair, size: Pair | tuple[int, int]) -> Bool[Array, "h w"]:
    """A mask of a box, clipped at the borders.

    `center` (row, column) is the pixel at offset size // 2 from the box's first one; `size` is (rows, columns).
    """
    top, left = center[0] - size[0] // 2, center[1] - size[1] // 2
    rows, columns = jnp.arange(height), jnp.arange(width)
    return ((rows >= top) & (rows < top + size[0]))[:, None] & ((columns >= left) & (columns < left + size[1]))


def random_cutout(image: Image, key: Key[Array, ""], side: int) -> Image:
    """Fill a square centred on a uniformly drawn pixel with 0, which in a normalised image is the data's mean.

    The square is clipped at the borders, so the filled area may be smaller: DeVries & Taylor, "Improved
    Regularization of Convolutional Neural Networks with Cutout" (2017), section 3.2 (side 16 on CIFAR-10, 8 on
    CIFAR-100).
    """
    height, width, _ = image.shape
    center = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
    return jnp.where(box_mask(height, width, center, (side, side))[..., None], jnp.zeros((), image.dtype), image)


def random_erasing(image: Image, key: Key[Array, ""], probability: float) -> Image:
    """Fill a random rectangle with probability `probability` with 0, the data's mean in a normalised image.

    Zhong et al., "Random Erasing Data Augmentation" (2017, arXiv:1708.04896), algorithm 1, with its areas, 0.02 to 0.4
    of the image, and its ratios of height to width, 0.3 to 1 / 0.3. The area is uniform, the ratio uniform in its
    logarithm, as in torchvision and timm. A rectangle that does not fit into the image is drawn anew, and its place is
    uniform; where none fits, as in an image of one row, nothing is erased. The paper fills with random values.
    """
    height, width, _ = image.shape
    sizes = erased_sizes(height, width)
    if not len(sizes):
        return image
    # One call of the generator; the remainders of 32 bits are uniform to a millionth.
    words = jax.random.bits(key, (4,), jnp.uint32)
    size = jnp.asarray(sizes)[words[0] % len(sizes)]
    first = (words[1:3] % (jnp.array([height, width]) - size + 1).astype(jnp.uint32)).astype(jnp.int32)
    happens = words[3] >> 8 < round(probability * 2**24)
    erased = box_mask(height, width, first + size // 2, size) & happens
    return jnp.where(erased[..., None], jnp.zeros((), image.dtype), image)


@functools.lru_cache(maxsize=16)
def erased_sizes(height: int, width: int) -> Int32[np.ndarray, "sizes 2"]:
    """Equally likely sizes (rows, columns) of `random_erasing`: those that fit of 64 areas with 64 ratios each.

    Drawing one of them is one integer, exact in every program, and needs no loop until a rectangle fits.
    """
    middle = (np.arange(64) + 0.5) / 64
    area = (0.02 + (0.4 - 0.02) * middle[:, None]) * height * width
    ratio = 0.3 ** (1 - 2 * middle)
    sizes = np.stack([np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))], axis=-1).reshape(-1, 2)
    return sizes[(sizes <= [height, width]).all(axis=1)].astype(np.int32)


def color_jitter(
    image: UInt8[Array, "h w c"],
    key: Key[Array, ""],
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Float32[Array, "h w c"]:
    """Change brightness, contrast, saturation and hue by random amounts, each as torchvision's ColorJitter defines it.

    Brightness, contrast and saturation take a factor from [max(0, 1 - x), 1 + x], hue a shift from [-x, x] turns; x = 0
    disables a change. The order is always the one above, whereas torchvision draws an order for each image. From
    Howard, "Some Improvements on Deep Convolutional Neural Network Based Image Classification" (2013).

    Args:
      image: the pixels; unless c is 3, saturation and hue do nothing.
      key: key of this operation; each of the four changes folds its own constant into it.

    Returns:
      Pixels in [0, 1].
    """
    fine = image.astype(jnp.int32) * FINE
    extents = ((brightness, adjust_brightness), (contrast, adjust_contrast), (saturation, adjust_saturation))
    for number, (extent, adjust) in enumerate(extents):
        if extent > 0:
            low, high = max(0.0, 1 - extent), min(1 + extent, LARGEST_FACTOR)
            fine = adjust(fine, _draw_fixed(jax.random.fold_in(key, number), low, high))
    if hue > 0:
        fine = adjust_hue(fine, _draw_fixed(jax.random.fold_in(key, 3), -6 * hue, 6 * hue))
    return unit_interval(fine, 255 * FINE)


def adjust_brightness(fine: Pixels, factor: Factor) -> Pixels:
    """Blend an image with black.

    This and the next two functions take an image in 0..255 * FINE and a factor in units of 2^-FACTOR_BITS: 1 changes
    nothing, 0 gives the other image, more than 1 extrapolates beyond the given one.
    """
    return blend(fine, jnp.int32(0), factor, 255 * FINE)


def adjust_contrast(fine: Pixels, factor: Factor) -> Pixels:
    """Blend an image with the mean of its luminance."""
    pixels = fine.shape[0] * fine.shape[1]
    spare = max(0, (255 * FINE * pixels).bit_length() - 31)  # bits by which the sum would exceed int32
    mean = (jnp.sum(luminance(fine) >> spare) // pixels) << spare
    return blend(fine, mean, factor, 255 * FINE)


def adjust_saturation(fine: Pixels, factor: Factor) -> Pixels:
    """Blend an RGB image with its luminance; other images are unchanged."""
    return blend(fine, luminance(fine), factor, 255 * FINE) if fine.shape[-1] == 3 else fine


def adjust_hue(fine: Pixels, shift: Factor) -> Pixels:
    """Rotate the hue of an RGB image on the HSV colour circle; other images are unchanged.

    Args:
      fine: pixels in 0..255 * FINE.
      shift: sixths of a turn in units of 2^-FACTOR_BITS.
    """
    if fine.shape[-1] != 3:
        return fine
    red, green, blue = fine[..., 0], fine[..., 1], fine[..., 2]
    value = jnp.max(fine, axis=-1)
    chroma = value - jnp.min(fine, axis=-1)
    one = 1 << FACTOR_BITS
    difference = jnp.where(value == red, green - blue, jnp.where(value == green, blue - red, red - green))
    origin = jnp.where(value == red, 0, jnp.where(value == green, 2 * one, 4 * one))
    hue = origin + (difference << FACTOR_BITS) // jnp.maximum(chroma, 1) + shift
    # Each channel is the value minus the chroma times a trapezoid of the hue; red, green and blue are 2/6 turn apart.
    distance = (hue[..., None] + jnp.array([5 * one, 3 * one, one])) % (6 * one)
    trapezoid = jnp.clip(jnp.minimum(distance, 4 * one - distance), 0, one)
    return value[..., None] - (chroma[..., None] * trapezoid >> FACTOR_BITS)


def unit_interval(image: Int[Array, "..."], highest: int) -> Float32[Array, "..."]:
    """Integers in 0..highest as numbers in [0, 1]."""
    # The bound never changes the value. It separates the product from a following sum, so that no compiler fuses the
    # two into a multiply-add in one program and not in another.
    return jnp.minimum(image.astype(jnp.float32) * np.float32(1 / highest), 1)


def blend(image: Pixels, other: Int32[Array, "..."], factor: Factor, highest: int) -> Pixels:
    """`other + factor * (image - other)` in 0..highest, rounded down; `factor` is in units of 2^-FACTOR_BITS."""
    return jnp.clip(((other << FACTOR_BITS) + factor * (image - other)) >> FACTOR_BITS, 0, highest)


def affine_nearest(image: Image, matrix: Int32[Array, "2 3"]) -> Image:
    """`moving.nearest` with 0 outside the image, as in torchvision and Pillow."""
    return nearest(image, matrix, outside=0)


def autocontrast_table(image: Pixels) -> Table:
    """The table that stretches each channel of pixels in 0..255 to the whole range."""
    low, high = jnp.min(image, axis=(0, 1))[:, None], jnp.max(image, axis=(0, 1))[:, None]
    values = jnp.arange(256)
    return jnp.where(high > low, jnp.clip((values - low) * 255 // jnp.maximum(high - low, 1), 0, 255), values)


def equalize_table(image: Pixels) -> Table:
    """The table that flattens each channel's histogram, as Pillow's ImageOps.equalize does."""
    channels = image.shape[-1]
    counts = jnp.zeros((channels, 256), jnp.int32).at[jnp.arange(channels), image].add(1)
    highest = jnp.take_along_axis(counts, jnp.max(image, axis=(0, 1))[:, None], axis=1)
    step = (jnp.sum(counts, axis=1, keepdims=True) - highest) // 255
    below = jnp.cumsum(counts, axis=1) - counts
    return jnp.where(step > 0, jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255), jnp.arange(256))


def luminance(image: Pixels) -> Int32[Array, "h w 1"]:
    """Luminance of pixels below 2^15, by ITU-R 601-2; the mean if c is not 3.

    The weights are those of Pillow, in 16-bit integers: 0.299, 0.587, 0.114.
    """
    channels = image.shape[-1]
    if channels != 3:
        return jnp.sum(image, axis=-1, keepdims=True) // channels
    return (jnp.sum(image * jnp.array([19595, 38470, 7471]), axis=-1, keepdims=True) + (1 << 15)) >> 16


def smooth(image: Pixels) -> Pixels:
    """Pixels in 0..255 filtered by (1 1 1 / 1 5 1 / 1 1 1) / 13, border pixels kept, as in Pillow."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    filtered = jnp.pad((box + 4 * image[1:-1, 1:-1] + 6) // 13, ((1, 1), (1, 1), (0, 0)))
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    inner = (rows > 0) & (rows < height - 1) & (columns > 0) & (columns < width - 1)
    return jnp.where(inner, filtered, image)


def _draw_fixed(key: Key[Array, ""], low: float, high: float) -> Factor:
    """Uniform in [low, high], in units of 2^-FACTOR_BITS: an integer draw, equal in every program."""
    one = 1 << FACTOR_BITS
    return jax.random.randint(key, (), round(low * one), round(high * one) + 1)


def _within(index: Int32[Array, "..."], length: int) -> Bool[Array, "..."]:
    return (index >= 0) & (index < length)


def _reflect(index: Int32[Array, " m"], length: int) -> Int32[Array, " m"]:
    """Indices outside [0, length) mirrored into it; the border pixel itself is not repeated."""
    period = max(2 * (length - 1), 1)
    index = index % period
    return jnp.minimum(index, period - index) if length > 1 else jnp.zeros_like(index)
