"""What a user gives beside a set: images to leave out, votes, outlines of objects."""

import pathlib
from typing import Any

import numpy as np

from jaxcnn import config as configs
from jaxcnn.data.source import open_splits
from jaxcnn.tasks import run_length
from jaxcnn.train import robustness
from tests import test_instances
from tests.bad_input.mutations import STRUCTURE
from tests.bad_input.reader import Maker, Reader


def _of_robustness(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    """What `jaxcnn.robustness` is given: a list of images to leave out, and votes."""
    data = configs.Data(source="synthetic:4x4x1:3:20", protocol="full", test_split="test")
    split = open_splits(data, configs.Task()).test
    assert split is not None and isinstance(split.targets, np.ndarray)
    left, votes = folder / "left.csv", folder / "votes.npy"
    left.write_text("index,why\n" + "".join(f"{k},blurred\n" for k in range(0, len(split), 3)))
    np.save(votes, np.eye(3)[split.targets] * 9 + 1)
    return [
        Reader((left,), lambda: robustness.kept(len(split), left, 0)),
        Reader((votes,), lambda: robustness.read_votes(votes, split)),
    ]


def _outlines(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    """Objects with polygons and run lengths, as bytes and as JSON with other values."""
    ring = test_instances.ring()
    polygon = [[40.0, 2.0, 50.0, 2.0, 50.0, 12.0, 40.0, 12.0]]
    annotations: list[dict[str, Any]] = [
        {"bbox": [40, 2, 10, 10], "segmentation": polygon},
        {"bbox": [10, 5, 21, 20], "segmentation": run_length.encode(ring), "iscrowd": 1},
    ]
    readers = []
    for name, how in (("bytes", {}), ("values", {"how": STRUCTURE})):
        place = folder / f"outlines-{name}"
        source = test_instances.coco(place, annotations)

        def read(source: str = source) -> None:
            splits = open_splits(test_instances.data(source), test_instances.TASK)
            splits.train.read(np.arange(1))

        readers.append(Reader((place / "instances_train.json",), read, **how))  # type: ignore[arg-type]
    return readers


MAKERS: dict[tuple[str, ...], Maker] = {
    ("images to leave out", "votes"): _of_robustness,
    ("outlines of objects", "outlines of objects (values)"): _outlines,
}
