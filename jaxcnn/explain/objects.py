"""Where the object of each image is, for the scores that need to know: boxes or maps of the data, or files of masks."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxcnn.config import UserError
from jaxcnn.data.decode import Unreadable
from jaxcnn.explain.subject import Subject
from jaxcnn.text import shown
from jaxcnn.train import predict


def in_boxes(
    records: Mapping[str, np.ndarray], classes: Int[np.ndarray, " n"], size: tuple[int, int]
) -> Bool[np.ndarray, "n h w"]:
    """The pixels whose centre is in a box of the class; none where the image has no such box.

    Args:
      records: columns of `jaxcnn.tasks.box_records`: "boxes" [n, most, 4] in pixels, "label", "valid".
      classes: class of each image.
      size: (h, w).
    """
    rows, columns = (np.arange(side) + 0.5 for side in size)
    left, top, right, bottom = (records["boxes"][..., k, None] for k in range(4))
    across = (columns >= left) & (columns < right)  # [n, most, w]
    down = (rows >= top) & (rows < bottom)
    wanted = records["valid"] & (records["label"] == classes[:, None])
    return (down[..., :, None] & across[..., None, :] & wanted[..., None, None]).any(1)


def of_targets(subject: Subject, targets: Any, classes: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "n h w"]:
    """The pixels of a class in the targets of examples: records of boxes, or label maps [n, h, w]."""
    if subject.has_boxes:
        return in_boxes(targets, classes, subject.image_shape[:2])
    return np.asarray(targets) == classes[:, None, None]


def of_files(subject: Subject, folder: pathlib.Path, names: Sequence[str]) -> Bool[np.ndarray, "n h w"]:
    """The masks of image files: files of the same name (the ending aside) in a folder, white on black.

    A mask is brought to the size of the network as its image is; the object is where it is brighter than half of its
    brightest value.

    Raises:
      UserError: an image has no mask, or several, or one cannot be read.
    """
    found: dict[str, list[pathlib.Path]] = {}
    for path in predict.find_images([str(folder)], "--masks")[0]:
        found.setdefault(path.stem, []).append(path)
    masks = []
    for name in names:
        path = pathlib.Path(name)
        places = found.get(path.stem, [])
        if len(places) > 1:  # images of the same name in several folders
            places = [place for place in places if place.parent.name == path.parent.name]
        if len(places) != 1:
            said = "no mask" if not places else f"{len(places)} masks"
            raise UserError(f"--masks={folder}: {said} for {shown(name)}; its name must be {shown(path.stem)}.png")
        try:
            pixels = predict.read(places[0], subject.image_shape, subject.trained.config.data)
        except (Unreadable, OSError) as error:
            raise UserError(f"cannot read mask {shown(str(places[0]))}: {error}") from None
        bright = pixels.max(-1)
        masks.append((bright > bright.max() / 2) & (bright > 0))
    return np.stack(masks)
