"""Arrays given by the program that calls jaxcnn: the source "arrays:<fingerprint>".

`give` checks arrays and makes them known in this process for as long as the returned object lives. The fingerprint
identifies their content, so the config of a run says which arrays it was made from, but a later process has to give
them again.
"""

import dataclasses
import functools
import hashlib
import types
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

import jaxcnn.config as config
from jaxcnn.config import UserError, places
from jaxcnn.data import boxes, checked, content, given_objects, groups
from jaxcnn.data.arrays import array_examples
from jaxcnn.data.examples import WHITE, Content, Examples, Groups, Pixels, Source
from jaxcnn.data.labels import are_lists, in_order, is_column_of_names
from jaxcnn.tasks.box_records import numbers_as_names

KIND = "arrays"
_CLASSIFICATION = config.Task()
_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_CLASSES = "class_names"
_FORMS = "a pair (images, labels), or a mapping such as {'train': (images, labels), 'test': (images, labels)}"


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One base split.

    Attributes:
      images, labels: as given; labels of objects are records (`jaxcnn.tasks.box_records`) without masks, not checked.
      content: the checksums of the images.
      columns: the names of the groups of images by column.
      objects: the objects of each image, from which the records of a task are made; empty for other labels.
    """

    images: Pixels
    labels: Shaped[np.ndarray, "n ..."]
    content: Content
    columns: Mapping[str, Groups] = dataclasses.field(default_factory=dict)
    objects: Sequence[boxes.Objects] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Checked arrays by base split ("train", "val", "test"), the names of their classes, and `column` of `of_task`."""

    parts: Mapping[str, Part]
    class_names: tuple[str, ...]
    column: int = 0

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that differ for other images, labels or names."""
        digest = hashlib.blake2b(repr(self.class_names).encode(), digest_size=8)
        for name, part in sorted(self.parts.items()):
            of_labels = f"{part.labels.dtype.str} {part.labels.shape}"
            digest.update(f"{name} {part.images.dtype.str} {part.images.shape} {part.content.fingerprint} ".encode())
            digest.update(of_labels.encode() + np.ascontiguousarray(part.labels).tobytes())
            if _have_masks(part):
                digest.update(repr([each.outlines for each in part.objects]).encode())
            for column, names in sorted(part.columns.items()):
                digest.update(repr((column, names.tolist())).encode())
        return digest.hexdigest()

    @property
    def source(self) -> str:
        """The value of `config.data.source` that means these arrays."""
        return f"{KIND}:{self.fingerprint}"


_given: "weakref.WeakValueDictionary[str, Arrays]" = weakref.WeakValueDictionary()


def give(data: Any) -> Arrays:
    """`check` arrays and make them known in this process while the result is alive."""
    arrays = check(data)
    know(arrays)
    return arrays


def check(data: Any) -> Arrays:
    """Check arrays and return them.

    Args:
      data: (images, labels) for training, or a mapping of "train", "val" and "test" to such pairs, with "class_names"
        if wanted. Images are uint8, uint16 or floats [N, H, W, C] or [N, H, W]; labels are class numbers [N], counted
        from 0, or class names [N] or [N, 1]; for several labels, lists of names or columns of 0 and 1 [N, K]; columns
        of numbers [N, K] for regression; integers [N, H, W] for segmentation; or, for objects, a list of mappings
        (`given_objects.of_mappings`). NumPy, JAX and PyTorch arrays are accepted. A third part {name: values}, text or
        integers [N], has the groups of images for `config.data.group`.

    Raises:
      UserError: something else was given.
    """
    pairs, names = _pairs(data)
    images = {name: _images(pair[0], f"data[{name!r}] images") for name, pair in pairs.items()}
    objects: dict[str, list[boxes.Objects]] = {}
    if all(_are_boxes(pair[1]) for pair in pairs.values()):
        objects = {
            name: given_objects.of_mappings(pair[1], images[name], f"data[{name!r}]") for name, pair in pairs.items()
        }
        with np.errstate(over="ignore"):  # of a box that is too large, and not checked yet
            labels = {name: boxes.records(each, np.tile(boxes.WHOLE, (len(each), 1))) for name, each in objects.items()}
        names = () if names is None else tuple(map(str, names))
    else:
        labels, names = _labels({name: pair[1] for name, pair in pairs.items()}, names)
    for name, array in images.items():
        if len(array) != len(labels[name]):
            raise UserError(f"data[{name!r}] has {len(array)} images, but {len(labels[name])} labels")
    columns = {name: _columns(*pair[2:], split=name, count=len(images[name])) for name, pair in pairs.items()}
    return Arrays(
        {
            name: Part(array, labels[name], content.of_array(array), columns[name], objects.get(name, ()))
            for name, array in images.items()
        },
        names,
        len(names) if all(is_column_of_names(pair[1]) for pair in pairs.values()) else 0,
    )


def _columns(given: Any = types.MappingProxyType({}), *, split: str, count: int) -> dict[str, Groups]:
    if not isinstance(given, Mapping):
        raise UserError(f"the third part of data[{split!r}] must be a mapping {{name: values [N]}}, not {_kind(given)}")
    columns = {}
    for name, values in given.items():
        what = f"data[{split!r}] column {name!r}"
        columns[str(name)] = groups.as_names(as_array(values, what), what)
        if len(columns[str(name)]) != count:
            raise UserError(f"{what} has {len(columns[str(name)])} values, but there are {count} images")
    return columns


def _are_boxes(labels: Any) -> bool:
    """Whether labels have one mapping for each image, as for detection."""
    return isinstance(labels, list | tuple) and len(labels) > 0 and all(isinstance(each, Mapping) for each in labels)


def _are_maps(labels: np.ndarray) -> bool:
    """Whether labels have a class for each pixel, as for segmentation."""
    return labels.ndim == 3 and labels.dtype.kind in "iu"


def know(arrays: Arrays) -> None:
    """Make these arrays known in this process again; they replace equal ones."""
    _given[arrays.fingerprint] = arrays


def open_arrays(argument: str, data: config.Data, task: config.Task = _CLASSIFICATION) -> Source:
    """The arrays of a fingerprint, given to this process by `give`.

    Raises:
      UserError: the arrays were not given.
    """
    arrays = _given.get(argument)
    if arrays is None:
        raise UserError(
            f"config.data.source='{KIND}:{argument}': this run was made from arrays of a Python program, which only "
            "Python can give again: jaxcnn.train(config, workdir, data=(images, labels)), and data= of run.evaluate"
        )

    return as_source(arrays, KIND, data, task)


def as_source(arrays: Arrays, title: str, data: config.Data, task: config.Task = _CLASSIFICATION) -> Source:
    """The source that reads from these arrays; objects have masks only for the task "instances"."""

    def open_split(name: str) -> Examples:
        part = arrays.parts[name]
        labels, bad = of_task(part.labels, task.name, arrays.column), list[str]()
        if part.objects:
            height, width = part.images.shape[1:3]
            if data.image_size and data.resize == "crop" and (height, width) != (data.image_size, data.image_size):
                raise UserError("config.data.resize='crop' would cut boxes off; set it to 'pad' (or 'stretch')")
            side = task.mask_side if task.name == places.INSTANCES and _have_masks(part) else 0
            names = arrays.class_names or numbers_as_names(of_all, title)
            labels, bad = given_objects.records(part.objects, (height, width), f"data[{name!r}]", names, data, side)
            labels = boxes.refitted(labels, height, width, data.image_size, data.resize)
        examples = array_examples(part.images, labels, data)
        notes = [checked.left_out(f"data[{name!r}]", bad)] if bad else []
        return dataclasses.replace(
            examples,
            content=lambda: part.content,
            groups=part.columns.get(data.group) if data.group else None,
            notes=(*examples.notes, *notes),
            problems=tuple(bad),
        )

    of_all = tuple(of_task(part.labels, task.name, arrays.column) for part in arrays.parts.values())
    return Source(title, arrays.class_names, tuple(arrays.parts), open_split, labels=of_all)


def _have_masks(part: Part) -> bool:
    return any(each.outlines for each in part.objects)


def _pairs(data: Any) -> tuple[dict[str, tuple[Any, ...]], Sequence[str] | None]:
    """The pairs of images and labels by base split, and the class names if given."""
    if not isinstance(data, Mapping):
        data = {"train": data}
    names = data.get(_CLASSES)
    pairs: dict[str, tuple[Any, ...]] = {}
    for key, pair in data.items():
        if key == _CLASSES:
            continue
        if key not in _NAMES:
            raise UserError(f"data has the key {key!r}; it may have train, val, test and {_CLASSES}")
        if not isinstance(pair, tuple | list) or len(pair) not in (2, 3):
            raise UserError(f"data[{key!r}] must be a pair (images, labels), not {_kind(pair)}")
        pairs[_NAMES[key]] = tuple(pair)
    if "train" not in pairs:
        raise UserError(f"data has no 'train'; give {_FORMS}")
    return pairs, names


def _images(value: Any, what: str) -> Pixels:
    images = as_array(value, what)
    if images.dtype == object:
        raise UserError(f"{what} must be one array; these differ in shape, or are not numbers")
    if images.dtype.kind == "f" and images.dtype != np.float32:
        images = images.astype(np.float32)
    if images.dtype.name not in WHITE:
        raise UserError(f"{what} are {images.dtype}, but must be uint8, uint16 or floats{hint_for(images)}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(f"{what} have shape {images.shape}; images must be [N, H, W, C] or [N, H, W]")
    if images.shape[1] in (1, 3) and images.shape[3] not in (1, 3, 4):
        raise UserError(
            f"{what} have shape {images.shape}, channels first; give them as [N, H, W, C] (np.moveaxis(x, 1, -1))"
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise UserError(f"{what} contain NaN or infinite values; replace them")
    return images


def _labels(
    given: Mapping[str, Any], names: Sequence[str] | None
) -> tuple[dict[str, Shaped[np.ndarray, "n ..."]], tuple[str, ...]]:
    """Numbers [N] or [N, K] by base split, and the names of classes or columns; no names if none are known."""
    if all(are_lists(value) for value in given.values()):
        return _of_lists(given, names)
    labels = {name: as_array(value, f"data[{name!r}] labels") for name, value in given.items()}
    for name, array in labels.items():
        if not (array.ndim in (1, 2) or _are_maps(array)) or array.dtype.kind not in "iufbUSO":
            raise UserError(
                f"data[{name!r}] labels are {array.dtype} of shape {array.shape}, but must be class numbers, counted "
                "from 0, or class names: [N]; columns of numbers: [N, K]; or, for segmentation, integers [N, H, W]"
            )
    if all(array.dtype.kind in "iufb" for array in labels.values()):
        return labels, () if names is None else tuple(map(str, names))
    texts = {name: _texts(array, name) for name, array in labels.items()}
    found = tuple(map(str, names)) if names is not None else tuple(sorted(set().union(*map(set, texts.values()))))
    number_of = {text: number for number, text in enumerate(found)}
    for name, row in texts.items():
        if unknown := [text for text in row if text not in number_of]:
            raise UserError(f"data[{name!r}] has the label {unknown[0]!r}, which is not in {_CLASSES}")
    return {name: np.array([number_of[text] for text in row], np.int32) for name, row in texts.items()}, found


def _of_lists(
    given: Mapping[str, Any], names: Sequence[str] | None
) -> tuple[dict[str, UInt8[np.ndarray, "n k"]], tuple[str, ...]]:
    """Columns of 0 and 1, and their names, from lists of names by base split."""
    found = (
        tuple(map(str, names))
        if names is not None
        else tuple(in_order({n for v in given.values() for r in v for n in r}))
    )
    labels = {}
    for split, rows in given.items():
        labels[split] = np.zeros((len(rows), len(found)), np.uint8)
        for row, of_row in enumerate(rows):
            if unknown := [name for name in of_row if name not in found]:
                raise UserError(f"data[{split!r}] has the label {unknown[0]!r}, which is not in {_CLASSES}")
            labels[split][row, [found.index(name) for name in of_row]] = 1
    return labels, found


def of_task(labels: Shaped[np.ndarray, "n ..."], task: str, column: int = 0) -> Shaped[np.ndarray, "n ..."]:
    """Labels as a task takes them: a single column is one label of several, and otherwise the label itself.

    If the labels come from a column of names, `column` is the number of names, each of which is one label of several.
    """
    if column and task == "multilabel":
        return np.eye(column, dtype=np.uint8)[labels]
    single = labels.ndim == 2 and labels.shape[1] == 1 and task != "multilabel"
    return labels[:, 0] if single else labels


def labels_of(value: Any, class_names: tuple[str, ...], count: int) -> Shaped[np.ndarray, "n ..."]:
    """The labels of `count` examples as numbers, from numbers or from names of these classes.

    Raises:
      UserError: the labels are something else.
    """
    labels = _labels({"given": value}, class_names)[0]["given"]
    if len(labels) != count:
        raise UserError(f"there are {count} images, but {len(labels)} labels")
    return labels


def _texts(array: np.ndarray, name: str) -> list[str]:
    texts = [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in array.ravel().tolist()]
    if wrong := [each for each in texts if not isinstance(each, str)]:
        raise UserError(f"data[{name!r}] has the label {wrong[0]!r}; give all labels as numbers, or all as names")
    return texts


def as_array(value: Any, what: str) -> np.ndarray:
    """A NumPy array from something like an array.

    Raises:
      UserError: it is none.
    """
    try:
        return np.asarray(value)
    except Exception as error:  # other libraries raise errors of any type, such as for a tensor on a GPU
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"{what} cannot be taken as an array ({type(error).__name__}: {reason})") from None


def hint_for(images: np.ndarray) -> str:
    """Advice on images of another type than uint8."""
    if images.dtype.kind == "f" and images.size and images.min() >= 0 and images.max() <= 1:
        return "; convert them by (255 * images).round().astype('uint8')"
    if images.dtype.kind in "iufb":
        return "; scale them to that range, then images.astype('uint8')"
    return ""


def _kind(value: Any) -> str:
    return f"an array of shape {value.shape}" if hasattr(value, "shape") else type(value).__name__
