"""Random annotated boxes and what a detector might find, for COCO's figures."""

from typing import Any

import numpy as np

CASES = 40


def case(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
    """What was found [images, found, 6], the targets, and the number of classes."""
    random = np.random.default_rng(seed)
    images, classes, most = int(random.integers(1, 6)), int(random.integers(1, 5)), int(random.integers(1, 16))
    corner = random.integers(0, 150, (images, most, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + random.integers(2, 130, corner.shape)], axis=-1).astype(np.float32)
    label = random.integers(classes, size=(images, most)).astype(np.int32)
    valid = random.random((images, most)) < 0.8
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1) * random.uniform(0.4, 1, (images, most)).astype(np.float32)
    target = {
        "boxes": boxes,
        "label": label,
        "valid": valid,
        "crowd": random.random((images, most)) < 0.1,
        "area": area.astype(np.float32),
        "frame": np.tile(np.array([1, 1, 0, 0], np.float32), (images, 1)),
    }
    # Some are found a little beside, some twice, some as another class, and some are nothing.
    place = random.integers(most, size=(images, 2 * most))
    near = np.take_along_axis(boxes, place[..., None], axis=1) + np.round(random.normal(0, 4, (images, 2 * most, 4)))
    near[..., 2:] = np.maximum(near[..., 2:], near[..., :2] + 1)
    of_class = np.take_along_axis(label, place, axis=1)
    of_class = np.where(random.random(of_class.shape) < 0.15, random.integers(classes, size=of_class.shape), of_class)
    score = np.round(random.random(of_class.shape) * (random.random(of_class.shape) < 0.9), 3)
    outputs = np.concatenate([near, score[..., None], of_class[..., None]], axis=-1).astype(np.float32)
    return outputs, target, classes


MASK_SETS, CLASSES = 70, 10  # every class of a set is a small case of its own
STORED = (60, 64)  # height and width of the stored images of `mask_set`
GRID = 28  # cells of a found mask in both directions
FRAMES = ((1.0, 0.0, 0.0), (2.0, 0.0, 8.0), (0.5, 0.0, 1.0))  # scale, left and top of letterboxed images
_SIDES = np.array([2, 4, 7, 14, 28, 56])  # of found masks: a pixel is a number of cells, or a cell four pixels

Object = tuple[
    np.ndarray, np.ndarray, int, float, bool
]  # box and mask in the stored image, class, score or area, crowd


def mask_set(seed: int) -> tuple[list[list[Object]], list[list[Object]], tuple[float, float, float]]:
    """Annotated and found objects with masks of each image, and the frame of the network's image.

    Boxes are left, top, right, bottom. A found box has as many pixels as masks of `GRID` cells can show exactly.
    """
    random = np.random.default_rng(seed)
    true: list[list[Object]] = []
    found: list[list[Object]] = []
    for _ in range(10):
        annotated: list[Object] = []
        for _ in range(int(random.integers(0, 5))):
            box, mask = _object(random, random.integers(2, GRID, 2))
            area = float(np.float32(mask.sum() * random.choice([1, 20, 400])))  # of all sizes
            annotated.append((box, mask, int(random.integers(CLASSES)), area, bool(random.random() < 0.2)))
        answers: list[Object] = []
        for _ in range(int(random.integers(0, 6))):
            score = float(np.float32(random.integers(1, 60) / 60))
            sides = random.choice(_SIDES, 2)
            if annotated and random.random() < 0.7:  # near an annotated one, or in it
                near, mask, label = annotated[int(random.integers(len(annotated)))][:3]
                sides = [max(each for each in _SIDES if each <= side) for side in near[2:] - near[:2]]
                box, _ = _object(random, np.array(sides), near)
                part = mask[box[1] : box[3], box[0] : box[2]] ^ (random.random((sides[1], sides[0])) < 0.1)
                mask = np.zeros_like(mask)
                mask[box[1] : box[3], box[0] : box[2]] = part
                answers.append((box, mask, label, score, False))
            else:
                answers.append((*_object(random, sides), int(random.integers(CLASSES)), score, False))
        true.append(annotated)
        found.append(answers)
    return true, found, FRAMES[seed % len(FRAMES)]


def _object(
    random: np.random.Generator, sides: np.ndarray, within: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A box with these sides (width, height) within another one or an image, and a mask with holes within it."""
    low = np.zeros(2, int) if within is None else within[:2]
    high = np.array(STORED[::-1]) if within is None else within[2:]
    left, top = (int(random.integers(a, b - side + 1)) for a, b, side in zip(low, high, sides, strict=True))
    mask = np.zeros(STORED, bool)
    fine = 2 if max(sides) > GRID else 1
    part = random.random((-(-sides[1] // fine), -(-sides[0] // fine))) < random.choice([0.4, 0.9])
    part[0, 0] = True
    mask[top : top + sides[1], left : left + sides[0]] = part.repeat(fine, 0).repeat(fine, 1)[: sides[1], : sides[0]]
    return np.array([left, top, left + sides[0], top + sides[1]]), mask


LARGE_CLASSES, LARGE_SIDE, LARGE_FOUND = 3, 128, 12  # classes, side of the network's images, found objects of an image

Answer = tuple[np.ndarray, np.ndarray, int, float]  # box in the stored image, mask [GRID, GRID], class, score


def large_set(seed: int) -> tuple[dict[str, Any], list[list[Answer]]]:
    """A set in COCO's form with large irregular objects, and what was found in each of its images.

    Outlines are polygons, or run lengths with holes, a few of them of crowds. Images differ in size, and the network
    gets them with bars, as squares of `LARGE_SIDE` pixels.
    """
    random = np.random.default_rng(seed)
    images, annotations, found = [], [], []
    for number in range(1, 9):
        height, width = map(int, random.integers(200, 320, 2))
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        found.append([])
        for _ in range(int(random.integers(0, 6))):
            label, kind = int(random.integers(LARGE_CLASSES)), int(random.integers(5))
            half = random.uniform(34, 95, 2)
            middle = random.uniform(half, [width, height] - half)
            radii = random.uniform(0.35, 1.0, 40)
            hole = 0.0 if kind < 3 else 0.3
            outline, box = _star(middle, half, radii)
            mask = _inside(middle, half, radii, hole, *np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": box.tolist(),
                    "segmentation": [outline.tolist()] if kind < 3 else _counts(mask),
                    "area": int(mask.sum() * random.choice([0.02, 0.3, 1.0])) + 1,  # of all sizes
                    "iscrowd": int(kind == 4),
                }
            )
            for _ in range(int(random.integers(0, 3)) + (3 if kind == 4 else 0)):
                near = np.concatenate([middle - half, middle + half]) + random.normal(0, 3, 4)
                x, y = (np.arange(GRID) + 0.5) / GRID * (near[2:] - near[:2])[:, None] + near[:2, None]
                grid = _inside(middle, half, radii, hole, *np.meshgrid(x, y)) ^ (random.random((GRID, GRID)) < 0.02)
                other = random.random() < 0.1
                found[-1].append(
                    (near, grid, int(random.integers(LARGE_CLASSES)) if other else label, float(random.random()))
                )
        for _ in range(int(random.integers(0, 2))):
            near = np.array([0, 0, *random.integers(20, 190, 2)])
            grid = random.random((GRID, GRID)) < 0.7
            found[-1].append((near, grid, int(random.integers(LARGE_CLASSES)), float(random.random())))
        found[-1] = found[-1][:LARGE_FOUND]
    categories = [{"id": k + 1, "name": f"class {k}"} for k in range(LARGE_CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}, found


def _star(middle: np.ndarray, half: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The polygon x1, y1, x2, y2, … with corners at equal angles, and its box as x, y, width, height."""
    angles = np.arange(len(radii)) / len(radii) * 2 * np.pi
    corners = np.round(middle + half * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1), 2)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return corners.ravel(), np.concatenate([low, high - low])


def _inside(
    middle: np.ndarray, half: np.ndarray, radii: np.ndarray, hole: float, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Which points are within a star (`_star`, with bent edges) and outside its hole."""
    across, down = (x - middle[0]) / half[0], (y - middle[1]) / half[1]
    angles = np.arange(len(radii)) / len(radii) * 2 * np.pi
    radius = np.interp(np.arctan2(down, across), angles, radii, period=2 * np.pi)
    from_middle = np.hypot(across, down)
    return (from_middle <= radius) & (from_middle >= hole)


def _counts(mask: np.ndarray) -> dict[str, Any]:
    """The run lengths of a mask, uncompressed."""
    pixels = np.concatenate([[0], mask.T.ravel(), [0]]).astype(np.int8)
    ends = np.flatnonzero(np.diff(pixels))
    return {"size": list(mask.shape), "counts": np.diff([0, *ends.tolist(), mask.size]).tolist()}


def large_outputs(tree: dict[str, Any], found: list[list[Answer]]) -> tuple[np.ndarray, np.ndarray]:
    """What the network finds, float32 [images, found, 6 + cells], in pixels of its images; and the frame of each."""
    from jaxcnn.data.boxes import frame_of

    outputs = np.zeros((len(found), LARGE_FOUND, 6 + GRID**2), np.float32)
    frames = [frame_of(each["height"], each["width"], LARGE_SIDE, "pad") for each in tree["images"]]
    for rows, answers, frame in zip(outputs, found, frames, strict=True):
        for row, (box, grid, label, score) in zip(rows, answers, strict=False):
            row[:] = [*(box * np.tile(frame[:2], 2) + np.tile(frame[2:], 2)), score, label, *grid.ravel()]
    return outputs, np.array(frames)


def predictions(tree: dict[str, Any], outputs: np.ndarray, frames: np.ndarray) -> dict[str, Any]:
    """The answers as `--mode=predict --json` writes them."""
    from jaxcnn.config import Task
    from jaxcnn.tasks import by_name

    sides, names = (LARGE_SIDE, LARGE_SIDE), [each["name"] for each in tree["categories"]]
    finds = by_name.make(Task(name="instances"), len(names), sides=sides).evaluation
    answers = finds.answers(outputs, names, None, {})
    return finds.as_file(
        [
            {"file": of["file_name"], **finds.in_stored(answer, frame, (of["height"], of["width"]))}
            for of, answer, frame in zip(tree["images"], answers, frames, strict=True)
        ],
        names,
    )
