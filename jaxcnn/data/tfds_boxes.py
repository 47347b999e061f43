"""Boxes in the records of TensorFlow Datasets, in the features that its sets `coco` and `voc` have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import annotated, boxes
from jaxcnn.data.array_record import of_array_records
from jaxcnn.data.boxes import Objects
from jaxcnn.data.checked import Picture
from jaxcnn.data.encoded import Encoded, sizes_of
from jaxcnn.data.examples import Examples
from jaxcnn.data.tfrecord import Damaged, find_numbers, of_records

BOX, LABEL, AREA = "objects/bbox", "objects/label", "objects/area"
CROWD = ("objects/is_crowd", "objects/is_difficult")  # of COCO and of Pascal VOC: neither learnt nor measured


def features_of_objects(features: Mapping[str, Any]) -> dict[str, Any]:
    """The features of each object by name, such as "objects/bbox"; empty if there are no boxes with classes."""
    inner = features.get("objects", {}).get("sequence", {}).get("feature", {}).get("featuresDict", {})
    found = {f"objects/{name}": feature for name, feature in inner.get("features", {}).items()}
    return found if BOX in found and "classLabel" in found.get(LABEL, {}) and "image" in features else {}


def index(path: Path, file_format: str, crowd_key: str) -> dict[str, np.ndarray]:
    """The objects of the records of a file.

    Returns:
      "counts" [n], of each record; "boxes" [m, 4] (top, left, bottom, right as shares of the sides), "labels" [m],
      "crowd" [m] and "areas" [m] (0 where a record has none) of all objects, record after record.

    Raises:
      Damaged, OSError: as `tfrecord.index_shard`.
    """
    keys = (BOX, LABEL, AREA, crowd_key)

    def look(get: Any, start: int, end: int) -> np.ndarray:
        box, label, area, crowd = find_numbers(get, start, end, keys)
        count = len(label)
        if len(box) != 4 * count or any(len(each) not in (0, count) for each in (area, crowd)):
            raise Damaged(f"has {len(box)} numbers of boxes and {count} labels")
        given = [each if len(each) else np.zeros(count) for each in (label, crowd, area)]
        return np.column_stack([box.reshape(-1, 4), *given])

    found = (of_records if file_format == "tfrecord" else of_array_records)(path, look)
    table = np.concatenate([np.empty((0, 7)), *found])
    return {
        "counts": np.array([len(each) for each in found], np.int64),
        "boxes": table[:, :4],
        "labels": table[:, 4].astype(np.int64),
        "crowd": table[:, 5] != 0,
        "areas": table[:, 6],
    }


def examples(
    encoded: Encoded, columns: Mapping[str, np.ndarray], classes: tuple[str, ...], data: config.Data
) -> Examples:
    """The images of a split with their boxes, checked as those of all other sources.

    Args:
      encoded: the images, whose labels are their numbers.
      columns: from `index`, of all files of the split.
      classes: names of the classes.
      data: the group `config.data`.

    Raises:
      UserError: no object in the whole split, and what `annotated.opened` raises.
    """
    if not len(columns["labels"]):
        raise UserError(
            f"{encoded.title} has no boxes (those of some test splits are not public); set config.data.test_split='' "
            "or a part of another split, such as 'validation[50%:]' with config.data.val_split='validation[:50%]'"
        )
    ends = np.cumsum(columns["counts"])
    pictures = []
    for number, (height, width) in enumerate(sizes_of(encoded, data)):
        mine = slice(ends[number] - columns["counts"][number], ends[number])
        corners = columns["boxes"][mine][:, [1, 0, 3, 2]] * np.array([width, height, width, height], np.float64)
        areas = columns["areas"][mine]
        areas = np.where(areas > 0, areas, boxes.areas(corners))
        objects = Objects(corners, columns["labels"][mine], columns["crowd"][mine], areas)
        names = tuple(f"object {place}" for place in range(1, len(areas) + 1))
        pictures.append(Picture(encoded.name(number), objects, names))
    return annotated.opened(encoded, pictures, classes, data)
