"""Small sets of data as files: the digits as images and as arrays, with a label, several, or numbers."""

import pathlib
import shutil
import threading
from collections.abc import Sequence

import numpy as np
from PIL import Image

import jaxcnn

HERE = "{sets}"  # in a flag: the folder of the sets
_making = threading.Lock()


def placed(flags: Sequence[str], folder: pathlib.Path) -> tuple[str, ...]:
    """The flags with the folder of the sets, which are made unless they are there."""
    if not any(HERE in flag for flag in flags):
        return tuple(flags)
    with _making:
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder)
            (folder / "made").touch()
    return tuple(flag.replace(HERE, str(folder)) for flag in flags)


def _make(folder: pathlib.Path) -> None:
    with np.load(pathlib.Path(jaxcnn.__file__).parent / "data" / "digits.npz") as file:
        images, labels = file["images"][..., None] * np.uint8(15), file["labels"].astype(np.int64)
    test = np.arange(len(labels)) % 5 == 0
    numbers = np.stack([images.mean(axis=(1, 2, 3)) / 255, labels / 9], axis=1).astype(np.float32)
    several = np.stack([labels % 2 == 0, labels > 4, labels % 3 == 0], axis=1)
    folder.mkdir(parents=True)
    for name, targets in (("digits", labels), ("labels", several), ("numbers", numbers)):
        arrays = {"train_images": images[~test], "train_labels": targets[~test]}
        np.savez(folder / f"{name}.npz", **arrays, test_images=images[test], test_labels=targets[test])  # type: ignore[arg-type]
    rows = ["image,label,split"]
    for number, (image, label) in enumerate(zip(images[:900], labels[:900], strict=True)):
        place = folder / "photos" / ("test" if test[number] else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{number}.png")
        rows.append(f"{place.relative_to(folder)}/{number}.png,{label},{'test' if test[number] else 'train'}")
    (folder / "photos.csv").write_text("\n".join(rows) + "\n")
