"""`--mode=predict`: labels for images."""

import csv
import itertools
import json
import pathlib
import stat
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from jaxcnn.config import Data, UserError
from jaxcnn.data import listing
from jaxcnn.data.decode import Unreadable, decode
from jaxcnn.learn import programs
from jaxcnn.machine.mesh import data_devices, over_data
from jaxcnn.machine.paths import expand
from jaxcnn.train.trained import Trained

BATCH = 64
SHOWN = 5


def find_images(places: list[str]) -> tuple[list[pathlib.Path], list[str]]:
    """The image files in a list of files and folders, and notes on skipped files.

    A folder gives all its images at any depth, sorted, by the rule of `list_images`; a file is taken whatever its name.

    Raises:
      UserError: a place does not exist or is neither file nor folder, or a folder has no image or cannot be listed.
    """
    found: list[pathlib.Path] = []
    notes: list[str] = []
    for place in places:
        path = expand(place, "--images=")
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise UserError(f"--images={place}: this file or folder does not exist") from None
        except (OSError, ValueError) as error:
            raise UserError(f"--images={place} cannot be read: {getattr(error, 'strerror', error)}") from None
        if stat.S_ISDIR(mode):
            inside = listing.list_images(path)
            if not inside.paths:
                others = f", but {listing.told(inside.others)}" if inside.others else ""
                raise UserError(f"--images={place}: no images in this folder ({listing.KNOWN}){others}")
            found += sorted(path / each for each in inside.paths)
            notes += listing.passed_over(inside.others, place)
        elif stat.S_ISREG(mode):
            found.append(path)
        else:
            raise UserError(f"--images={place} is neither a file nor a folder; copy its content into a file")
    return found, notes


def predict(trained: Trained, paths: list[pathlib.Path], *, skip_unreadable: bool) -> list[dict[str, Any]]:
    """For each image, its file and the most probable classes: `{"file", "label", "probability", "top": [...]}`.

    Results are in the order of `paths`. Images are resized as for training. With `skip_unreadable`, an image that
    cannot be read has an "error" in place of the labels.

    Raises:
      UserError: an image cannot be read, or the network takes images with neither 1 nor 3 channels.
    """
    shape = trained.spec.image_shape
    if shape[-1] not in (1, 3):
        raise UserError(
            f"this network needs images of {shape[-1]} channels; --mode=predict reads only grey and colour images"
        )
    results: list[dict[str, Any]] = []
    for start in range(0, len(paths), BATCH):
        batch: list[dict[str, Any]] = []
        pixels = []
        for path in paths[start : start + BATCH]:
            try:
                pixels.append(read(path, shape, trained.config.data))
                batch.append({"file": str(path)})
            except (Unreadable, OSError) as error:
                if not skip_unreadable:
                    raise unreadable(path, error) from None
                batch.append({"file": str(path), "error": str(error)})
        if pixels:
            readable = [result for result in batch if "error" not in result]
            for result, answer in zip(readable, answers(trained, np.stack(pixels)), strict=True):
                result |= answer
        results += batch
    return results


def answers(trained: Trained, images: UInt8[np.ndarray, "n h w c"]) -> list[dict[str, Any]]:
    """For each image, the most probable classes: `{"label", "probability", "top": [...]}`."""
    found: list[dict[str, Any]] = []
    for row in probabilities(outputs_of(trained, images)):
        order = np.argsort(-row, kind="stable")[:SHOWN]
        top = [{"label": trained.class_names[k], "probability": float(row[k])} for k in order]
        found.append({**top[0], "top": top})
    return found


def write(results: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Write the results of `predict`: as CSV, one row per image, if the file's name ends in .csv; else as JSON.

    The columns are file, label, probability, label_2, probability_2, … and error. Bytes of a name that are not UTF-8
    are escaped, as in JSON.
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


def unreadable(path: pathlib.Path, error: Exception) -> UserError:
    """The error of a file that cannot be read as an image."""
    return UserError(f"cannot read image {path}: {error}; repair it, leave it out, or set --on_error=skip")


def read(path: pathlib.Path, shape: tuple[int, int, int], data: Data) -> np.ndarray:
    """Pixels, uint8 in the network's image shape; resized if that is square, otherwise the image must have it."""
    height, width, channels = shape
    size = height if height == width else 0
    content = path.read_bytes()
    pixels = decode(content, size, channels, grey16_max=data.grey16_max, max_megapixels=data.max_megapixels)
    if pixels.shape != shape:
        raise Unreadable(f"it is {pixels.shape[1]}x{pixels.shape[0]}, but the network accepts only {width}x{height}")
    return pixels


def outputs_of(trained: Trained, images: UInt8[np.ndarray, "n h w c"], layer: str | None = None) -> np.ndarray:
    """The logits float32 [n, K] of at most `BATCH` images, or the features of a `layer` (`learn.step.features_step`).

    A short batch is padded, so that one program serves all.
    """
    devices = data_devices(trained.mesh)
    padded = np.zeros((-(-BATCH // devices) * devices, *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    step = programs.predict_step(trained.spec, trained.mesh, len(padded), *(() if layer is None else (layer,)))
    placed = jax.device_put(padded, over_data(trained.mesh))
    return np.asarray(step(trained.variables, placed, trained.normalization))[: len(images)]


def probabilities(logits: Float32[np.ndarray, "n k"]) -> Float32[np.ndarray, "n k"]:
    """The softmax of logits."""
    return np.asarray(jax.nn.softmax(logits))
