"""Makes coco_mask_goldens.npz: COCO's figures of sets with masks and crowds, by pycocotools, the reference.

pip install pycocotools==2.0.11; python tests/goldens/make_coco_mask_goldens.py

Of boxes and of masks: the twelve figures, AP of each class, AP50 of each class; in units of 1e-7. -1e7 stands for a
figure without an object that counts.
"""

import contextlib
import io
import pathlib
import sys

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from tests.coco_cases import CLASSES, MASK_SETS, STORED, mask_set


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
    rows = []
    for kind in ("bbox", "segm"):
        coco = COCO()
        sides = {"height": STORED[0], "width": STORED[1]}
        coco.dataset = {
            "images": [{"id": image + 1, **sides} for image in range(len(true))],
            "annotations": annotations,
            "categories": [{"id": k + 1} for k in range(CLASSES)],
        }
        coco.createIndex()
        given = [{name: of[name] for name in of if name != "segmentation" or kind == "segm"} for of in answers]
        if kind == "segm":
            given = [{name: of[name] for name in of if name != "bbox"} for of in given]
        if given:
            evaluated = COCOeval(coco, coco.loadRes(given), kind)
        else:
            nothing = COCO()
            nothing.dataset = {**coco.dataset, "annotations": []}
            nothing.createIndex()
            evaluated = COCOeval(coco, nothing, kind)
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
        precision = evaluated.eval["precision"][:, :, :, 0, -1]
        none = (precision == -1).all(axis=(0, 1))
        rows += [
            evaluated.stats,
            *(np.where(none, -1, each) for each in (precision.mean((0, 1)), precision[0].mean(0))),
        ]
    return np.concatenate(rows)


if __name__ == "__main__":
    made = []
    with contextlib.redirect_stdout(io.StringIO()):
        for seed in range(MASK_SETS):
            made.append(figures(*mask_set(seed)[:2]))
    file = pathlib.Path(__file__).with_name("coco_mask_goldens.npz")
    np.savez_compressed(file, figures=np.round(1e7 * np.array(made)).astype(np.int32))
