"""Damaged images: noise, blur, weather and compression, each in five severities.

Kinds and constants are those of Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common
corruptions and perturbations", arXiv:1903.12261: for CIFAR up to 64 pixels, for ImageNet above. Images are made here,
so they are not those of CIFAR-10-C, pixel by pixel. Motion blur is along a straight line, with weights of a Gaussian.
The authors lay photographs of frozen panes over images; frost here is drawn, with the brightness, colour and contrast
of these photographs.
"""

import io
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

Picture = UInt8[np.ndarray, "h w c"]
Unit = Float[np.ndarray, "h w c"]  # float64 in [0, 1]
Random = np.random.Generator
SMALL = 64  # pixels: the longest side for which the constants of CIFAR hold
SEVERITIES = (1, 2, 3, 4, 5)
LUMA = np.array([0.299, 0.587, 0.114])  # shares of red, green and blue in the brightness of an image
COLD = np.array([-0.06, 0.01, 0.05])  # what frost of the strongest colour adds to red, green and blue


def corrupt(image: Picture, name: str, severity: int, seed: tuple[int, ...]) -> Picture:
    """An image damaged by one of `KINDS`.

    Args:
      image: grey or RGB.
      name: name of the kind.
      severity: from 1 to 5.
      seed: seed of the random numbers, such as (seed, index in the split); kind and severity are added to it.
    """
    function, of_small, of_large = KINDS[name]
    amount = (of_small if max(image.shape[:2]) <= SMALL else of_large)[severity - 1]
    random = np.random.default_rng((*seed, zlib.crc32(name.encode()), severity))
    made = function(image / 255.0, amount, random)
    return np.clip(np.rint(255 * made), 0, 255).astype(np.uint8)


def _gaussian_noise(image: Unit, deviation: float, random: Random) -> Unit:
    return image + random.normal(0, deviation, image.shape)


def _shot_noise(image: Unit, photons: float, random: Random) -> Unit:
    return random.poisson(image * photons) / photons


def _impulse_noise(image: Unit, share: float, random: Random) -> Unit:
    struck, white = random.random(image.shape) < share, random.random(image.shape) < 0.5
    return np.where(struck, white, image)


def _speckle_noise(image: Unit, deviation: float, random: Random) -> Unit:
    return image + image * random.normal(0, deviation, image.shape)


def _gaussian_blur(image: Unit, deviation: float, random: Random) -> Unit:
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter(image, (deviation, deviation, 0), mode="nearest"))


def _defocus_blur(image: Unit, amount: tuple[float, float], random: Random) -> Unit:
    radius, smooth = amount
    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    places = np.arange(-reach, reach + 1)
    disk = (np.add.outer(places**2, places**2) <= radius**2).astype(float)
    weights = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * smooth**2))
    return _filtered(image, _separable(disk / disk.sum(), weights / weights.sum()))


def _glass_blur(image: Unit, amount: tuple[float, int, int], random: Random) -> Unit:
    deviation, reach, turns = amount
    height, width = image.shape[:2]
    sides = [max(0, side - 2 * reach) for side in (height, width)]
    moves = random.integers(-reach, reach, (turns, *sides, 2))
    return _gaussian_blur(_shattered(_gaussian_blur(image, deviation, random), moves, reach), deviation, random)


def _shattered(image: Unit, moves: Int[np.ndarray, "turns rows columns 2"], reach: int) -> Unit:
    """The image in which pixels, one after another from the last to the first, take the colour of a near one.

    `moves` has the way to it, (x, y), for all pixels but `reach` at each border. The authors' code exchanges two
    pixels, but by NumPy's rules for views it copies one of them.
    """
    height, width = image.shape[:2]
    at = list(range(height * width))
    for turn in (moves[..., 1] * width + moves[..., 0]).tolist():
        for y, row in zip(range(height - reach, reach, -1), turn, strict=False):
            for place, move in zip(range(y * width + width - reach, y * width + reach, -1), row, strict=False):
                at[place] = at[place + move]
    return image.reshape(height * width, -1)[at].reshape(image.shape)


def _motion_blur(image: Unit, amount: tuple[int, float], random: Random) -> Unit:
    return _streaked(image, *amount, random.uniform(-45, 45))


def _streaked(image: Unit, radius: int, deviation: float, degrees: float) -> Unit:
    """The image blurred along a line that begins in each pixel."""
    angle = np.deg2rad(degrees)
    kernel = np.zeros((4 * radius + 3,) * 2)
    steps = np.linspace(0, 2 * radius, 8 * radius + 1)
    rows, columns = (2 * radius + 1 + steps * part for part in (np.sin(angle), np.cos(angle)))
    np.add.at(
        kernel, (np.rint(rows).astype(int), np.rint(columns).astype(int)), np.exp(-((steps / deviation) ** 2) / 2)
    )
    return _filtered(image, kernel / kernel.sum())


def _zoom_blur(image: Unit, factors: Sequence[float], random: Random) -> Unit:
    return (image + sum(_zoomed(image, factor) for factor in factors)) / (len(factors) + 1)


def _snow(image: Unit, amount: tuple[float, float, float, float, int, float, float], random: Random) -> Unit:
    mean, spread, zoom, least, radius, deviation, share = amount
    flakes = _zoomed(random.normal(mean, spread, (*image.shape[:2], 1)), zoom)
    flakes = np.where(flakes < least, 0, np.clip(flakes, 0, 1))
    flakes = _streaked(flakes, radius, deviation, random.uniform(-135, -45))
    grey = image @ LUMA if image.shape[-1] == 3 else image.mean(axis=-1)
    pale = np.maximum(image, 1.5 * grey[..., None] + 0.5)
    return share * image + (1 - share) * pale + flakes + np.rot90(flakes, 2)


def _frost(image: Unit, amount: tuple[float, float], random: Random) -> Unit:
    of_image, of_frost = amount
    sides = image.shape[:2]
    # Ridges between plates of ice, of two sizes, at the mean and deviation of the authors' photographs.
    ridges = np.abs(2 * _plasma(sides, 1.6, random) - 1) + 0.5 * np.abs(2 * _plasma(sides, 1.2, random) - 1)
    deviation = random.uniform(0.05, 0.11) if max(sides) <= SMALL else random.uniform(0.06, 0.13)
    ice = random.uniform(0.45, 0.8) + deviation * (ridges - ridges.mean()) / max(ridges.std(), 1e-12)
    tint = random.uniform(0, 1) * COLD if image.shape[-1] == 3 else np.zeros(image.shape[-1])
    return of_image * image + of_frost * np.clip(ice[..., None] + tint, 0, 1)


def _fog(image: Unit, amount: tuple[float, float], random: Random) -> Unit:
    thickness, decay = amount
    brightest = image.max()
    return (
        (image + thickness * _plasma(image.shape[:2], decay, random)[..., None]) * brightest / (brightest + thickness)
    )


def _brightness(image: Unit, more: float, random: Random) -> Unit:
    value = image.max(axis=-1, keepdims=True)
    brighter = np.clip(value + more, 0, 1)
    return np.where(value > 0, image * brighter / np.maximum(value, 1e-12), brighter)


def _saturate(image: Unit, amount: tuple[float, float], random: Random) -> Unit:
    factor, more = amount
    value, least = image.max(axis=-1, keepdims=True), image.min(axis=-1, keepdims=True)
    was = np.where(value > 0, 1 - least / np.maximum(value, 1e-12), 0)
    now = np.clip(was * factor + more, 0, 1)
    # Colours of equal hue differ from the value in proportion to their saturations; grey gets the hue of red.
    away = np.where(
        was > 0, (value - image) * now / np.maximum(was, 1e-12), value * now * (np.arange(image.shape[-1]) > 0)
    )
    return value - away


def _contrast(image: Unit, factor: float, random: Random) -> Unit:
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * factor + mean


def _elastic_transform(image: Unit, amount: tuple[float, float, float], random: Random) -> Unit:
    from scipy import ndimage

    height, width = image.shape[:2]
    strength, deviation, corner = (part * min(height, width) for part in amount)
    middle, third = np.array([width, height]) / 2, min(height, width) // 3
    before = middle + third * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + random.uniform(-corner, corner, before.shape)
    # From places in the result to places in the image; fields of displacements are added.
    matrix = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)
    shifts = random.uniform(-1, 1, (2, height, width))
    if strength:
        shifts = np.stack([ndimage.gaussian_filter(each, deviation, mode="reflect", truncate=3) for each in shifts])
    rows, columns = np.mgrid[:height, :width].astype(float)
    x, y = np.moveaxis(np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ matrix, -1, 0)
    places = [y + strength * shifts[1], x + strength * shifts[0]]
    return np.stack(
        [ndimage.map_coordinates(image[..., c], places, order=1, mode="reflect") for c in range(image.shape[-1])],
        axis=-1,
    )


def _pixelate(image: Unit, share: float, random: Random) -> Unit:
    picture = _as_pillow(image)
    small = [max(1, int(side * share)) for side in picture.size]
    return _from_pillow(
        picture.resize((small[0], small[1]), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BOX)
    )


def _jpeg_compression(image: Unit, quality: int, random: Random) -> Unit:
    file = io.BytesIO()
    _as_pillow(image).save(file, "JPEG", quality=quality)
    return _from_pillow(Image.open(file))


def _filtered(image: Unit, kernel: Float[np.ndarray, "k k"]) -> Unit:
    from scipy import ndimage

    return np.asarray(ndimage.correlate(image, kernel[..., None], mode="mirror"))


def _separable(disk: Float[np.ndarray, "k k"], weights: Float[np.ndarray, " t"]) -> Float[np.ndarray, "k k"]:
    from scipy import ndimage

    rows = ndimage.correlate1d(disk, weights, axis=0, mode="mirror")
    return np.asarray(ndimage.correlate1d(rows, weights, axis=1, mode="mirror"))


def _zoomed(image: Unit, factor: float) -> Unit:
    """The middle of an image, enlarged to the size of the image."""
    from scipy import ndimage

    height, width = image.shape[:2]
    inner = [int(np.ceil(side / factor)) for side in (height, width)]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    part = image[top : top + inner[0], left : left + inner[1]]
    large = ndimage.zoom(part, (factor, factor, 1), order=1)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return np.asarray(large[max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width])


def _plasma(sides: tuple[int, int], decay: float, random: Random) -> Float[np.ndarray, "h w"]:
    """Clouds in [0, 1] by midpoint displacement on a torus (Fournier et al. 1982), whose steps shrink by `decay`."""
    size = 1 << (max(sides) - 1).bit_length()
    clouds, step, wobble = np.zeros((size, size)), size, 1.0
    while step > 1:
        half = step // 2
        corners = clouds[::step, ::step]
        right, below = np.roll(corners, -1, axis=1), np.roll(corners, -1, axis=0)
        square = (corners + right + below + np.roll(right, -1, axis=0)) / 4
        clouds[half::step, half::step] = square + wobble * random.uniform(-1, 1, square.shape)
        middles = clouds[half::step, half::step]
        across = (corners + right + middles + np.roll(middles, 1, axis=0)) / 4
        down = (corners + below + middles + np.roll(middles, 1, axis=1)) / 4
        clouds[::step, half::step] = across + wobble * random.uniform(-1, 1, across.shape)
        clouds[half::step, ::step] = down + wobble * random.uniform(-1, 1, down.shape)
        step, wobble = half, wobble / decay
    clouds -= clouds.min()
    return (clouds / clouds.max())[: sides[0], : sides[1]]


def _as_pillow(image: Unit) -> Image.Image:
    pixels = np.rint(255 * image).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _from_pillow(picture: Image.Image) -> Unit:
    pixels = np.asarray(picture) / 255.0
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _zooms(ends: Sequence[float], step: float) -> list[list[float]]:
    return [np.arange(1, end, step).tolist() for end in ends]


# Function, constants for small images, constants for large ones.
KINDS: dict[str, tuple[Callable[[Unit, Any, Random], Unit], Sequence[Any], Sequence[Any]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": (
        _defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": (  # smoothness, reach of the moves, turns
        _glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": (
        _motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": (
        _zoom_blur,
        _zooms((1.06, 1.11, 1.16, 1.21, 1.26), 0.01),
        [*_zooms((1.11, 1.16), 0.01), *_zooms((1.21, 1.26), 0.02), *_zooms((1.31,), 0.03)],
    ),
    "snow": (  # mean, deviation, zoom and least brightness of flakes; their way and its deviation; share of the image
        _snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (
        _frost,
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": (
        _fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": (  # in sides: strength, smoothness, movement of corners
        _elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": (_jpeg_compression, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    "speckle_noise": (_speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1), (1, 2, 3, 4, 6)),
    "saturate": (
        _saturate,
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
}
EXTRA = ("speckle_noise", "gaussian_blur", "saturate")  # kept for validation in the paper: not in the mean
