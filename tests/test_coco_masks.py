"""COCO's figures of boxes and masks, with crowds and letterboxed images, are those of pycocotools."""

import json
import pathlib

import numpy as np
from PIL import Image

from jaxcnn.config import Data, Task
from jaxcnn.data import instance_masks
from jaxcnn.data.selection import whole_targets
from jaxcnn.data.source import open_splits
from jaxcnn.tasks import box_records, run_length
from jaxcnn.tasks.box_records import in_stored
from jaxcnn.tasks.coco_figures import FIGURES
from jaxcnn.tasks.found_instances import InstanceFigures
from jaxcnn.tasks.pasting import from_grid
from tests import coco_cases

GOLDENS = np.load(pathlib.Path(__file__).parent / "goldens" / "coco_mask_goldens.npz")
FOUND, LARGE = (GOLDENS[name] / 1e7 for name in ("figures", "large"))
SIDE = 32  # of the grids of true masks, which are exact up to that many pixels
GRID = coco_cases.GRID


def collected(seed):
    """A collector of a set as a network and a data set give it."""
    true, found, (scale, left, top) = coco_cases.mask_set(seed)
    rows = np.zeros(len(true), box_records.record_type(4, SIDE, outlines=True))
    outputs = np.zeros((len(true), 6, 6 + GRID**2), np.float32)
    shift = np.tile([left, top], 2)
    rows["frame"], rows["stored"] = [scale, scale, left, top], coco_cases.STORED
    for row, output, objects, answers in zip(rows, outputs, true, found, strict=True):
        for place, (box, mask, label, area, crowd) in enumerate(objects):
            bits, corners = instance_masks.crop(mask, SIDE)
            row["mask"][place], row["mask_box"][place] = bits, corners * scale + shift
            row["outline"][place] = run_length.encode(mask)["counts"]
            row["boxes"][place], row["label"][place] = box * scale + shift, label
            row["area"][place], row["crowd"][place], row["valid"][place] = area, crowd, True
        for place, (box, mask, label, score, _) in enumerate(answers):
            part = mask[box[1] : box[3], box[0] : box[2]]
            grid = part[:: max(part.shape[0] // GRID, 1), :: max(part.shape[1] // GRID, 1)]
            grid = grid.repeat(GRID // grid.shape[0], axis=0).repeat(GRID // grid.shape[1], axis=1)
            output[place] = [*(box * scale + shift), score, label, *grid.ravel()]
    collector = InstanceFigures()
    collector.add(outputs, {name: rows[name] for name in rows.dtype.names})
    return collector


def values_of(collector, names):
    """The figures of boxes and of masks in the order of the goldens."""
    values = []
    for kind in ("bbox", "segm"):
        figures = collector.of_kind(kind, names)
        values += [figures[name] for name in FIGURES]
        values += [*figures["ap_by_class"].values(), *figures["ap50_by_class"].values()]
    return np.array([-1.0 if value is None else value for value in values])


def opened(folder, tree):
    """The split of a set in COCO's form with grey images, and its whole targets in the order of the set's images."""
    (folder / "images").mkdir(parents=True)
    for each in tree["images"]:
        Image.new("L", (each["width"], each["height"]), 90).save(folder / "images" / each["file_name"])
    (folder / "instances_train.json").write_text(json.dumps(tree))
    read = {"image_size": coco_cases.LARGE_SIDE, "resize": "pad", "protocol": "full", "test_split": ""}
    split = open_splits(Data(source=f"coco:{folder / 'instances_train.json'}", **read), Task(name="instances")).train
    places = {pathlib.Path(split.name_of(k)).name: k for k in range(len(split))}
    indices = np.array([places[each["file_name"]] for each in tree["images"]])
    return split, whole_targets(split, {name: rows[indices] for name, rows in split.targets.items()}, indices)


def test_figures_of_boxes_masks_crowds_and_letterboxed_images_are_those_of_pycocotools():
    assert len(FOUND) == coco_cases.MASK_SETS
    names = tuple(map(str, range(coco_cases.CLASSES)))
    compared = 0
    for seed, wanted in enumerate(FOUND):
        made = values_of(collected(seed), names)
        assert np.abs(made - wanted).max() < 1e-6, (seed, np.abs(made - wanted).argmax())
        compared += (wanted > 0).sum()
    assert compared > 2000


def test_figures_of_large_outlines_are_those_of_pycocotools_on_the_file_of_predictions(tmp_path):
    names = tuple(f"class {k}" for k in range(coco_cases.LARGE_CLASSES))
    for seed, wanted in enumerate(LARGE):
        tree, found = coco_cases.large_set(seed)
        _, targets = opened(tmp_path / str(seed), tree)
        collector = InstanceFigures()
        collector.add(coco_cases.large_outputs(tree, found)[0], targets)
        made = values_of(collector, names)
        assert np.abs(made - wanted).max() < 1e-6, (seed, np.abs(made - wanted).argmax())
    assert (LARGE > 0).sum() > 100 and 0.2 < LARGE[:, len(FIGURES) + 2 * len(names)].mean() < 0.8  # of masks


def test_an_answer_equal_to_the_annotations_has_an_average_precision_of_one(tmp_path):
    tree, found = coco_cases.large_set(0)
    outputs, frames = coco_cases.large_outputs(tree, found)
    told = coco_cases.predictions(tree, outputs, frames)
    without_boxes = [{name: of for name, of in each.items() if name != "bbox"} for each in told["annotations"]]
    split, targets = opened(tmp_path, tree | {"annotations": without_boxes})
    assert "outline" not in split.targets and "stored" not in split.targets  # these never go to a device
    collector = InstanceFigures()
    collector.add(outputs, targets)
    figures = collector.figures(split.class_names, collector.fitted())
    assert figures["mask_ap"] == figures["mask_ar"] == 1.0 and figures["at_thresholds"]["macro_f1"] == 1.0
    worst = 1.0  # overlap of a grid that a network learns with the annotation
    for image, sides in enumerate(map(tuple, targets["stored"].tolist())):
        real = targets["valid"][image]
        boxes = in_stored(targets["mask_box"][image][real], targets["frame"][image])
        for bits, box, counts in zip(targets["mask"][image][real], boxes, targets["outline"][image][real], strict=True):
            grid = from_grid(bits, box, sides)
            outline = run_length.decode({"size": list(sides), "counts": counts}) != 0
            worst = min(worst, (grid & outline).sum() / (grid | outline).sum())
    assert worst < 0.95  # judged by the grids, the same answer would miss COCO's highest overlap
