"""Data of one's own."""

import numpy as np

CLASSES = ("disc", "square", "cross")


def shapes(side=16, examples=600, seed=0):
    """Grey images of a disc, a square or a cross somewhere in noise.

    Returns:
      What `jaxcnn.train` takes as `data`: arrays by split, and the names of the classes.
    """
    draw = np.random.default_rng(seed)
    splits = {}
    for split, count in (("train", examples), ("test", examples // 4)):
        labels = draw.integers(len(CLASSES), size=count)
        images = np.stack([_image(draw, side, label) for label in labels])
        splits[split] = (images, labels)
    return {**splits, "class_names": CLASSES}


def _image(draw, side, label):
    """One image uint8 [side, side, 1]."""
    radius = draw.uniform(side / 6, side / 4)
    row, column = draw.uniform(radius, side - 1 - radius, size=2)
    down, right = np.mgrid[:side, :side]
    down, right = np.abs(down - row), np.abs(right - column)
    inside = (
        np.hypot(down, right) <= radius,
        np.maximum(down, right) <= radius,
        (np.minimum(down, right) <= radius / 3) & (np.maximum(down, right) <= radius),
    )[label]
    image = draw.normal(80, 30, size=(side, side)) + 90 * inside
    return np.clip(image, 0, 255).astype(np.uint8)[..., None]
