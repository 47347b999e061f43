"""A folder with a page that answers in the browser: the network as ONNX, its facts, the page and its runtime.

It tells the classes of an image, or draws the boxes of a detector over it. Nothing is asked of any server but for the
files of the folder, and no image leaves the page. The page resizes as jaxcnn does, to the same pixels
(`page/pixels.js`); normalisation, and what a detector finds, are in the file of the network.
"""

import hashlib
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from jaxcnn.config import UserError
from jaxcnn.data import decode
from jaxcnn.deploy import predictor, web_runtime
from jaxcnn.machine import json_text, whole_files
from jaxcnn.tasks.temperature import temperature_of
from jaxcnn.text import shown
from jaxcnn.train.trained import Trained

NETWORK, FACTS, RUNTIME = "model.onnx", "network.json", "runtime"
TASKS = ("classification", "multilabel", "detection")
_PAGE = pathlib.Path(__file__).with_name("page")


def begin(trained: Trained, folder: pathlib.Path) -> pathlib.Path:
    """Make the folder; return where the network goes.

    Raises:
      UserError: the page does not know such images or answers, or the folder cannot be made.
    """
    _check(trained)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{shown(str(folder))} cannot be made: {error.strerror}") from error
    return folder / NETWORK


def _check(trained: Trained) -> None:
    spec, task = trained.spec, trained.config.task.name
    if task not in TASKS or trained.config.task.evaluation:
        other = "an evaluation of its own" if task in TASKS else f"config.task.name={task!r}"
        raise UserError(f"--format=web shows the answers of {', '.join(TASKS)}, not of {other}; use --format=onnx")
    channels = spec.image_shape[2]
    if spec.image_dtype != "uint8" or channels not in (1, 3):
        raise UserError(
            f"--format=web is for images of 8 bits, grey or RGB, as browsers have them, not {channels} channels of "
            f"{spec.image_dtype}; use --format=onnx"
        )


def write(trained: Trained, folder: pathlib.Path, quantize: str, runtime: dict[str, bytes]) -> int:
    """Write all but the network, whose file is there already; return the bytes of the folder.

    Args:
      trained: the network.
      folder: it.
      quantize: the type of the file: none, float16 or int8.
      runtime: the files of `web_runtime`.

    Raises:
      UserError: a file cannot be written.
    """
    content = (folder / NETWORK).read_bytes()
    told = {name: json_text.parse_or_keep(value) for name, value in predictor.facts(trained).items()}
    shown_facts = {
        "class_names": told["class_names"],
        "image_shape": told["image_shape"],
        "made_by": told["made_by"],
        "max_megapixels": trained.config.data.max_megapixels,
        "model": trained.config.model.name,
        "order": _order_of_axes(),
        "quantize": quantize,
        "resize": trained.config.data.resize,
        "runtime": web_runtime.VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "step": trained.step,
        "task": trained.config.task.name,
    }
    if trained.config.task.name == "classification":
        shown_facts["temperature"] = temperature_of(trained.fitted)
    if trained.config.task.name == "detection":
        shown_facts |= _of_boxes(trained)
    if trained.config.task.name == "multilabel":
        from jaxcnn.tasks import multilabel

        halves = [multilabel.THRESHOLD] * len(trained.class_names)
        shown_facts["thresholds"] = [float(each) for each in trained.fitted.get("thresholds", halves)]
    files = {path.name: path.read_bytes() for path in sorted(_PAGE.iterdir())}
    files |= {f"{RUNTIME}/{name}": content for name, content in runtime.items()}
    files[FACTS] = json.dumps(shown_facts, indent=1).encode()  # ASCII: names of any letters are escaped
    try:
        (folder / RUNTIME).mkdir(exist_ok=True)
        for name, content in files.items():
            whole_files.write(folder / name, content)
    except OSError as error:
        raise UserError(f"{shown(str(folder))} cannot be written: {error.strerror}") from error
    return sum(map(len, files.values())) + (folder / NETWORK).stat().st_size


def _of_boxes(trained: Trained) -> dict[str, Any]:
    """The score from which boxes are drawn at first, and the one of each class that validation chose, if it did."""
    from jaxcnn.tasks import found_boxes, matching

    chosen = matching.of_classes(trained.fitted.get("thresholds", ()), len(trained.class_names))
    return {"least": found_boxes.SURE} | ({"thresholds": chosen} if chosen else {})


def _order_of_axes() -> str:
    """Which axis Pillow resizes first, which decides the last bit: from version 13 on the "cheapest", or the "rows"."""
    tall = np.random.default_rng(0).integers(0, 256, (64, 20, 1), np.uint8)
    columns_first = decode.resize(tall, 16, "stretch")
    image = Image.fromarray(tall[..., 0]).resize((20, 16), Image.Resampling.BILINEAR)
    wanted = image.resize((16, 16), Image.Resampling.BILINEAR)
    return "cheapest" if np.array_equal(columns_first[..., 0], np.asarray(wanted)) else "rows"
