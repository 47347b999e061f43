"""Synthetic images of shapes that can be learnt: `shapes:<side>:<images>`, for tests and first tries."""

import re

import numpy as np
from jaxtyping import UInt8

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import boxes, content, instance_masks, label_maps
from jaxcnn.data.boxes import Objects
from jaxcnn.data.examples import Examples, Indices, Pixels, Source
from jaxcnn.tasks import run_length

CLASSES = ("square", "disc", "frame")
MOST = 4  # shapes in an image; one image in eight has none
_DETECTION = config.Task(name="detection")
_LIMITS = 16, 1024  # of the side of images, pixels


def open_shapes(argument: str, data: config.Data, task: config.Task = _DETECTION) -> Source:
    """Bright shapes on dark noise, by default 64 pixels and 128 images; the test split has a quarter as many.

    They have boxes; for the task "segmentation" they have label maps instead, with class 0 where there is no shape; for
    "instances" they have boxes with masks, which include what a later shape hides.

    An image depends only on its split and index.

    Raises:
      UserError: the argument has another form, or another size or type of pixels is asked for.
    """
    match = re.fullmatch(r"(\d{1,4})?(?::(\d{1,6}))?", argument)
    side, count = (int(match[1] or 64), int(match[2] or 128)) if match else (0, 0)
    if not _LIMITS[0] <= side <= _LIMITS[1] or count < 8:
        raise UserError(
            f"config.data.source='shapes:{argument}': write shapes:<side>:<images>, with a side of {_LIMITS[0]} to "
            f"{_LIMITS[1]} pixels and at least 8 images"
        )
    if data.image_size not in (0, side) or data.dtype != "uint8" or data.channels not in (0, 3):
        raise UserError(
            f"config.data.source='shapes:{argument}' has RGB images of {side} pixels; leave config.data.image_size, "
            "dtype and channels out"
        )

    maps = task.name == "segmentation"

    def open_split(name: str) -> Examples:
        salt, number = (1, count) if name == "train" else (2, count // 4)
        made = [_image(salt, index, side) for index in range(number)]
        images = np.stack([image for image, _, _ in made])
        all_objects, crops = [objects for _, _, objects in made], None
        if task.name == "instances":
            sizes = np.full((number, 2), side)
            all_objects, crops, _ = instance_masks.of_images(all_objects, sizes, task.mask_side)
        rows = boxes.records(all_objects, np.tile(boxes.WHOLE, (number, 1)), crops)
        if maps:
            rows = np.stack([found for _, found, _ in made])

        def read(indices: Indices) -> Pixels:
            return images[indices]

        known = content.of_array(images)
        return Examples(rows, (side, side, 3), read, lambda: known)

    title = f"shapes:{argument}" if argument else "shapes"
    names = (label_maps.BACKGROUND, *CLASSES) if maps else CLASSES
    return Source(title, names, ("train", "test"), open_split)


def _image(
    salt: int, index: int, side: int
) -> tuple[UInt8[np.ndarray, "side side 3"], UInt8[np.ndarray, "side side"], Objects]:
    """An image, its label map, and the shapes in it; later ones hide parts of earlier ones, which keep their boxes."""
    random = np.random.default_rng((salt, index))
    image = random.integers(0, 60, (side, side, 3), np.uint8)
    found = np.zeros((side, side), np.uint8)
    number = 0 if index % 8 == 7 else int(random.integers(1, MOST + 1))
    corners, labels, outlines = [], [], []
    for _ in range(number):
        width, height = random.integers(side // 6, side // 2, 2)
        left, top = random.integers(0, side - width + 1), random.integers(0, side - height + 1)
        label = int(random.integers(len(CLASSES)))
        rows, columns = np.mgrid[:height, :width]
        y, x = (rows + 0.5) / height * 2 - 1, (columns + 0.5) / width * 2 - 1
        inside = {
            "square": np.ones_like(x, bool),
            "disc": x**2 + y**2 <= 1,
            "frame": np.maximum(abs(x), abs(y)) > 0.6,
        }[CLASSES[label]]
        image[top : top + height, left : left + width][inside] = random.integers(120, 256, 3, np.uint8)
        found[top : top + height, left : left + width][inside] = label + 1
        corners.append([left, top, left + width, top + height])
        labels.append(label)
        whole = np.zeros((side, side), np.uint8)
        whole[top : top + height, left : left + width] = inside
        outlines.append(run_length.encode(whole))
    box = np.array(corners, np.float64).reshape(-1, 4)
    crowd = np.zeros(number, bool)
    return image, found, Objects(box, np.array(labels, np.int64), crowd, boxes.areas(box), tuple(outlines))
