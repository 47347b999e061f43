"""TensorFlow Datasets sets, read from their prepared files without TensorFlow; prepared first if needed."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import cache
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
    shards: dict[str, list[tuple[Path, int]]]  # per split: each file and its number of records


def open_tfds(argument: str, data: config.Data) -> Source:
    """A TensorFlow Datasets set: `name`, `name:version`, `name/config` or `name/config:version`.

    It is prepared first if needed (see `prepared_set`). Examples are in the order of the records, shard after shard.

    Raises:
      UserError: unknown set, no network, failed preparation, damaged files, or not an image classification set.
    """
    described = _describe(argument, prepared_set(argument, data))

    def open_split(split: str) -> Examples:
        return open_encoded(_open_records(described, split), data)

    return Source(described.title, described.class_names, tuple(described.shards), open_split)


def _describe(argument: str, folder: Path) -> _Set:
    """Read the metadata that TFDS stores beside its files."""
    try:
        info = json_text.parse((folder / "dataset_info.json").read_text())
        features = json_text.parse((folder / "features.json").read_text())["featuresDict"]["features"]
        name, file_format = info["name"], info.get("fileFormat", "tfrecord")
        title = ":".join(
            filter(None, ("tfds", "/".join(filter(None, (name, info.get("configName")))), info["version"]))
        )
        image_key, label_key = _feature_keys(info, features, title)
        dimensions = [int(each) for each in features[image_key]["image"].get("shape", {}).get("dimensions", ())]
        shards = {split["name"]: _shards(folder, name, file_format, split) for split in info["splits"]}
        classes = int(features[label_key]["classLabel"]["numClasses"])
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
        class_names=_class_names(folder / f"{label_key}.labels.txt", classes),
        file_format=file_format,
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
    raise UserError(
        f"{title} is not an image classification set with one image and one label; it has: {', '.join(features)}"
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


def _open_records(described: _Set, split: str) -> Encoded:
    """The records of one split, located by an index that is built once and kept in the cache folder."""
    shards = described.shards[split]
    again = prepare_again(described.folder)
    try:
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path, _ in shards]
    except OSError as error:
        raise UserError(f"{described.folder} is only partly prepared: {error.filename} is missing; {again}") from None
    keys = (described.image_key, described.label_key)
    # "lengths" is part of the key because the first version of indexes of ArrayRecord files had no lengths.
    with_lengths = () if described.file_format == "tfrecord" else ("lengths",)
    key = cache.fingerprint((str(described.folder), *keys, *states, *with_lengths))
    index_of = index_shard if described.file_format == "tfrecord" else index_array_record

    def build() -> dict[str, np.ndarray]:
        parts = []
        for number, (path, promised) in enumerate(shards):
            try:
                rows = index_of(path, *keys)
                if len(rows) != promised:
                    raise Damaged(f"it has {len(rows)} records, not {promised}")
            except (Damaged, OSError) as error:
                raise UserError(f"{path} is damaged: {error}; {again}") from None
            parts.append(np.insert(rows, 0, number, axis=1))
        return {"rows": np.concatenate(parts) if parts else np.empty((0, 4), np.int64)}

    rows = cache.cached_arrays(cache_folder() / f"records-{key}.npz", build)["rows"]
    paths = [path for path, _ in shards]
    files = ShardFiles(paths) if described.file_format == "tfrecord" else ArrayRecordFiles(paths, *keys)
    firsts = np.searchsorted(rows[:, 0], np.arange(len(paths)))

    def name(index: int) -> str:
        shard = int(rows[index, 0])
        return f"{paths[shard]} record {index - int(firsts[shard])}"

    def load(index: int) -> bytes:
        shard, offset, length, _ = rows[index].tolist()
        return files.read(shard, offset, length)

    return Encoded(
        title=f"{described.title} {split}",
        labels=rows[:, 3].astype(np.int32),
        channels=described.channels,
        shape=described.shape,
        name=name,
        load=load,
        fingerprint=lambda: key,
        sizes=lambda: rows[:, 2],
    )
