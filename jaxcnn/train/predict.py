"""`--mode=predict`: labels for images."""

import csv
import json
import os
import pathlib
import stat
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Num

from jaxcnn.config import Data, UserError
from jaxcnn.data import boxes, listing
from jaxcnn.data.decode import Unreadable
from jaxcnn.data.pixels import decode_for, decode_stack, size_for
from jaxcnn.learn import programs
from jaxcnn.machine.extras import need
from jaxcnn.machine.mesh import data_devices, over_data
from jaxcnn.machine.paths import expand
from jaxcnn.tasks import matching
from jaxcnn.tasks.found_boxes import SURE, Detections
from jaxcnn.tasks.found_instances import FoundInstances
from jaxcnn.tasks.marks import Marking
from jaxcnn.tasks.task import Evaluation, Finding
from jaxcnn.text import counted, save_picture, shown
from jaxcnn.train import mistakes, predictions_page
from jaxcnn.train.trained import Trained

BATCH = 64
MOST_DRAWN = 120  # images in one picture
MOST_SHOWN = 200  # images on one page


def find_images(places: list[str], flag: str = "--images") -> tuple[list[pathlib.Path], list[str]]:
    """The image files in a list of files and folders, and notes on skipped files.

    A folder gives all its images at any depth, sorted, by the rule of `list_images`, or else all its
    `.npy` files; a file is taken whatever its name. Errors name the `flag` that the places are from.

    Raises:
      UserError: a place does not exist or is neither file nor folder, or a folder has no image or cannot be listed.
    """
    found: list[pathlib.Path] = []
    notes: list[str] = []
    for place in places:
        path = expand(place, f"{flag}=")
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise UserError(f"{flag}={place}: this file or folder does not exist") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{flag}={place} cannot be read: {getattr(error, 'strerror', error)}") from None
        if stat.S_ISDIR(mode):
            inside = listing.list_images(path)
            if not inside.paths:
                inside = listing.list_images(path, arrays=True)
            if not inside.paths:
                others = f", but {listing.told(inside.others)}" if inside.others else ""
                raise UserError(f"{flag}={place}: no images in this folder ({listing.KNOWN}){others}")
            found += sorted(path / each for each in inside.paths)
            notes += listing.passed_over(inside.others, place)
        elif stat.S_ISREG(mode):
            found.append(path)
        else:
            raise UserError(f"{flag}={place} is neither a file nor a folder; copy its content into a file")
    return found, notes


def predict(
    trained: Trained,
    paths: list[pathlib.Path],
    *,
    skip_unreadable: bool,
    answer: Callable[[np.ndarray], list[dict[str, Any]]] | None = None,
) -> list[dict[str, Any]]:
    """The file of each image with the task's answer, in the order of `paths`.

    For classification, these are the most probable classes: `{"file", "label", "probability", "top": [...]}`. Images
    are resized as for training. With `skip_unreadable`, an image that cannot be read has an "error" in place of the
    labels. `answer` answers for images, such as those of an ensemble; None: the network alone.

    Raises:
      UserError: an image cannot be read, or does not have the channels and the type of values of the network's images.
    """
    shape = trained.spec.image_shape
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
            stack = np.stack(pixels)
            found = answers(trained, stack) if answer is None else answer(stack)
            for result, one in zip(readable, found, strict=True):
                result |= in_stored(trained, one, stored_sides(trained, pathlib.Path(result["file"]).read_bytes))
        results += batch
    return results


def stored_sides(trained: Trained, read: Callable[[], bytes]) -> tuple[int, int] | None:
    """The height and width of an image as it is stored, from its bytes; None if answers have no places in it.

    `read` is called only if they have. Raises Unreadable if it is no image.
    """
    if trained.spec.task.finds is None:
        return None
    return size_for(trained.config.data, read(), trained.spec.image_shape[-1])


def in_stored(trained: Trained, answer: dict[str, Any], sides: tuple[int, int] | None) -> dict[str, Any]:
    """An answer whose places are converted to pixels of the stored image, masks painted; others are unchanged.

    Args:
      trained: the network.
      answer: from `answers`.
      sides: height and width of the stored image; None if the answer has no places, or the image was not resized.
    """
    finds, (height, width, _) = trained.spec.task.finds, trained.spec.image_shape
    if finds is None:
        return answer
    if sides is None:
        is_grid = isinstance(finds, FoundInstances)
        return finds.in_stored(answer, boxes.WHOLE, (height, width)) if is_grid else answer
    size = height if height == width else 0
    return finds.in_stored(answer, boxes.frame_of(*sides, size, trained.config.data.resize), sides)


def as_json(trained: Trained, results: list[dict[str, Any]]) -> Any:
    """The results of `predict` in the form for JSON files; those with places in an image are in COCO's form."""
    finds = trained.spec.task.finds
    return results if finds is None else finds.as_file(results, trained.class_names)


def answers(trained: Trained, images: Num[np.ndarray, "n h w c"]) -> list[dict[str, Any]]:
    """The answer of the task for each image; for classification, `{"label", "probability", "top": [...]}`."""
    outputs = outputs_of(trained, images)
    return trained.spec.task.evaluation.answers(outputs, trained.class_names, trained.constants, trained.fitted)


def write(evaluation: Evaluation, results: list[dict[str, Any]], path: pathlib.Path, tree: Any = None) -> None:
    """Write the results of `predict`: as CSV, one row per image, if the file's name ends in .csv; else as JSON.

    `tree`, if given, comes from `as_json` and takes their place in JSON. The columns are file, those of the task (for
    classification label, probability, label_2, probability_2, …) and error. Bytes of a name that are not UTF-8 are
    escaped, as in JSON.
    """
    if path.suffix.lower() != ".csv":
        path.write_text(json.dumps(results if tree is None else tree, indent=2) + "\n", encoding="utf-8")
        return
    rows = [{} if "error" in result else evaluation.columns(result) for result in results]
    names = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, ["file", *names, "error"], quoting=csv.QUOTE_MINIMAL)
        writer.writeheader()
        for result, row in zip(results, rows, strict=True):
            writer.writerow({"file": result["file"], "error": result.get("error", "")} | row)


def in_words(result: dict[str, Any], finds: Finding | None = None) -> str:
    """A result of `predict` as one line; for classification the three most probable classes.

    `finds` is `Task.finds` of the task.
    """
    if finds is not None:
        return finds.in_words(result)
    if "top" in result:
        return ", ".join(f"{shown(one['label'])} {100 * one['probability']:.1f}%" for one in result["top"][:3])
    return mistakes.in_words(result)


def draw(trained: Trained, results: list[dict[str, Any]], path: pathlib.Path) -> list[str]:
    """Draw the images of the results of `predict`, as the network reads them, with its answers, as PNG; return remarks.

    The first `MOST_DRAWN` are drawn, and images that could not be read are left out.

    Raises:
      UserError: none of the images could be read.
    """
    need("report", f"--out={path}", "matplotlib")
    readable = [result for result in results if "error" not in result]
    if not readable:
        raise UserError(f"--out={path}: none of the images could be read, so there is nothing to draw")
    drawn = readable[:MOST_DRAWN]
    shape = trained.spec.image_shape
    images = np.stack([read(pathlib.Path(result["file"]), shape, trained.config.data) for result in drawn])
    pictures = list(mistakes.as_rgb(images))
    if (finds := trained.spec.task.finds) is not None:
        pictures = [_found_drawn(finds, result, trained.config.data, shape[-1]) for result in drawn]
    examples = [
        mistakes.Example(
            index=number,
            name=result["file"],
            image=image,
            label=shown(pathlib.Path(result["file"]).name),
            answer=finds.in_words(result) if finds else mistakes.in_words(result),
            loss=float("nan"),
        )
        for number, (image, result) in enumerate(zip(pictures, drawn, strict=True))
    ]
    title = [
        f"{counted(len(drawn), 'image')}, checkpoint {trained.step}",
        "Below each image: its file, and the answer.",
    ]
    save_picture(mistakes.sheet(examples, title, colour="#0b57d0"), path, format="png", dpi=mistakes.DPI)
    left_out = len(results) - len(drawn)
    return [f"{path} has {len(drawn)} of {len(results)} images"] if left_out else []


def write_page(trained: Trained, results: list[dict[str, Any]], path: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Write the page of the results of `predict` (`predictions_page`), of the run in `folder`; return remarks.

    The first `MOST_SHOWN` images are shown; those of tasks that find something, as they are stored. Their names are
    paths from the folder that all have in common.
    """
    task, shape = trained.spec.task, trained.spec.image_shape
    finds, marking = task.finds, task.evaluation
    base = os.path.commonpath([str(pathlib.Path(result["file"]).absolute().parent) for result in results])

    def item(result: dict[str, Any]) -> predictions_page.Item:
        name = shown(os.path.relpath(pathlib.Path(result["file"]).absolute(), base))
        if "error" in result:
            return predictions_page.Item(name, None, shown(result["error"]))
        file = pathlib.Path(result["file"])
        if finds is None:
            pixels = read(file, shape, trained.config.data)
        else:
            pixels = decode_for(trained.config.data, file.read_bytes(), 0, shape[-1])
        image, words = mistakes.as_rgb(pixels[None])[0], in_words(result, finds)
        marks = marking.marks(result) if isinstance(marking, Marking) else ()
        return predictions_page.Item(name, image, words, marks, predictions_page.likely(result))

    items = [item(result) for result in results[:MOST_SHOWN]]
    unread = sum(each.image is None for each in items)
    told = predictions_page.remarks(len(results), MOST_SHOWN, unread)
    title = f"{shown(folder.resolve().name)}: {counted(len(items), 'image')}"
    about = [" ".join([f"Checkpoint {trained.step}, {trained.weights} weights.", *told])]
    chosen = matching.of_classes(trained.fitted.get("thresholds", ()), len(trained.class_names))
    own = chosen if isinstance(trained.spec.task.evaluation, Detections) else []
    page = predictions_page.page(title, about, items, trained.class_names, SURE, own)
    path.write_text(page, encoding="utf-8")
    return [f"{path}: {line}" for line in told[:1] if len(results) > MOST_SHOWN]


def _found_drawn(finds: Finding, result: dict[str, Any], data: Data, channels: int) -> np.ndarray:
    """An image as it is stored, with what was found drawn into it."""
    pixels = decode_for(data, pathlib.Path(result["file"]).read_bytes(), 0, channels)
    return finds.drawn(mistakes.as_rgb(pixels[None])[0], result)


def unreadable(path: pathlib.Path, error: Exception) -> UserError:
    """The error for a file that cannot be read as an image."""
    return UserError(f"cannot read image {path}: {error}; repair it, leave it out, or set --on_error=skip")


def read(path: pathlib.Path, shape: tuple[int, int, int], data: Data) -> np.ndarray:
    """Pixels in the type and network's image shape; resized if that is square, otherwise the image must have it."""
    return decoded(path.read_bytes(), shape, data)


def decoded(content: bytes, shape: tuple[int, int, int], data: Data) -> np.ndarray:
    """The pixels as from `read`, from the bytes of an image.

    Raises:
      Unreadable: the bytes are no image, or one of another shape.
    """
    height, width, channels = shape
    size = height if height == width else 0
    return _of_shape(decode_for(data, content, size, channels), shape)


def decoded_stack(content: bytes, shape: tuple[int, int, int], data: Data) -> list[np.ndarray]:
    """The pixels as from `decoded`, for each image of a `.npy` file [N, H, W, C].

    Raises:
      Unreadable: as in `decoded`.
    """
    height, width, channels = shape
    stack = decode_stack(data, content, height if height == width else 0, channels)
    return [_of_shape(pixels, shape) for pixels in stack]


def _of_shape(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    height, width, _ = shape
    if pixels.shape != shape:
        raise Unreadable(f"it is {pixels.shape[1]}x{pixels.shape[0]}, but the network accepts only {width}x{height}")
    return pixels


def outputs_of(
    trained: Trained, images: Num[np.ndarray, "n h w c"], layer: str | None = None, *, outputs: bool = False
) -> np.ndarray:
    """The outputs float32 [n, K] of at most `BATCH` images, or the features of a `layer` (`learn.features`).

    A short batch is padded, so that one program serves all. With `outputs`, both: outputs, then features, in a row.
    """
    devices = data_devices(trained.mesh)
    padded = np.zeros((-(-BATCH // devices) * devices, *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    return outputs_of_whole(trained, padded, layer, outputs=outputs)[: len(images)]


def outputs_of_whole(
    trained: Trained, images: Num[np.ndarray, "n h w c"], layer: str | None = None, *, outputs: bool = False
) -> np.ndarray:
    """Like `outputs_of`, for a batch of any size that the devices divide, with a program for each size."""
    asked = () if layer is None else (layer, True) if outputs else (layer,)
    step = programs.predict_step(trained.spec, trained.mesh, len(images), *asked)
    placed = jax.device_put(images, over_data(trained.mesh))
    return np.asarray(step(trained.variables, placed, trained.constants))
