"""Sources that are arrays: scikit-learn's digits, synthetic images of any number, and `.npz` files."""

import math
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxcnn import config, host_memory
from jaxcnn.config import UserError
from jaxcnn.config_check import INT32
from jaxcnn.data.decode import resize
from jaxcnn.data.examples import Examples, Source

_IMAGE_KEYS = ("{}_images", "x_{}", "X_{}", "{}_x", "{}_data", "{}_image")
_LABEL_KEYS = ("{}_labels", "y_{}", "Y_{}", "{}_y", "{}_targets", "{}_label")
_PLAIN_IMAGE_KEYS = ("images", "image", "x", "X", "data")  # a file of one split, called train
_PLAIN_LABEL_KEYS = ("labels", "label", "y", "Y", "targets")
_NAME_KEYS = ("names", "class_names", "label_names", "classes")
_BASE_SPLITS = ("train", "val", "test")


def open_digits(argument: str, data: config.Data) -> Source:
    """The 1,797 handwritten digits inside scikit-learn (8x8 grey; UCI optdigits, Alpaydin & Kaynak 1998).

    Values 0..16 are scaled to 0..255. Every fifth example, counted class by class, is test: 1437 train, 360 test.
    """
    from sklearn.datasets import load_digits

    if argument:
        raise UserError(f"config.data.source='digits:{argument}': digits takes nothing after its name")
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    rank = np.empty(len(labels), np.int64)
    rank[np.argsort(labels, kind="stable")] = np.arange(len(labels))
    chosen = {"train": np.flatnonzero(rank % 5), "test": np.flatnonzero(rank % 5 == 0)}

    def open_split(name: str) -> Examples:
        return array_examples(images[chosen[name]], labels[chosen[name]], data)

    return Source("digits", tuple("0123456789"), ("train", "test"), open_split)


def array_examples(images: np.ndarray, labels: np.ndarray, data: config.Data) -> Examples:
    """Images uint8 [N, H, W, C] and labels [N] in memory, resized to `data.image_size` as they are read."""
    return _resized(
        Examples(labels.astype(np.int32), images.shape[1:], lambda indices: images[indices]), data.image_size
    )


def _resized(examples: Examples, size: int) -> Examples:
    """Examples that are resized to `size` as they are read; the same ones for 0 or the size they have."""
    height, width, channels = examples.image_shape
    if not size or (height, width) == (size, size):
        return examples
    if channels not in (1, 3):
        raise UserError(f"config.data.image_size={size}: images of {channels} channels cannot be resized")

    def read(indices: np.ndarray) -> np.ndarray:
        images = np.empty((len(indices), size, size, channels), np.uint8)
        for place, image in enumerate(examples.read(indices)):
            images[place] = resize(image, size)
        return images

    return Examples(examples.labels, (size, size, channels), read, examples.notes)


_SYNTHETIC = re.compile(
    r"(?P<h>\d{1,12})x(?P<w>\d{1,12})x(?P<c>\d{1,12})(?::(?P<classes>\d{1,12})(?::(?P<length>\d{1,12}))?)?"
)


def open_synthetic(argument: str, data: config.Data) -> Source:
    """Made-up images that can be learnt: `HxWxC:classes:length`, by default 32x32x3:10:1024.

    Each class has a pattern of coarse blocks; an image is its pattern with noise on every pixel. Pixels are a function
    of (split, index) alone and computed when read, so the length may exceed any memory. The test split has a quarter
    of the length. Example i has class i modulo the number of classes.
    """
    match = _SYNTHETIC.fullmatch(argument or "32x32x3")
    if not match:
        raise UserError(f"config.data.source='synthetic:{argument}': write synthetic:HxWxC:classes:length")
    shape = (int(match["h"]), int(match["w"]), int(match["c"]))
    classes, length = int(match["classes"] or 10), int(match["length"] or 1024)
    if min(shape) < 1 or classes < 2 or not 4 <= length <= INT32:
        raise UserError(
            f"config.data.source='synthetic:{argument}': sides and channels are at least 1, classes 2, length 4, and "
            "length is below 2^31"
        )

    def open_split(name: str) -> Examples:
        salt, count = (1, length) if name == "train" else (2, length // 4)
        labels = (np.arange(count) % classes).astype(np.int32)
        examples = Examples(labels, shape, lambda indices: _synthesize(np.asarray(indices), salt, shape, classes))
        return _resized(examples, data.image_size)

    labels = 16 * length  # bytes: of every example some are in memory, though its pixels are not
    if classes > length or max(labels, math.prod(shape)) > (host_memory.obtainable() or math.inf):
        raise UserError(
            f"config.data.source='synthetic:{argument}': an image of each class, one image of {shape[0]}x{shape[1]}x"
            f"{shape[2]} bytes, and the labels of all must fit into memory; choose smaller numbers"
        )
    names = tuple(str(number) for number in range(classes))
    return Source(f"synthetic:{argument}" if argument else "synthetic", names, ("train", "test"), open_split)


def _synthesize(indices: np.ndarray, salt: int, shape: tuple[int, int, int], classes: int) -> np.ndarray:
    height, width, channels = shape
    grid = 4  # blocks per side of a pattern
    pixels = height * width * channels
    labels = (indices % classes).astype(np.uint64)
    rows, columns = np.arange(height) * grid // height, np.arange(width) * grid // width
    blocks = _noise(
        labels[:, None] * np.uint64(grid * grid * channels) + np.arange(grid * grid * channels, dtype=np.uint64), 0
    )
    blocks = blocks.reshape(-1, grid, grid, channels)
    pattern = blocks[:, rows[:, None], columns].astype(np.int16) // 2 + 64  # 64..191
    counters = indices.astype(np.uint64)[:, None] * np.uint64(pixels) + np.arange(pixels, dtype=np.uint64)
    noise = _noise(counters, salt).reshape(pattern.shape).astype(np.int16) // 2 - 64  # -64..63
    return (pattern + noise).astype(np.uint8)


def _noise(counter: np.ndarray, salt: int) -> np.ndarray:
    """A random byte for each uint64 counter: the finaliser of SplitMix64 (Steele et al. 2014), top 8 bits."""
    x = counter + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x >> np.uint64(56)).astype(np.uint8)


def open_npz(argument: str, data: config.Data) -> Source:
    """Arrays in a `.npz` file: images uint8 [N, H, W, C] or [N, H, W], labels integer [N] or [N, 1].

    For each of train, val and test: images `train_images`, `x_train`, `train_x` or `train_data`, labels
    `train_labels`, `y_train`, `train_y` or `train_targets`. A file with only `images` (`x`, `data`) and `labels` (`y`,
    `targets`) has the one split train. `names` or `class_names` are optional.

    Raises:
      UserError: no such file, not an `.npz` file, arrays missing or of a wrong type or shape.
    """
    path = Path(argument).expanduser()
    if not argument:
        raise UserError("config.data.source='npz:' needs a path: npz:<path>")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        found = list(archive.files)
    except FileNotFoundError:
        raise UserError(f"config.data.source='npz:{argument}': there is no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"config.data.source='npz:{argument}' is not an .npz file: {error}") from None

    def load(key: str) -> np.ndarray:
        try:
            return archive[key]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"npz:{argument}: array {key!r} cannot be read: {error}") from None

    keys = _array_keys(found, argument)
    labels = {
        split: _labels(load(label_key), f"npz:{argument}: {label_key!r}") for split, (_, label_key) in keys.items()
    }
    name_key = next((key for key in _NAME_KEYS if key in found), None)
    if name_key:
        names = tuple(str(name) for name in load(name_key).ravel())
    else:
        names = tuple(
            str(number) for number in range(max((int(a.max()) + 1 for a in labels.values() if a.size), default=0))
        )

    def open_split(name: str) -> Examples:
        key = keys[name][0]
        images = _images(load(key), f"npz:{argument}: {key!r}")
        if len(images) != len(labels[name]):
            raise UserError(
                f"npz:{argument}: {key!r} has {len(images)} images, {keys[name][1]!r} has {len(labels[name])} labels"
            )
        return array_examples(images, labels[name], data)

    return Source(f"npz:{argument}", names, tuple(keys), open_split)


def _array_keys(found: list[str], argument: str) -> dict[str, tuple[str, str]]:
    """The keys of images and labels of each base split that the file has."""

    def first(patterns: tuple[str, ...], split: str = "") -> str | None:
        return next((key for key in (pattern.format(split) for pattern in patterns) if key in found), None)

    keys = {}
    for split in _BASE_SPLITS:
        images, labels = first(_IMAGE_KEYS, split), first(_LABEL_KEYS, split)
        if images and labels:
            keys[split] = (images, labels)
    images, labels = first(_PLAIN_IMAGE_KEYS), first(_PLAIN_LABEL_KEYS)
    if images and labels and "train" not in keys:
        keys["train"] = (images, labels)
    if not keys:
        raise UserError(
            f"npz:{argument} has no images and labels that are known by their names; it has: {', '.join(found)}; "
            "save such as train_images, train_labels, test_images, test_labels"
        )
    return keys


def _images(images: np.ndarray, what: str) -> np.ndarray:
    if images.dtype != np.uint8:
        raise UserError(f"{what} is {images.dtype}, but images are uint8 from 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise UserError(f"{what} has shape {images.shape}, but images are [N, H, W, C] or [N, H, W]")
    if images.shape[1] in (1, 3) and images.shape[3] not in (1, 3, 4):
        raise UserError(
            f"{what} has shape {images.shape}, channels first; save it as [N, H, W, C] (np.moveaxis(x, 1, -1))"
        )
    return images


def _labels(labels: np.ndarray, what: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{what} is {labels.dtype} of shape {labels.shape}, but labels are class numbers: integers [N] from 0"
        )
    beyond = np.flatnonzero((labels < -(2**31)) | (labels >= 2**31))
    if len(beyond):
        raise UserError(f"{what} holds {labels[beyond[0]]} at index {beyond[0]}, which is no class number")
    return labels.astype(np.int32)
