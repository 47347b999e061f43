"""Random annotated boxes and what a detector might find, for COCO's figures."""

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
