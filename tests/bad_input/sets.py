"""The sets of data that jaxcnn reads: for each kind, a sound example, and how it is read."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from jaxcnn import config as configs
from jaxcnn.data import decode
from jaxcnn.data.source import open_splits
from tests import test_boxes, test_tfds_source
from tests.bad_input.reader import Maker, Reader


def _source(
    root: pathlib.Path, source: str, *damaged: pathlib.Path, boxes: bool = False, task: Any = None, **fields: Any
) -> Reader:
    """A source of data: it is opened, and some images are read."""
    shape = {"image_size": 16, "resize": "pad" if boxes else "crop", "max_megapixels": 1.0}
    data = configs.Data(source=source, test_split="", protocol="full", **shape, **fields)  # type: ignore[arg-type]
    task = task or (configs.Task(name="detection") if boxes else configs.Task())

    def read() -> None:
        splits = open_splits(data, task)
        splits.fingerprints()
        splits.train.read(np.arange(min(4, len(splits.train))))

    return Reader(damaged or tuple(path for path in sorted(root.rglob("*")) if path.is_file()), read)


def _sets(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    draws = np.random.default_rng(0)
    pixels, labels = draws.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8), np.arange(12) % 3
    npz = folder / "set.npz"
    np.savez_compressed(npz, train_images=pixels, train_labels=labels)
    root = folder / "photos"
    for k, each in enumerate(pixels):
        place = root / "train" / f"class{k % 3}" / f"{k}.{('png', 'jpg')[k % 2]}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each).save(place)
    names = [str(path.relative_to(root)) for path in sorted(root.rglob("*.*g"))]
    table = root / "set.csv"
    table.write_text("image,label\n" + "".join(f"{name},{k % 3}\n" for k, name in enumerate(names)))
    photos = tuple(sorted(root.rglob("*.*g")))
    return [
        _source(folder, f"npz:{npz}", npz),
        _source(root, f"folder:{root}", *photos),
        _source(root, f"csv:{table}", table),
        *(_source(root, f"{form}:{path}", path) for form, path in _tables(root, names)),
    ]


def _tables(root: pathlib.Path, names: list[str]) -> Iterator[tuple[str, pathlib.Path]]:
    """The same manifest in other forms."""
    import pyarrow
    from pyarrow import parquet

    rows = [{"image": name, "label": f"c{k % 3}"} for k, name in enumerate(names)]
    lines, table = root / "set.jsonl", root / "set.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    yield "csv", lines
    yield "csv", table


def _records(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    """Sets of TensorFlow Datasets, prepared as TFRecord and as ArrayRecord."""
    from array_record.python import array_record_module

    written = test_tfds_source.make_set(folder / "tfrecord", train=(5, 4), test=(3,))
    made = test_tfds_source.make_set(folder / "array_record", train=(5, 4), test=(3,))
    info = json.loads((made / "dataset_info.json").read_text())
    (made / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "array_record"}))
    for path in sorted(made.glob("*.tfrecord-*")):
        writer = array_record_module.ArrayRecordWriter(
            str(path).replace(".tfrecord-", ".array_record-"), "group_size:1"
        )
        for record in _payloads(path.read_bytes()):
            writer.write(record)
        writer.close()
        path.unlink()
    found = []
    for place in (written, made):
        found.append(_source(place, "tfds:pets", dir=str(folder / place.parents[1].name)))
    return found


def _payloads(content: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file."""
    while content:
        length = int.from_bytes(content[:8], "little")
        yield content[12 : 12 + length]
        content = content[16 + length :]


def _maps(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    """Images with a map of the classes of their pixels."""
    root, draws = folder / "masks", np.random.default_rng(2)
    for split, number in (("train", 6), ("test", 2)):
        for part, shape in (("images", (16, 16, 3)), ("masks", (16, 16))):
            place = root / split / part
            place.mkdir(parents=True)
            for k in range(number):
                Image.fromarray(draws.integers(0, 3 if part == "masks" else 256, shape, np.uint8)).save(
                    place / f"{k}.png"
                )
    return [_source(root, f"masks:{root}", task=configs.Task(name="segmentation"))]


def _boxes(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    found = []
    for name in ("coco", "yolo", "voc"):
        place = folder / name
        place.mkdir()
        getattr(test_boxes, name)(place)
        found.append(_source(place, f"{name}:{place}", boxes=True))
    return found


def _pictures(folder: pathlib.Path, more: pathlib.Path | None) -> list[Reader]:
    own = folder / "images"
    own.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    for kind in ("png", "jpg", "gif", "bmp", "tiff", "webp"):
        Image.fromarray(pixels).save(own / f"a.{kind}")
    for path in sorted(more.iterdir()) if more else []:
        if path.is_file() and path.stat().st_size < 2_000_000:
            (own / path.name).write_bytes(path.read_bytes())
    there = tuple(sorted(own.iterdir()))
    sizes = {path: path.stat().st_mtime_ns for path in there}

    def read() -> None:
        """Decode what was changed last, which is the damaged one."""
        changed = [path for path in there if path.stat().st_mtime_ns != sizes[path]]
        path = changed[0] if changed else own / "a.png"
        decode.decode(path.read_bytes(), 16, 3, max_megapixels=4.0)

    return [Reader(there, read, share=4.0)]


MAKERS: dict[tuple[str, ...], Maker] = {
    ("images",): _pictures,
    ("npz set", "folder of images", "manifest", "manifest (JSON lines)", "manifest (Parquet)"): _sets,
    ("COCO", "YOLO", "VOC"): _boxes,
    ("TFRecord", "ArrayRecord"): _records,
    ("masks",): _maps,
}
