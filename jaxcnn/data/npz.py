"""Images and labels in `.npz` files; every array header is checked against the file before loading."""

import dataclasses
import math
import os
import zipfile
from pathlib import Path

import numpy as np

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import groups
from jaxcnn.data.arrays import array_examples
from jaxcnn.data.as_stored import as_type
from jaxcnn.data.decode import Unreadable
from jaxcnn.data.examples import WHITE, Examples, Groups, Source
from jaxcnn.machine import npz_arrays
from jaxcnn.machine.paths import expand
from jaxcnn.text import counted

_IMAGE_KEYS = ("{}_images", "x_{}", "X_{}", "{}_x", "{}_data", "{}_image")
_LABEL_KEYS = ("{}_labels", "y_{}", "Y_{}", "{}_y", "{}_targets", "{}_label")
_PLAIN_IMAGE_KEYS = ("images", "image", "x", "X", "data")  # a file of one split, called train
_PLAIN_LABEL_KEYS = ("labels", "label", "y", "Y", "targets")
_NAME_KEYS = ("names", "class_names", "label_names", "classes")
_SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_SAVE = "save it with np.savez or np.savez_compressed"


@dataclasses.dataclass(frozen=True)
class _Array:
    """An array of the file, as described by its header; `what` is its name in messages."""

    what: str
    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype


def open_npz(argument: str, data: config.Data) -> Source:
    """Arrays in a `.npz` file: images [N, H, W, C] or [N, H, W] of `data.dtype`, labels integer [N] or [N, 1].

    With `data.dtype="float32"`, images may be of any type of numbers. For tasks of several labels or numbers, labels
    are columns [N, K].

    For each of train, val and test: images `train_images`, `x_train`, `train_x` or `train_data`, labels
    `train_labels`, `y_train`, `train_y` or `train_targets`. A file with only `images` (`x`, `data`) and `labels` (`y`,
    `targets`) has one split, train. `names` or `class_names` are optional; without them, classes are numbers.
    With `data.group="patient"`, `train_patient` or `patient_train` (and so on; `patient` in a file of one split) names
    the group of each image, as text or integers [N].

    Raises:
      UserError: no such file, not an `.npz` file, or arrays missing, damaged, or of a wrong type or shape.
    """
    path = expand(argument, "config.data.source=npz:")
    if not argument:
        raise UserError("config.data.source='npz:' needs a path: npz:<path>")
    title = f"npz:{argument}"
    members = _members(path, title)
    keys = _array_keys(list(members), title)

    def header(key: str) -> _Array:
        return _header(path, members[key], f"{title}: {key!r}")

    labels = {split: _labels(path, header(label_key)) for split, (_, label_key) in keys.items()}
    name_key = next((key for key in _NAME_KEYS if key in members), None)
    names = _names(path, header(name_key)) if name_key else ()

    def open_split(name: str) -> Examples:
        array = header(keys[name][0])
        shape = _image_shape(array, data)
        if shape[0] != len(labels[name]):
            raise UserError(f"{array.what} has {shape[0]} images, but {keys[name][1]!r} has {len(labels[name])} labels")
        try:
            images = as_type(_load(path, array), data.dtype)
        except Unreadable as error:
            raise UserError(f"{array.what}: {error}") from None
        examples = array_examples(images.reshape(shape), labels[name], data)
        if not data.group:
            return examples
        named = _groups(path, header(_group_key(name, keys, members, data.group, title)))
        if len(named) != shape[0]:
            raise UserError(f"{title}: {counted(shape[0], 'image')} of {name}, but {len(named)} of config.data.group")
        return dataclasses.replace(examples, groups=named)

    return Source(title, names, tuple(keys), open_split, labels=tuple(labels.values()))


def _members(path: Path, title: str) -> dict[str, zipfile.ZipInfo]:
    """The members of the file, keyed by NumPy's names for them."""
    try:
        with open(path, "rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise UserError(f"config.data.source={title!r} is a single array, not an .npz file; {_SAVE}")
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except FileNotFoundError:
        raise UserError(f"config.data.source={title!r}: this file does not exist") from None
    except OSError as error:
        raise UserError(f"config.data.source={title!r} cannot be read: {error.strerror or error}") from None
    except UserError:
        raise
    except Exception as error:  # damaged files make zipfile raise errors of any kind
        raise UserError(f"config.data.source={title!r} is not an .npz file: {_first_line(error)}") from None


def _header(path: Path, member: zipfile.ZipInfo, what: str) -> _Array:
    """Read the header of an array and check that the file can hold such an array."""
    if member.flag_bits & 0x1:
        raise UserError(f"{what} is encrypted; save it without a password")
    if member.compress_type not in npz_arrays.COMPRESSIONS:
        raise UserError(f"{what} is compressed in an unknown way (type {member.compress_type}); {_SAVE}")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            if file.read(6) != b"\x93NUMPY":
                raise UserError(f"{what} is not an array; {_SAVE}")
            version = tuple(file.read(2))
            if version not in ((1, 0), (2, 0)):
                raise ValueError("it has another version")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            there = npz_arrays.bytes_there(member, file.tell())
    except UserError:
        raise
    except Exception as error:  # damaged files make NumPy and zipfile raise errors of any kind
        raise _cannot_read(what, error) from None
    if dtype.hasobject:
        raise UserError(f"{what} holds Python objects, not numbers or text of one type; convert it before it is saved")
    promised = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or promised > max(there, 0):
        raise UserError(
            f"{what} cannot be read: its header states {promised} bytes, but the file has only {max(there, 0)} for "
            "them; create the file again"
        )
    return _Array(what, member, shape, dtype)


def _load(path: Path, array: _Array) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(array.member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except MemoryError:
        gib = math.prod(array.shape) * array.dtype.itemsize / 2**30
        raise UserError(
            f"{array.what} takes {gib:.1f} GiB, more than the free memory of this machine; save the images as files, "
            "one folder per class, and use config.data.source='folder:<path>'"
        ) from None
    except Exception as error:  # damaged files make NumPy, zipfile and decompressors raise errors of any kind
        raise _cannot_read(array.what, error) from None


def _cannot_read(what: str, error: Exception) -> UserError:
    return UserError(f"{what} cannot be read: {_first_line(error)}; create the file again")


def _first_line(error: Exception) -> str:
    """The first sentence of an error; NumPy's second one is advice that does not fit here, such as to load unsafely."""
    text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return text.partition("\n")[0].partition(". ")[0][:200] or type(error).__name__


def _array_keys(found: list[str], title: str) -> dict[str, tuple[str, str]]:
    """The keys of the images and labels of each base split in the file."""

    def first(patterns: tuple[str, ...], names: tuple[str, ...] = ("",)) -> str | None:
        known = (pattern.format(name) for name in names for pattern in patterns)
        return next((key for key in known if key in found), None)

    keys = {}
    for split, names in _SPLIT_NAMES.items():
        images, labels = first(_IMAGE_KEYS, names), first(_LABEL_KEYS, names)
        if images and labels:
            keys[split] = (images, labels)
    images, labels = first(_PLAIN_IMAGE_KEYS), first(_PLAIN_LABEL_KEYS)
    if images and labels and "train" not in keys:
        keys["train"] = (images, labels)
    if not keys:
        shown = ", ".join(key if key.isprintable() else repr(key) for key in found[:10])
        shown += f" and {len(found) - 10} more" if len(found) > 10 else ""
        raise UserError(
            f"{title} has no arrays of images and labels with known names; it has: {shown or 'nothing'}; use names "
            "such as train_images, train_labels, test_images, test_labels"
        )
    return keys


def _image_shape(array: _Array, data: config.Data) -> tuple[int, int, int, int]:
    """The shape [N, H, W, C] of an array of images."""
    what, shape = array.what, array.shape
    if array.dtype.newbyteorder("=") != data.dtype and (data.dtype != "float32" or array.dtype.kind not in "buif"):
        known = array.dtype.name if array.dtype.name in WHITE else "float32"
        raise UserError(
            f"{what} is {array.dtype}, but images must be {data.dtype} (config.data.dtype); set it to {known!r}, or "
            f"save them as {data.dtype}"
        )
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4:
        raise UserError(f"{what} has shape {shape}, but images must be [N, H, W, C] or [N, H, W]")
    if 0 in shape[1:]:
        raise UserError(
            f"{what} has shape {shape}, so its images have no pixels; images must be [N, H, W, C] or [N, H, W]"
        )
    if shape[1] in (1, 3) and shape[3] not in (1, 3, 4):
        raise UserError(f"{what} has shape {shape}, channels first; save it as [N, H, W, C] (np.moveaxis(x, 1, -1))")
    if data.channels not in (0, shape[3]):
        raise UserError(
            f"{what} has images of {counted(shape[3], 'channel')}, but config.data.channels={data.channels}"
        )
    return shape


def _labels(path: Path, array: _Array) -> np.ndarray:
    shape = array.shape[:1] if len(array.shape) == 2 and array.shape[1] == 1 else array.shape
    if not (1 <= len(shape) <= 2 or (len(shape) == 3 and array.dtype.kind in "iu")) or array.dtype.kind not in "iufb":
        raise UserError(
            f"{array.what} is {array.dtype} of shape {shape}, but labels must be class numbers: integers [N], counted "
            "from 0; columns of numbers [N, K], for config.task.name='multilabel' or 'regression'; or integers "
            "[N, H, W] for 'segmentation'"
        )
    return _load(path, array).reshape(shape)


def _group_key(
    split: str, keys: dict[str, tuple[str, str]], members: dict[str, zipfile.ZipInfo], group: str, title: str
) -> str:
    """The key of the array with the groups of a base split."""
    known = [form for name in _SPLIT_NAMES[split] for form in (f"{name}_{group}", f"{group}_{name}")]
    known += [group] if len(keys) == 1 else []
    if found := next((key for key in known if key in members), None):
        return found
    raise UserError(
        f"config.data.group={group!r}: {title} has no array {known[0]!r} that names the group of each image of {split}"
    )


def _groups(path: Path, array: _Array) -> Groups:
    shape = array.shape[:1] if len(array.shape) == 2 and array.shape[1] == 1 else array.shape
    if len(shape) != 1 or array.dtype.kind not in "iuUS":
        raise UserError(f"{array.what} is {array.dtype} of shape {shape}, but groups must be text or integers [N]")
    return groups.as_names(_load(path, array).reshape(shape), array.what)


def _names(path: Path, array: _Array) -> tuple[str, ...]:
    values = _load(path, array).ravel().tolist()
    if not values:
        raise UserError(f"{array.what} contains no names; leave it out, or name every class")
    return tuple(each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in values)
