"""How keys, values, times and figures are written in a report."""

import math
import pathlib
import re
from typing import Any

from jaxcnn.reporting.statistics import Spread

ARCHITECTURES = {
    "alexnet": "AlexNet",
    "vgg16": "VGG16",
    "resnet50": "ResNet50",
    "cnn": "small CNN",
    "airbench": "airbench",
}
DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "digits": "digits", "mnist": "MNIST"}
KEYS = {
    "global_batch_size": "batch size",
    "model.name": "architecture",
    "data.source": "data",
    "run.epochs": "epochs",
    "run.steps": "steps",
    "optim.name": "optimiser",
    "schedule.name": "schedule",
    "norm.group_size": "BatchNorm group",
    "augment.policy": "policy",
    "optim.ema_decay": "moving average",
}


def key(name: str) -> str:
    """A config key in words: "optim.learning_rate" -> "learning rate"."""
    return KEYS.get(name, name.rpartition(".")[2].replace("_", " "))


def value(of: Any) -> str:
    """A config value, short."""
    if isinstance(of, bool):
        return "on" if of else "off"
    if isinstance(of, float):
        return f"{of:.6g}"
    if isinstance(of, list | tuple):
        return ", ".join(value(item) for item in of) or "none"
    return str(of)


def setting(varied: dict[str, Any]) -> str:
    """Keys and their values: "batch size 64, learning rate 0.1"."""
    return ", ".join(f"{key(name)} {_known(name, of)}" for name, of in varied.items())


def _known(name: str, of: Any) -> str:
    if name == "model.name":
        return ARCHITECTURES.get(of, value(of))
    return fraction(of) if name == "model.width" else value(of)


def architecture(config: dict[str, Any]) -> str:
    """The network's name, with its width where that is not the full one."""
    name = ARCHITECTURES.get(config.get("model.name", ""), config.get("model.name") or "unknown network")
    form = " (ImageNet form)" if config.get("model.form") == "imagenet" else ""
    width = config.get("model.width", 1.0)
    return f"{name}{form}" + (f", width {fraction(width)}" if width != 1 else "")


def fraction(of: float) -> str:
    """1/16 for 0.0625; other numbers as they are."""
    inverse = 1 / of if of else 0
    return f"1/{inverse:.0f}" if inverse > 1.5 and abs(inverse - round(inverse)) < 1e-9 else value(of)


def dataset_id(source: str) -> str:
    """What a data set is known as: "cifar10" for "tfds:cifar10" and "npz:/data/cifar10.npz"."""
    kind, _, rest = source.partition(":")
    if kind == "tfds":
        return rest.split(":")[0]
    if kind == "npz":
        return pathlib.PurePath(rest).stem
    if kind == "folder":
        return pathlib.PurePath(rest).name or rest
    return source


def dataset(config: dict[str, Any]) -> str:
    """The data set's name, with what part of it is trained on if that is not all."""
    known = dataset_id(str(config.get("data.source") or ""))
    name = DATA.get(known, known or "unknown data")
    split = config.get("data.train_split", "train")
    return name if split == "train" else f"{name}, {split}"


def percent(fraction_of: float | None, digits: int = 2) -> str:
    """0.9361 -> "93.61"; an en dash for None."""
    return "–" if fraction_of is None else f"{100 * fraction_of:.{digits}f}"


def percent_spread(of: Spread | None) -> str:
    """Mean ± std in per cent: "93.61 ± 0.12"; without ± for one run."""
    if of is None:
        return "–"
    return percent(of.mean) + (f" ± {100 * of.std:.2f}" if of.std is not None else "")


def seconds(of: float | None) -> str:
    """A time for a person: "0.42 s", "12.3 s", "4.1 min", "2.3 h"."""
    if of is None or not math.isfinite(of):
        return "–"
    if of < 1:
        return f"{of:.2f} s"
    if of < 120:
        return f"{of:.1f} s"
    return f"{of / 60:.1f} min" if of < 7200 else f"{of / 3600:.2f} h"


def count(number: int, noun: str, plural: str = "") -> str:
    """ "1 run", "2 runs"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def slug(text: str) -> str:
    """Letters, digits and dashes of a text, for file names and anchors."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"
