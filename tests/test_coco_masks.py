"""COCO's figures of boxes and masks, with crowds and letterboxed images, are those of pycocotools."""

import pathlib

import numpy as np

from jaxcnn.data import instance_masks
from jaxcnn.tasks import box_records
from jaxcnn.tasks.coco_figures import FIGURES
from jaxcnn.tasks.found_instances import InstanceFigures
from tests import coco_cases

FOUND = np.load(pathlib.Path(__file__).parent / "goldens" / "coco_mask_goldens.npz")["figures"] / 1e7
SIDE = 32  # of the grids of true masks, which are exact up to that many pixels
GRID = coco_cases.GRID


def collected(seed):
    """A collector of a set as a network and a data set give it."""
    true, found, (scale, left, top) = coco_cases.mask_set(seed)
    rows = np.zeros(len(true), box_records.record_type(4, SIDE))
    outputs = np.zeros((len(true), 6, 6 + GRID**2), np.float32)
    shift = np.tile([left, top], 2)
    rows["frame"] = [scale, scale, left, top]
    for row, output, objects, answers in zip(rows, outputs, true, found, strict=True):
        for place, (box, mask, label, area, crowd) in enumerate(objects):
            bits, corners = instance_masks.crop(mask, SIDE)
            row["mask"][place], row["mask_box"][place] = bits, corners * scale + shift
            row["boxes"][place], row["label"][place] = box * scale + shift, label
            row["area"][place], row["crowd"][place], row["valid"][place] = area, crowd, True
        for place, (box, mask, label, score, _) in enumerate(answers):
            part = mask[box[1] : box[3], box[0] : box[2]]
            grid = part[:: max(part.shape[0] // GRID, 1), :: max(part.shape[1] // GRID, 1)]
            grid = grid.repeat(GRID // grid.shape[0], axis=0).repeat(GRID // grid.shape[1], axis=1)
            output[place] = [*(box * scale + shift), score, label, *grid.ravel()]
    sides = round(scale * coco_cases.STORED[0] + 2 * top), round(scale * coco_cases.STORED[1])
    collector = InstanceFigures(sides)
    collector.add(outputs, {name: rows[name] for name in rows.dtype.names})
    return collector


def test_figures_of_boxes_masks_crowds_and_letterboxed_images_are_those_of_pycocotools():
    assert len(FOUND) == coco_cases.MASK_SETS
    names = tuple(map(str, range(coco_cases.CLASSES)))
    compared = 0
    for seed, wanted in enumerate(FOUND):
        collector, values = collected(seed), []
        for kind in ("bbox", "segm"):
            figures = collector.of_kind(kind, names)
            values += [figures[name] for name in FIGURES]
            values += [*figures["ap_by_class"].values(), *figures["ap50_by_class"].values()]
        made = np.array([-1.0 if value is None else value for value in values])
        assert np.abs(made - wanted).max() < 1e-6, (seed, np.abs(made - wanted).argmax())
        compared += (wanted > 0).sum()
    assert compared > 2000
