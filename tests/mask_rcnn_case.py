"""A tiny Mask R-CNN, an image and its objects, all from NumPy: for the goldens of torchvision and the tests of ours."""

import math

import numpy as np

CHANNELS, HIDDEN, CLASSES, SIDE = 8, 32, 2, 64
SIZES = (8.0, 16.0, 32.0, 64.0, 128.0)
BEFORE, PROPOSALS, JUDGED, TAKEN, FOUND = 128, 64, 64, 32, 20
GRID = 32  # side of the true masks
WIDE = 512  # side of the image of `pyramid`


def shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters, by path."""
    channels = CHANNELS
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, size: int, inputs: int, outputs: int, bias: bool = True) -> None:
        found[f"{name}/kernel"] = (size, size, inputs, outputs)
        if bias:
            found[f"{name}/bias"] = (outputs,)

    for number in range(1, 6):
        conv(f"conv{number}/conv", 3, 3 if number == 1 else channels, channels, bias=False)
        found |= {f"conv{number}/bn/scale": (channels,), f"conv{number}/bn/bias": (channels,)}
    for number in range(4):
        conv(f"pyramid_in{number}", 1, channels, channels)
        conv(f"pyramid_out{number}", 3, channels, channels)
    conv("anchor_conv", 3, channels, channels)
    conv("anchor_logits", 1, channels, 3)
    conv("anchor_boxes", 1, channels, 12)
    for name, inputs, outputs in (
        ("box_dense1", 49 * channels, HIDDEN),
        ("box_dense2", HIDDEN, HIDDEN),
        ("box_logits", HIDDEN, CLASSES + 1),
        ("box_boxes", HIDDEN, 4 * (CLASSES + 1)),
    ):
        found |= {f"{name}/kernel": (outputs, inputs), f"{name}/bias": (outputs,)}
    for number in range(1, 5):
        conv(f"mask_conv{number}", 3, channels, channels)
    conv("mask_up", 2, channels, channels)
    conv("mask_logits", 1, channels, CLASSES + 1)
    return found


def weights() -> dict[str, np.ndarray]:
    """Random parameters that keep the scale of the signal."""
    random = np.random.default_rng(1)
    made = {}
    for path, shape in shapes().items():
        inputs = shape[-1] if len(shape) == 2 else math.prod(shape[:-1])
        drawn = random.normal(size=shape)
        made[path] = drawn * math.sqrt(2 / inputs) if path.endswith("kernel") else 0.1 * drawn + path.endswith("scale")
        if path == "anchor_boxes/kernel":
            made[path] *= 0.1
    return made


def directions() -> dict[str, np.ndarray]:
    """A direction in the space of each parameter."""
    random = np.random.default_rng(2)
    return {path: random.normal(size=shape) for path, shape in shapes().items()}


def image() -> np.ndarray:
    """[side, side, 3]."""
    return np.random.default_rng(3).normal(size=(SIDE, SIDE, 3))


def objects() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes float32 [3, 4], labels and masks uint8 [3, side, side]; one object ends at the border of the image."""
    boxes = np.array([[4, 6, 30, 28], [35, 20, 64, 51], [10, 40, 22, 52]], np.float32)
    masks = np.zeros((3, SIDE, SIDE), np.uint8)
    random = np.random.default_rng(4)
    for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
        inside = random.random((bottom - top, right - left)) < 0.7
        inside[[0, -1]] = inside[:, [0, -1]] = True
        mask[top:bottom, left:right] = inside
    return boxes, np.array([0, 1, 1]), masks


def pyramid() -> list[np.ndarray]:
    """Maps [h, w, 2] of an image of `WIDE` pixels."""
    random = np.random.default_rng(7)
    return [random.normal(size=(WIDE // stride, WIDE // stride, 2)) for stride in (4, 8, 16, 32)]


def regions() -> np.ndarray:
    """Boxes [10, 4] of all levels in that image, some of them smaller than a pixel of their map."""
    small = [[3, 5, 9.3, 12.1], [0, 0, 64, 64], [10.5, 20.25, 10.9, 60], [504.5, 500, 506, 511], [100, 100, 101, 240.5]]
    large = [[0, 0, 512, 512], [10, 20, 480, 500], [100.5, 0, 350, 280], [7, 8, 120, 121], [300, 300, 511.5, 511.9]]
    return np.array([*small, *large], np.float64)
