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
