"""Operations on one image, pure JAX: what the augmentations of a batch are made of.

Randomness comes in as a key of the operation's own. Shapes are static, so everything can be jitted and vmapped; where a
number steers every pixel of an image (a mean, a blend factor), it is made of integers, so that no order of summation
and no fused multiply-add can change a pixel when the same example is computed in another batch or on another device.
"""

import jax
import jax.numpy as jnp

FIXED_POINT_BITS = 16  # fraction bits of coordinates and blend factors, as in Pillow


def random_crop(image: jax.Array, key: jax.Array, padding: int, mode: str) -> jax.Array:
    """Pad an image on all sides and crop it back to its size at a uniformly drawn place.

    The standard augmentation of CIFAR: Lee et al., "Deeply-Supervised Nets" (2015); He et al., "Deep Residual Learning
    for Image Recognition" (2016), section 4.2, pad by 4.

    Args:
      image: [H, W, C], any dtype.
      key: of this operation.
      padding: pixels on each side.
      mode: "zero" fills with pixel value 0, that is black before normalisation, as torchvision's RandomCrop does;
        "reflect" mirrors the image about its border pixels without repeating them.
    """
    height, width, _ = image.shape
    shift = jax.random.randint(key, (2,), -padding, padding + 1)
    rows, columns = jnp.arange(height) + shift[0], jnp.arange(width) + shift[1]
    if mode == "reflect":
        return image[_reflect(rows, height)[:, None], _reflect(columns, width)]
    inside = _within(rows, height)[:, None] & _within(columns, width)
    cropped = image[jnp.clip(rows, 0, height - 1)[:, None], jnp.clip(columns, 0, width - 1)]
    return jnp.where(inside[..., None], cropped, jnp.zeros((), image.dtype))


def random_flip(image: jax.Array, key: jax.Array) -> jax.Array:
    """Mirror an image [H, W, C] left to right with probability 1/2 (Krizhevsky et al. 2012, section 4.1)."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def box_mask(height: int, width: int, center: jax.Array, size: jax.Array | tuple[int, int]) -> jax.Array:
    """A box as bool [height, width], clipped at the borders.

    `center` (row, column) is the pixel at offset size // 2 from the box's first one; `size` is (rows, columns).
    """
    top, left = center[0] - size[0] // 2, center[1] - size[1] // 2
    rows, columns = jnp.arange(height), jnp.arange(width)
    return ((rows >= top) & (rows < top + size[0]))[:, None] & ((columns >= left) & (columns < left + size[1]))


def random_cutout(image: jax.Array, key: jax.Array, side: int) -> jax.Array:
    """Fill a square centred on a uniformly drawn pixel with 0, which in a normalised image is the data's mean.

    The square is clipped at the borders, so what is left of it may be smaller: DeVries & Taylor, "Improved
    Regularization of Convolutional Neural Networks with Cutout" (2017), section 3.2 (side 16 on CIFAR-10, 8 on
    CIFAR-100). `image` is [H, W, C].
    """
    height, width, _ = image.shape
    center = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
    return jnp.where(box_mask(height, width, center, (side, side))[..., None], jnp.zeros((), image.dtype), image)


def color_jitter(
    image: jax.Array, key: jax.Array, brightness: float, contrast: float, saturation: float, hue: float
) -> jax.Array:
    """Change brightness, contrast, saturation and hue by random amounts, each as torchvision's ColorJitter defines it.

    Brightness, contrast and saturation take a factor from [max(0, 1 - x), 1 + x], hue a shift from [-x, x] turns; an x
    of 0 leaves that one out. The order is always the one above, where torchvision draws an order for each image. The
    idea: Howard, "Some Improvements on Deep Convolutional Neural Network Based Image Classification" (2013).

    Args:
      image: float32 [H, W, C] in [0, 1]; with C other than 3, saturation and hue do nothing.
      key: of this operation; each of the four folds its own constant into it.
    """
    for number, (extent, adjust) in enumerate(
        ((brightness, adjust_brightness), (contrast, adjust_contrast), (saturation, adjust_saturation))
    ):
        if extent > 0:
            factor = jax.random.uniform(jax.random.fold_in(key, number), minval=max(0.0, 1 - extent), maxval=1 + extent)
            image = adjust(image, factor)
    if hue > 0:
        image = adjust_hue(image, jax.random.uniform(jax.random.fold_in(key, 3), minval=-hue, maxval=hue))
    return image


def adjust_brightness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Blend an image in [0, 1] with black; factor 1 changes nothing, 0 is black."""
    return jnp.clip(image * factor, 0, 1)


def adjust_contrast(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Blend an image in [0, 1] with the mean of its luminance; factor 1 changes nothing, 0 is plain grey."""
    pixels = image.shape[0] * image.shape[1]
    # The mean over integers, as many bits as an int32 sum has room for, is the same in every order of summation.
    scale = 2.0 ** min(16, 30 - (pixels - 1).bit_length())
    luminance = _luminance(image) if image.shape[-1] == 3 else jnp.mean(image, -1)
    total = jnp.sum(jnp.round(luminance * scale).astype(jnp.int32))
    return _blend(image, total / (pixels * scale), factor)


def adjust_saturation(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Blend an RGB image in [0, 1] with its luminance; factor 1 changes nothing, 0 is the grey image."""
    return _blend(image, _luminance(image)[..., None], factor) if image.shape[-1] == 3 else image


def adjust_hue(image: jax.Array, turns: jax.Array | float) -> jax.Array:
    """Rotate the hue of an RGB image in [0, 1] on the colour circle of HSV, by `turns` of a whole turn."""
    if image.shape[-1] != 3:
        return image
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = jnp.max(image, axis=-1)
    chroma = value - jnp.min(image, axis=-1)
    divisor = jnp.where(chroma > 0, chroma, 1)
    sector = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sector = sector + 6 * turns
    # Each channel is the value less the chroma, by a trapezoid of the hue; red, green and blue sit a third apart.
    distance = jnp.mod(jnp.array([5.0, 3.0, 1.0]) + sector[..., None], 6)
    return jnp.clip(value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(distance, 4 - distance), 0, 1), 0, 1)


def affine_nearest(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Sample an image at affinely mapped places, the nearest pixel each; 0 outside, as torchvision and Pillow fill.

    Args:
      image: [H, W, C].
      matrix: float32 [2, 3]; (x, y, 1) of a pixel's centre in the output -> (x, y) in the input, in pixels from the
        top left corner. Rounded to 16 fraction bits, as in Pillow, so that sampling is integer arithmetic.
    """
    height, width, _ = image.shape
    fixed = jnp.round(matrix * (1 << FIXED_POINT_BITS)).astype(jnp.int32)
    start = fixed[:, 2] + ((fixed[:, 0] + fixed[:, 1]) >> 1)  # at the centre of pixel (0, 0)
    x, y = jnp.arange(width), jnp.arange(height)[:, None]
    column = (start[0] + fixed[0, 0] * x + fixed[0, 1] * y) >> FIXED_POINT_BITS
    row = (start[1] + fixed[1, 0] * x + fixed[1, 1] * y) >> FIXED_POINT_BITS
    inside = _within(row, height) & _within(column, width)
    sampled = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], sampled, jnp.zeros((), image.dtype))


def autocontrast_table(image: jax.Array) -> jax.Array:
    """The table int32 [C, 256] that stretches each channel of int32 [H, W, C] in 0..255 to the whole range."""
    low, high = jnp.min(image, axis=(0, 1))[:, None], jnp.max(image, axis=(0, 1))[:, None]
    values = jnp.arange(256)
    return jnp.where(high > low, jnp.clip((values - low) * 255 // jnp.maximum(high - low, 1), 0, 255), values)


def equalize_table(image: jax.Array) -> jax.Array:
    """The table int32 [C, 256] that makes each channel's histogram flat, as Pillow's ImageOps.equalize does."""
    channels = image.shape[-1]
    counts = jnp.zeros((channels, 256), jnp.int32).at[jnp.arange(channels), image].add(1)
    highest = jnp.take_along_axis(counts, jnp.max(image, axis=(0, 1))[:, None], axis=1)
    step = (jnp.sum(counts, axis=1, keepdims=True) - highest) // 255
    below = jnp.cumsum(counts, axis=1) - counts
    return jnp.where(step > 0, jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255), jnp.arange(256))


def luminance_uint8(image: jax.Array) -> jax.Array:
    """Luminance of int32 [H, W, C] in 0..255 with one channel: ITU-R 601 in 16-bit integers, as in Pillow."""
    if image.shape[-1] != 3:
        return jnp.mean(image, axis=-1, keepdims=True, dtype=jnp.float32).astype(jnp.int32)
    weights = jnp.array([19595, 38470, 7471], jnp.int32)
    return (jnp.sum(image * weights, axis=-1, keepdims=True) + (1 << 15)) >> 16


def smooth_uint8(image: jax.Array) -> jax.Array:
    """Int32 [H, W, C] in 0..255 filtered by (1 1 1 / 1 5 1 / 1 1 1) / 13, border pixels kept, as in Pillow."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return image.at[1:-1, 1:-1].set((box + 4 * image[1:-1, 1:-1] + 6) // 13)


def _luminance(image: jax.Array) -> jax.Array:
    return 0.2989 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]


def _blend(image: jax.Array, other: jax.Array, factor: jax.Array | float) -> jax.Array:
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def _within(index: jax.Array, length: int) -> jax.Array:
    return (index >= 0) & (index < length)


def _reflect(index: jax.Array, length: int) -> jax.Array:
    """Indices beyond [0, length) mirrored into it; the border pixel itself is not repeated."""
    period = max(2 * (length - 1), 1)
    index = index % period
    return jnp.minimum(index, period - index) if length > 1 else jnp.zeros_like(index)
