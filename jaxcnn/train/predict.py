"""`--mode=predict`: labels for images."""

import csv
import itertools
import json
import pathlib
from typing import Any

import jax
import numpy as np

from jaxcnn.config import UserError
from jaxcnn.data.decode import Unreadable, decode
from jaxcnn.data.folder import EXTENSIONS
from jaxcnn.learn import sharded
from jaxcnn.mesh import data_devices, over_data
from jaxcnn.paths import expand
from jaxcnn.train.trained import Trained

BATCH = 64
SHOWN = 5


def find_images(places: list[str]) -> list[pathlib.Path]:
    """The image files of a list of files and folders; a folder gives all images in it at any depth, sorted.

    Raises:
      UserError: a place does not exist, or a folder has no image.
    """
    found: list[pathlib.Path] = []
    for place in places:
        path = expand(place, "--images=")
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            if not inside:
                raise UserError(f"--images={place}: no image ({', '.join(EXTENSIONS)}) in this folder")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"--images={place}: there is no such file or folder")
    return found


def predict(trained: Trained, paths: list[pathlib.Path], *, skip_unreadable: bool) -> list[dict[str, Any]]:
    """For each image its file and the most probable classes: `{"file", "label", "probability", "top": [...]}`.

    Results are in the order of `paths`. Images are resized as for training. One that cannot be read has an "error" in
    place of the labels if `skip_unreadable`.

    Raises:
      UserError: an image cannot be read, or the network takes images of no kind that files hold.
    """
    shape = trained.program.image_shape
    if shape[-1] not in (1, 3):
        raise UserError(f"this network takes images of {shape[-1]} channels; --mode=predict reads grey and colour ones")
    results: list[dict[str, Any]] = []
    for start in range(0, len(paths), BATCH):
        batch: list[dict[str, Any]] = []
        pixels = []
        for path in paths[start : start + BATCH]:
            try:
                pixels.append(_read(path, shape))
                batch.append({"file": str(path)})
            except (Unreadable, OSError) as error:
                if not skip_unreadable:
                    raise UserError(
                        f"cannot read image {path}: {error}; mend it, leave it out, or set --on_error=skip"
                    ) from None
                batch.append({"file": str(path), "error": str(error)})
        if pixels:
            readable = [result for result in batch if "error" not in result]
            for result, row in zip(readable, _probabilities(trained, np.stack(pixels)), strict=True):
                order = np.argsort(-row, kind="stable")[:SHOWN]
                top = [{"label": trained.class_names[k], "probability": float(row[k])} for k in order]
                result |= {**top[0], "top": top}
        results += batch
    return results


def write(results: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Write what `predict` gave as CSV, a row for each image, or as JSON, as the file's name ends.

    The columns are file, label, probability, label_2, probability_2, … and error. Bytes of a name that are no UTF-8 are
    escaped, as they are in JSON.
    """
    if path.suffix.lower() != ".csv":
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        return
    most = max((len(result.get("top", ())) for result in results), default=0)
    names = [("label", "probability"), *((f"label_{n}", f"probability_{n}") for n in range(2, most + 1))]
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, ["file", *itertools.chain(*names), "error"], quoting=csv.QUOTE_MINIMAL)
        writer.writeheader()
        for result in results:
            places = zip(names, result.get("top", ()), strict=False)
            row = {key: of for (a, b), top in places for key, of in ((a, top["label"]), (b, top["probability"]))}
            writer.writerow({"file": result["file"], "error": result.get("error", "")} | row)


def _read(path: pathlib.Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Pixels uint8 of the network's image shape; square ones are resized to, others must be met."""
    height, width, channels = shape
    if height == width:
        return decode(path.read_bytes(), height, channels)
    pixels = decode(path.read_bytes(), 0, channels)
    if pixels.shape != shape:
        raise Unreadable(f"it is {pixels.shape[1]}x{pixels.shape[0]}, but the network takes {width}x{height} only")
    return pixels


def _probabilities(trained: Trained, images: np.ndarray) -> np.ndarray:
    """float32 [n, K] of uint8 images [n, H, W, C]; a short batch is padded, so that one program serves all."""
    devices = data_devices(trained.mesh)
    padded = np.zeros((-(-BATCH // devices) * devices, *images.shape[1:]), np.uint8)
    padded[: len(images)] = images
    step = sharded.compiled_predict_step(trained.program, trained.mesh, len(padded))
    placed = jax.device_put(padded, over_data(trained.mesh))
    logits = np.asarray(step(trained.variables, placed, trained.normalization))[: len(images)]
    return np.asarray(jax.nn.softmax(logits))
