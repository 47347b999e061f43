"""Makes coco_goldens.json: COCO's figures of random boxes, by pycocotools, the reference.

pip install pycocotools==2.0.11; python tests/goldens/make_coco_goldens.py
"""

import contextlib
import io
import json
import pathlib
import sys

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from tests.coco_cases import CASES, case


def figures(truth: dict, found: list) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluated = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return evaluated.stats.tolist()


def as_coco(outputs, target, classes):
    """The case as pycocotools takes it."""
    annotations, found = [], []
    for image in range(len(outputs)):
        for box, label, valid, crowd, area in zip(
            *(target[name][image] for name in ("boxes", "label", "valid", "crowd", "area")), strict=True
        ):
            if valid:
                left, top, right, bottom = map(float, box)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image + 1, "category_id": int(label) + 1,
                     "bbox": [left, top, right - left, bottom - top], "area": float(area), "iscrowd": int(crowd)}
                )  # fmt: skip
        for left, top, right, bottom, score, label in outputs[image].astype(float).tolist():
            if score > 0:
                found.append(
                    {"image_id": image + 1, "category_id": int(label) + 1, "score": score,
                     "bbox": [left, top, right - left, bottom - top]}
                )  # fmt: skip
    images = [{"id": image + 1} for image in range(len(outputs))]
    return {"images": images, "annotations": annotations, "categories": [{"id": k + 1} for k in range(classes)]}, found


if __name__ == "__main__":
    made = [figures(*as_coco(*case(seed))) for seed in range(CASES)]
    file = pathlib.Path(__file__).with_name("coco_goldens.json")
    file.write_text(json.dumps(made, indent=1) + "\n")
