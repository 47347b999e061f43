"""TensorFlow Datasets sets, read from their prepared files without TensorFlow; prepared first if needed."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import cache, tfds_boxes
from jaxcnn.data.array_record import ArrayRecordFiles, index_array_record
from jaxcnn.data.encoded import Encoded, open_encoded
from jaxcnn.data.examples import Examples, Source
from jaxcnn.data.tfds_prepare import prepare_again, prepared_set
from jaxcnn.data.tfrecord import Damaged, ShardFiles, index_shard
from jaxcnn.machine import json_text
from jaxcnn.machine.paths import cache_folder

_MOST_CLASSES = 10**6  # no set has as many; a damaged number would take all memory for the names
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclasses.dataclass(frozen=True)
class _Set:
    """A prepared set, as described by its `dataset_info.json` and `features.json`."""

    title: str
    folder: Path
    image_key: str
    label_key: str
    shape: tuple[int, int] | None
    channels: int
    class_names: tuple[str, ...]
    file_format: str
    crowd_key: str  # of boxes that do not count; empty: none, or a set without boxes
    shards: dict[str, list[tuple[Path, int]]]  # per split: each file and its number of records


def open_tfds(argument: str, data: config.Data, task: config.Task = config.Task()) -> Source:  # noqa: B008  # is frozen
    """A TensorFlow Datasets set: `name`, `name:version`, `name/config` or `name/config:version`.

    It is prepared first if needed (see `prepared_set`). Examples are in the order of the records, shard after shard.
    For detection, the set has the features of `coco` and `voc`: "image" and, in the sequence "objects", "bbox", "label"
    and perhaps "is_crowd" or "is_difficult" and "area".

    Raises:
      UserError: unknown set, no network, failed preparation, damaged files, or not a set for such a task.
    """
    described = _describe(argument, prepared_set(argument, data), task.name)
    boxed = task.name == "detection"

    def open_split(split: str) -> Examples:
        encoded, columns = _open_records(described, split, boxed)
        if boxed:
            return tfds_boxes.examples(encoded, columns, described.class_names, data)
        return open_encoded(encoded, data)

    return Source(described.title, described.class_names, tuple(described.shards), open_split)


def _describe(argument: str, folder: Path, task: str) -> _Set:
    """Read the metadata that TFDS stores beside its files."""
    try:
        info = json_text.parse((folder / "dataset_info.json").read_text())
        features = json_text.parse((folder / "features.json").read_text())["featuresDict"]["features"]
        name, file_format = info["name"], info.get("fileFormat", "tfrecord")
        title = ":".join(
            filter(None, ("tfds", "/".join(filter(None, (name, info.get("configName")))), info["version"]))
        )
        kinds = tfds_boxes.features_of_objects(features) if task == "detection" else features
        if not kinds:
            raise UserError(
                f"{title} has no boxes for config.task.name='detection' (objects/bbox with objects/label); it has: "
                f"{', '.join(features)}"
            )
        keys = ("image", tfds_boxes.LABEL) if task == "detection" else _feature_keys(info, features, title)
        image_key, label_key = keys
        dimensions = [int(each) for each in features[image_key]["image"].get("shape", {}).get("dimensions", ())]
        shards = {split["name"]: _shards(folder, name, file_format, split) for split in info["splits"]}
        classes = int(kinds[label_key]["classLabel"]["numClasses"])
        if not 0 < classes <= _MOST_CLASSES:
            raise ValueError(f"{classes} classes")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"the metadata of tfds:{argument} in {folder} cannot be understood ({type(error).__name__}: {error}); "
            "prepare it again with a current tensorflow-datasets"
        ) from None
    if features[image_key]["image"].get("dtype", "uint8") not in ("uint8", "uint16"):
        raise UserError(
            f"{title} has images of type {features[image_key]['image']['dtype']}; only uint8 and uint16 can be read"
        )
    if file_format not in ("tfrecord", "array_record"):
        raise UserError(f"{title} is stored as {file_format}; only tfrecord and array_record can be read")
    height, width, channels = dimensions if len(dimensions) == 3 else (-1, -1, 3)
    return _Set(
        title=title,
        folder=folder,
        image_key=image_key,
        label_key=label_key,
        shape=(height, width) if height > 0 and width > 0 else None,
        channels=1 if channels == 1 else 3,
        class_names=_class_names(folder / f"{label_key.replace('/', '-')}.labels.txt", classes),
        file_format=file_format,
        crowd_key=next((key for key in tfds_boxes.CROWD if task == "detection" and key in kinds), ""),
        shards=shards,
    )


def _feature_keys(info: dict[str, Any], features: dict[str, Any], title: str) -> tuple[str, str]:
    """The names of the image and label features: the supervised pair, else the only feature of each type."""
    pair = [item.get("featureKey", "") for item in info.get("supervisedKeys", {}).get("tuple", {}).get("items", ())]
    for candidate in (pair, [_only(features, "image"), _only(features, "classLabel")]):
        if len(candidate) == 2:
            image, label = (features.get(key, {}) for key in candidate)
            if "image" in image and "classLabel" in label:
                return candidate[0], candidate[1]
    boxed = "; with its boxes, set config.task.name='detection'" if tfds_boxes.features_of_objects(features) else ""
    raise UserError(
        f"{title} is not an image classification set with one image and one label; it has: {', '.join(features)}{boxed}"
    )


def _only(features: dict[str, Any], kind: str) -> str:
    found = [key for key, feature in features.items() if kind in feature]
    return found[0] if len(found) == 1 else ""


def _class_names(path: Path, classes: int) -> tuple[str, ...]:
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        names = []
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is damaged: it is not text in UTF-8 (byte {error.start}); {prepare_again(path.parent)}"
        ) from None
    return tuple(names) if len(names) == classes else tuple(str(number) for number in range(classes))


def _shards(folder: Path, name: str, file_format: str, split: dict[str, Any]) -> list[tuple[Path, int]]:
    lengths = [int(length) for length in split.get("shardLengths", ())]
    template = split.get("filepathTemplate") or _TEMPLATE
    names = [
        template.format(
            DATASET=name,
            SPLIT=split["name"],
            FILEFORMAT=file_format,
            SHARD_INDEX=f"{number:05d}",
            NUM_SHARDS=f"{len(lengths):05d}",
            SHARD_X_OF_Y=f"{number:05d}-of-{len(lengths):05d}",
        )
        for number in range(len(lengths))
    ]
    for each in names:
        if Path(each).is_absolute() or ".." in Path(each).parts or "\0" in each:
            raise ValueError(f"the file {each!r} is not in that folder")
    return [(folder / each, length) for each, length in zip(names, lengths, strict=True)]


def _open_records(described: _Set, split: str, boxed: bool) -> tuple[Encoded, dict[str, np.ndarray]]:
    """The records of one split, located by an index that is built once and kept in the cache folder.

    If they are `boxed`, their labels are their numbers, and the arrays of `tfds_boxes.index` come with them.
    """
    shards = described.shards[split]
    again = prepare_again(described.folder)
    try:
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path, _ in shards]
    except OSError as error:
        raise UserError(f"{described.folder} is only partly prepared: {error.filename} is missing; {again}") from None
    keys = (described.image_key, "" if boxed else described.label_key)
    # "lengths" is part of the key because the first version of indexes of ArrayRecord files had no lengths.
    with_lengths = () if described.file_format == "tfrecord" else ("lengths",)
    of_boxes = ("boxes", described.crowd_key) if boxed else ()
    key = cache.fingerprint((str(described.folder), *keys, *states, *with_lengths, *of_boxes))
    index_of = index_shard if described.file_format == "tfrecord" else index_array_record

    def build() -> dict[str, np.ndarray]:
        parts, columns = [], []
        for number, (path, promised) in enumerate(shards):
            try:
                rows = index_of(path, *keys)
                if len(rows) != promised:
                    raise Damaged(f"it has {len(rows)} records, not {promised}")
                if boxed:
                    columns.append(tfds_boxes.index(path, described.file_format, described.crowd_key))
            except (Damaged, OSError) as error:
                raise UserError(f"{path} is damaged: {error}; {again}") from None
            parts.append(np.insert(rows, 0, number, axis=1))
        joined = {name: np.concatenate([each[name] for each in columns]) for name in (columns[0] if columns else ())}
        return {"rows": np.concatenate(parts) if parts else np.empty((0, 4), np.int64)} | joined

    arrays = cache.cached_arrays(cache_folder() / f"records-{key}.npz", build)
    rows = arrays["rows"]
    paths = [path for path, _ in shards]
    files = ShardFiles(paths) if described.file_format == "tfrecord" else ArrayRecordFiles(paths, *keys)
    firsts = np.searchsorted(rows[:, 0], np.arange(len(paths)))

    def name(index: int) -> str:
        shard = int(rows[index, 0])
        return f"{paths[shard]} record {index - int(firsts[shard])}"

    def load(index: int) -> bytes:
        shard, offset, length, _ = rows[index].tolist()
        return files.read(shard, offset, length)

    encoded = Encoded(
        title=f"{described.title} {split}",
        labels=np.arange(len(rows), dtype=np.int32) if boxed else rows[:, 3].astype(np.int32),
        channels=described.channels,
        shape=described.shape,
        name=name,
        load=load,
        fingerprint=lambda: key,
        sizes=lambda: rows[:, 2],
    )
    return encoded, arrays
