"""Sets of TensorFlow Datasets: read from the prepared files without TensorFlow, prepared first where they are not."""

import dataclasses
import difflib
import json
import os
import re
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn import config
from jaxcnn.config import UserError
from jaxcnn.data import cache
from jaxcnn.data.encoded import Encoded, open_encoded
from jaxcnn.data.examples import Examples, Source
from jaxcnn.data.tensorflow import import_tensorflow
from jaxcnn.data.tfrecord import Damaged, ShardFiles, find_features, index_shard

_NAME = re.compile(r"(?P<name>[A-Za-z]\w*)(?:/(?P<config>[A-Za-z_][\w.+-]*))?(?:[:/](?P<version>\d+\.\d+\.\d+))?")
_CONNECT_SECONDS = 5.0
_OFFLINE = "or train without a network on config.data.source= digits, synthetic, npz:<path> or folder:<path>"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclasses.dataclass(frozen=True)
class _Set:
    """A prepared set, as its `dataset_info.json` and `features.json` tell it."""

    title: str
    folder: Path
    image_key: str
    label_key: str
    shape: tuple[int, int] | None
    channels: int
    class_names: tuple[str, ...]
    file_format: str
    shards: dict[str, list[tuple[Path, int]]]  # of each split: file, and how many records it promises


def open_tfds(argument: str, data: config.Data) -> Source:
    """A set of TensorFlow Datasets: `name`, `name:version`, `name/config` or `name/config:version`.

    It is looked for under `data.dir` (or `$TFDS_DATA_DIR`, or ~/tensorflow_datasets); of several versions the newest
    counts. A set that is not there is downloaded and prepared by one process while the others wait. Examples are in
    the order of the records, shards sorted by name.

    Raises:
      UserError: unknown set, no network, failed preparation, damaged files, or no image classification set.
    """
    match = _NAME.fullmatch(argument)
    if not match:
        raise UserError(
            f"config.data.source='tfds:{argument}': write tfds:<name>, with /<config> and :<version> if need be"
        )
    data_dir = Path(data.dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    if "://" in str(data.dir):
        raise UserError(f"config.data.dir={data.dir!r} must be a folder of this machine")
    folder = _prepared_folder(data_dir, match)
    if folder is None:
        with cache.lock(data_dir / f".{match['name']}.lock"):
            folder = _prepared_folder(data_dir, match)  # another process may have prepared it by now
            if folder is None:
                _prepare(argument, data_dir)
                folder = _prepared_folder(data_dir, match)
    if folder is None:
        raise UserError(f"tfds:{argument} was prepared, but is not under {data_dir}; {_command(argument, data_dir)}")
    described = _describe(argument, folder)

    def open_split(split: str) -> Examples:
        return open_encoded(_open_records(described, split), data)

    return Source(described.title, described.class_names, tuple(described.shards), open_split)


def _prepared_folder(data_dir: Path, wanted: re.Match) -> Path | None:
    """`<data_dir>/<name>[/<config>]/<version>` of the set on disk, or None."""
    root = data_dir / wanted["name"]
    if wanted["config"]:
        root = root / wanted["config"]
    elif root.is_dir() and not _versions(root):
        configs = sorted(each.name for each in root.iterdir() if each.is_dir() and _versions(each))
        try:
            default = json.loads((root / ".config" / "metadata.json").read_text())["default_config_name"]
        except (OSError, ValueError, KeyError):
            default = configs[0] if len(configs) == 1 else ""
        root = root / default if default in configs else root
    versions = _versions(root)
    if wanted["version"]:
        versions = [version for version in versions if version == wanted["version"]]
    if not versions:
        return None
    folder = root / versions[-1]
    for name in ("dataset_info.json", "features.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is half-prepared: {name} is missing; {_again(wanted[0], data_dir, folder)}")
    return folder


def _versions(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    found = [each.name for each in root.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", each.name) and each.is_dir()]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def _command(argument: str, data_dir: Path) -> str:
    return f"prepare it with `tfds build {argument} --data_dir={data_dir}`"


def _again(argument: str, data_dir: Path, folder: Path) -> str:
    return f"remove that folder ({folder}) and {_command(argument, data_dir)}"


def _prepare(argument: str, data_dir: Path) -> None:
    """Download and prepare a set. Every way in which that fails is a UserError of one line."""
    try:
        import_tensorflow()
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"tfds:{argument} is not under {data_dir}, and tensorflow_datasets cannot be imported to prepare it: {error}"
        ) from None
    failed = f"tfds:{argument} is not prepared under {data_dir}"
    try:
        builder = tfds.builder(argument, data_dir=str(data_dir))
    except tfds.core.DatasetNotFoundError:
        name = re.split("[/:]", argument)[0]
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"; did you mean tfds:{near[0]}?" if near else ""
        raise UserError(f"{failed}, and TensorFlow Datasets knows no set {name!r}{hint}") from None
    except Exception as error:
        raise UserError(f"{failed}: {_first_line(error)}") from None
    hosts = {urllib.parse.urlparse(url).hostname for url in (builder.url_infos or {})} - {None}
    if hosts and not urllib.request.getproxies() and not _any_reachable(sorted(str(host) for host in hosts)):
        raise UserError(
            f"{failed}, and there is no network to {' or '.join(sorted(str(host) for host in hosts)[:2])}; "
            f"{_command(argument, data_dir)} where there is one, {_OFFLINE}"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise UserError(
            f"{failed}, and preparing it failed: {_first_line(error)}; {_command(argument, data_dir)}, {_OFFLINE}"
        ) from None


def _any_reachable(hosts: list[str]) -> bool:
    """Whether one of the hosts answers on the port of HTTPS or HTTP within some seconds."""
    answered = threading.Event()

    def attempt(host: str, port: int) -> None:
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_SECONDS):
                answered.set()
        except OSError:
            pass

    # In threads of their own, since looking up a name has no time limit.
    tries = [threading.Thread(target=attempt, args=(h, p), daemon=True) for h in hosts[:4] for p in (443, 80)]
    for each in tries:
        each.start()
    for each in tries:
        each.join(_CONNECT_SECONDS if not answered.is_set() else 0)
    return answered.is_set()


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


def _describe(argument: str, folder: Path) -> _Set:
    """Read the metadata that TFDS keeps beside its files."""
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
        features = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]
        name, file_format = info["name"], info.get("fileFormat", "tfrecord")
        title = ":".join(
            filter(None, ("tfds", "/".join(filter(None, (name, info.get("configName")))), info["version"]))
        )
        image_key, label_key = _feature_keys(info, features, title)
        dimensions = [int(each) for each in features[image_key]["image"].get("shape", {}).get("dimensions", ())]
        shards = {split["name"]: _shards(folder, name, file_format, split) for split in info["splits"]}
        classes = int(features[label_key]["classLabel"]["numClasses"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the metadata of tfds:{argument} in {folder} cannot be understood ({_first_line(error)}); "
            f"prepare it anew with a current tensorflow-datasets"
        ) from None
    if features[image_key]["image"].get("dtype", "uint8") not in ("uint8", "uint16"):
        raise UserError(
            f"{title} has images of {features[image_key]['image']['dtype']}; only uint8 and uint16 can be read"
        )
    if file_format not in ("tfrecord", "array_record"):
        raise UserError(f"{title} is kept as {file_format}; only tfrecord and array_record can be read")
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
    """The features that hold image and label: the supervised pair, else the only one of each type."""
    pair = [item.get("featureKey", "") for item in info.get("supervisedKeys", {}).get("tuple", {}).get("items", ())]
    for candidate in (pair, [_only(features, "image"), _only(features, "classLabel")]):
        if len(candidate) == 2:
            image, label = (features.get(key, {}) for key in candidate)
            if "image" in image and "classLabel" in label:
                return candidate[0], candidate[1]
    raise UserError(
        f"{title} is no image classification set with one image and one label; it has: {', '.join(features)}"
    )


def _only(features: dict[str, Any], kind: str) -> str:
    found = [key for key, feature in features.items() if kind in feature]
    return found[0] if len(found) == 1 else ""


def _class_names(path: Path, classes: int) -> tuple[str, ...]:
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        names = []
    return tuple(names) if len(names) == classes else tuple(str(number) for number in range(classes))


def _shards(folder: Path, name: str, file_format: str, split: dict[str, Any]) -> list[tuple[Path, int]]:
    lengths = [int(length) for length in split.get("shardLengths", ())]
    template = split.get("filepathTemplate") or _TEMPLATE
    return [
        (
            folder
            / template.format(
                DATASET=name,
                SPLIT=split["name"],
                FILEFORMAT=file_format,
                SHARD_INDEX=f"{number:05d}",
                NUM_SHARDS=f"{len(lengths):05d}",
                SHARD_X_OF_Y=f"{number:05d}-of-{len(lengths):05d}",
            ),
            length,
        )
        for number, length in enumerate(lengths)
    ]


def _open_records(described: _Set, split: str) -> Encoded:
    """The records of one split, by an index that is made once and kept in the cache folder."""
    shards = described.shards[split]
    again = _again(described.title.removeprefix("tfds:"), described.folder.parents[_depth(described)], described.folder)
    try:
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path, _ in shards]
    except OSError as error:
        raise UserError(f"{described.folder} is half-prepared: {error.filename} is missing; {again}") from None
    key = cache.fingerprint((str(described.folder), described.image_key, described.label_key, *states))
    index_of = index_shard if described.file_format == "tfrecord" else _index_array_record

    def build() -> dict[str, np.ndarray]:
        parts = []
        for number, (path, promised) in enumerate(shards):
            try:
                rows = index_of(path, described.image_key, described.label_key)
                if len(rows) != promised:
                    raise Damaged(f"it has {len(rows)} records, not {promised}")
            except (Damaged, OSError) as error:
                raise UserError(f"{path} is damaged: {error}; {again}") from None
            parts.append(np.insert(rows, 0, number, axis=1))
        return {"rows": np.concatenate(parts) if parts else np.empty((0, 4), np.int64)}

    rows = cache.cached_arrays(cache.cache_dir() / f"records-{key}.npz", build)["rows"]
    paths = [path for path, _ in shards]
    files = ShardFiles(paths) if described.file_format == "tfrecord" else _ArrayRecordFiles(paths, described)
    firsts = np.searchsorted(rows[:, 0], np.arange(len(paths)))

    def name(index: int) -> str:
        shard = int(rows[index, 0])
        return f"{paths[shard]} record {index - int(firsts[shard])}"

    return Encoded(
        title=f"{described.title} {split}",
        labels=rows[:, 3].astype(np.int32),
        channels=described.channels,
        shape=described.shape,
        name=name,
        load=lambda index: files.read(*(int(value) for value in rows[index, :3])),
        fingerprint=lambda: key,
    )


def _depth(described: _Set) -> int:
    """How many folders the version folder lies under the data_dir, less one."""
    return described.title.count("/") + 1


def _index_array_record(path: Path, image_key: str, label_key: str) -> np.ndarray:
    """As `index_shard`, for an ArrayRecord file: int64 [records, 3] of record number, 0, label."""
    rows = []
    reader = _array_record_reader(path)
    try:
        for number in range(reader.num_records()):
            (record,) = reader.read([number])
            *_, label = find_features(lambda at, n, r=record: r[at : at + n], 0, len(record), image_key, label_key)
            rows.append((number, 0, label))
    finally:
        reader.close()
    return np.array(rows, np.int64).reshape(-1, 3)


class _ArrayRecordFiles:
    """The counterpart of `ShardFiles` for ArrayRecord files, which read a record by its number."""

    def __init__(self, paths: list[Path], described: _Set):
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._paths, self._keys = paths, (described.image_key, described.label_key)

    def read(self, shard: int, number: int, _length: int) -> bytes:
        """The encoded image of one record. Raises OSError."""
        with self._lock:
            if shard not in self._readers:
                self._readers[shard] = _array_record_reader(self._paths[shard])
            (record,) = self._readers[shard].read([number])
        try:
            start, length, _ = find_features(lambda at, n: record[at : at + n], 0, len(record), *self._keys)
        except Damaged as error:
            raise OSError(f"the record {error}") from None
        return record[start : start + length]


def _array_record_reader(path: Path) -> Any:
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError:
        raise UserError(f"{path} needs the package array_record to be read; pip install array_record") from None
    try:
        return ArrayRecordReader(str(path))
    except Exception as error:
        raise OSError(_first_line(error)) from None
