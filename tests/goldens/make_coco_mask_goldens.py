"""Makes coco_mask_goldens.npz: COCO's figures of sets with masks and crowds, by pycocotools, the reference.

pip install pycocotools==2.0.11; python tests/goldens/make_coco_mask_goldens.py

Of boxes and of masks: the twelve figures, AP of each class, AP50 of each class; in units of 1e-7. -1e7 stands for a
figure without an object that counts.

"figures" is of sets of small masks; "large" of sets in COCO's form with large outlines, whose answers are those that
`--mode=predict --json` writes.
"""

import contextlib
import copy
import io
import pathlib
import sys

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from tests.coco_cases import CLASSES, MASK_SETS, STORED, large_outputs, large_set, mask_set, predictions

LARGE_SETS = 12


def figures(true, found):
    annotations, answers = [], []
    for image, (own, others) in enumerate(zip(true, found, strict=True), start=1):
        for (left, top, right, bottom), mask, label, number, crowd in [*own, *others]:
            of = {
                "image_id": image,
                "category_id": label + 1,
                "segmentation": coco_mask.encode(np.asfortranarray(mask)),
            }
            of["bbox"] = list(map(float, (left, top, right - left, bottom - top)))
            if len(annotations) < sum(map(len, true[:image])):
                annotations.append({**of, "id": len(annotations) + 1, "area": number, "iscrowd": int(crowd)})
            else:
                answers.append({**of, "score": number})
    sides = {"height": STORED[0], "width": STORED[1]}
    tree = {
        "images": [{"id": image + 1, **sides} for image in range(len(true))],
        "annotations": annotations,
        "categories": [{"id": k + 1} for k in range(CLASSES)],
    }
    return evaluated(tree, answers)


def figures_of_file(tree, found):
    """The figures of a set in COCO's form and the file of predictions."""
    names = ("image_id", "category_id", "bbox", "segmentation", "score")
    return evaluated(tree, [{name: each[name] for name in names} for each in found["annotations"]])


def evaluated(tree, answers):
    """The figures of annotations and answers in COCO's form: those of boxes, then those of masks."""
    rows = []
    for kind in ("bbox", "segm"):
        coco = COCO()
        coco.dataset = copy.deepcopy(tree)
        coco.createIndex()
        given = [{name: of[name] for name in of if name != "segmentation" or kind == "segm"} for of in answers]
        if kind == "segm":
            given = [{name: of[name] for name in of if name != "bbox"} for of in given]
        if given:
            judged = COCOeval(coco, coco.loadRes(given), kind)
        else:
            nothing = COCO()
            nothing.dataset = {**coco.dataset, "annotations": []}
            nothing.createIndex()
            judged = COCOeval(coco, nothing, kind)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
        precision = judged.eval["precision"][:, :, :, 0, -1]
        none = (precision == -1).all(axis=(0, 1))
        rows += [
            judged.stats,
            *(np.where(none, -1, each) for each in (precision.mean((0, 1)), precision[0].mean(0))),
        ]
    return np.concatenate(rows)


if __name__ == "__main__":
    made = []
    with contextlib.redirect_stdout(io.StringIO()):
        for seed in range(MASK_SETS):
            made.append(figures(*mask_set(seed)[:2]))
        large = []
        for seed in range(LARGE_SETS):
            tree, found = large_set(seed)
            large.append(figures_of_file(tree, predictions(tree, *large_outputs(tree, found))))
    file = pathlib.Path(__file__).with_name("coco_mask_goldens.npz")
    both = {"figures": made, "large": large}
    np.savez_compressed(file, **{name: np.round(1e7 * np.array(of)).astype(np.int32) for name, of in both.items()})
