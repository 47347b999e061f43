"""The written form of keys, values, times and figures in a report."""

import collections
import functools
import math
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import jaxcnn.config as configs
from jaxcnn.config.networks import CIFAR_RESNET, RESNET
from jaxcnn.reporting.statistics import Spread
from jaxcnn.tasks.headline import Headline
from jaxcnn.train import terminal

ARCHITECTURES = {
    "alexnet": "AlexNet",
    **{name: name.upper() for name in ("vgg11", "vgg13", "vgg16", "vgg19")},
    **{name: name.replace("resnet", "ResNet") for name in (*RESNET, *CIFAR_RESNET)},
    "wide_resnet50_2": "wide ResNet50",
    "wide_resnet101_2": "wide ResNet101",
    "mobilenet_v2": "MobileNetV2",
    "efficientnet_b0": "EfficientNet-B0",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "convnext_tiny": "ConvNeXt-Tiny",
    "squeezenet1_0": "SqueezeNet 1.0",
    "squeezenet1_1": "SqueezeNet 1.1",
    "cnn": "small CNN",
    "airbench": "airbench",
    "airbench_residual": "residual airbench",
}
DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "digits": "digits", "mnist": "MNIST"}
GROUPS = {"norm": "BatchNorm", "optim": "optimiser"}
KEYS = {
    "global_batch_size": "batch size",
    "model.name": "architecture",
    "data.source": "data",
    "run.epochs": "epochs",
    "run.steps": "steps",
    "optim.name": "optimiser",
    "schedule.name": "schedule",
    "run.patience": "patience",
    "norm.name": "normalisation",
    "norm.groups": "GroupNorm groups",
    "norm.group_size": "BatchNorm group",
    "data.group": "groups by",
    "augment.policy": "policy",
    "augment.rotate": "rotation",
    "augment.erasing": "random erasing",
    "optim.ema_decay": "moving average",
    "model.attention": "attention",
}


def key(name: str) -> str:
    """A config key in words: "optim.learning_rate" -> "learning rate"; with its group if the end is ambiguous."""
    if name in KEYS:
        return KEYS[name]
    group, _, leaf = name.rpartition(".")
    words = leaf.replace("_", " ")
    return f"{GROUPS.get(group, group)} {words}" if group and leaf in _ambiguous() else words


@functools.cache
def _ambiguous() -> frozenset[str]:
    """Last parts that are common to several config keys."""
    leaves = collections.Counter(key.rpartition(".")[2] for key in configs.flatten(configs.to_dict(configs.Config())))
    return frozenset(leaf for leaf, count in leaves.items() if count > 1)


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
    """The network's name, with its width if that is not the full one."""
    name = ARCHITECTURES.get(config.get("model.name", ""), config.get("model.name") or "unknown network")
    form = " (ImageNet form)" if config.get("model.form") == "imagenet" else ""
    width = config.get("model.width", 1.0)
    return f"{name}{form}" + (f", width {fraction(width)}" if width != 1 else "")


def fraction(of: float) -> str:
    """1/16 for 0.0625; other numbers unchanged."""
    inverse = 1 / of if of else 0
    return f"1/{inverse:.0f}" if 1.5 < inverse < 1e6 and abs(inverse - round(inverse)) < 1e-9 else value(of)


def dataset_id(source: str) -> str:
    """The short name of a data set: "cifar10" for "tfds:cifar10" and "npz:/data/cifar10.npz"."""
    kind, _, rest = source.partition(":")
    if kind == "tfds":
        return rest.split(":")[0]
    if kind in ("npz", "csv"):
        return pathlib.PurePath(rest).stem
    if kind == "folder":
        return pathlib.PurePath(rest).name or rest
    return source


def dataset(config: dict[str, Any]) -> str:
    """The data set's name, with the part used for training if that is not all."""
    known = dataset_id(str(config.get("data.source") or ""))
    name = DATA.get(known, known or "unknown data")
    split = config.get("data.train_split", "train")
    return name if split == "train" else f"{name}, {split}"


def datasets(all_configs: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Sources whose different data sets would get the same name -> the path that distinguishes them.

    Copies of a set that is known by name may be in any place.
    """
    places: dict[str, set[str]] = {}
    for config in all_configs:
        source = str(config.get("data.source") or "")
        if source.startswith(("npz:", "folder:", "csv:")) and dataset_id(source) not in DATA:
            places.setdefault(dataset_id(source), set()).add(source)
    return {source: source.partition(":")[2] for found in places.values() if len(found) > 1 for source in found}


def epochs(length: float, steps: Any) -> str:
    """A length in epochs, as the terminal shows it: "30" after the step in which the 30th epoch ends, else "2.07".

    `steps` is the same length in steps; without it, the number is rounded.
    """
    known = isinstance(steps, int | float) and 1 <= steps < math.inf and 0 < length < math.inf
    return terminal.epochs_at(steps, length) if known else f"{length:.6g}"


def figure(of: float | None, headline: Headline) -> str:
    """A headline figure: per cent as in `percent`, other units as they are."""
    return percent(of) if headline.percent or of is None else f"{of:.4g}"


def unit(headline: Headline) -> str:
    """The unit of a headline figure, after its number."""
    return " %" if headline.percent else ""


def percent(fraction_of: float | None, digits: int = 2) -> str:
    """0.9361 -> "93.61"; an en dash for None."""
    return "–" if fraction_of is None else f"{100 * fraction_of:.{digits}f}"


def percent_spread(of: Spread | None) -> str:
    """Mean ± std in the unit of the figure: "93.61 ± 0.12" in per cent; without ± for one seed."""
    if of is None:
        return "–"
    deviation = "" if of.std is None else f" ± {of.scale * of.std:{'.2f' if of.headline.percent else '.2g'}}"
    return figure(of.mean, of.headline) + deviation


def seconds(of: float | None) -> str:
    """A time in readable form: "0.42 s", "12.3 s", "4.1 min", "2.3 h"."""
    if of is None or not math.isfinite(of):
        return "–"
    if of < 1:
        return f"{of:.2f} s"
    if of < 120:
        return f"{of:.1f} s"
    return f"{of / 60:.1f} min" if of < 7200 else f"{of / 3600:.2f} h"


def seconds_spread(of: Spread | None) -> str:
    """Mean ± std in the unit of the mean: "4.1 ± 0.2 min"; without ± for one seed."""
    written = seconds(of.mean if of else None)
    if of is None or of.std is None or written == "–":
        return written
    number, unit = written.split(" ")
    digits = len(number.partition(".")[2])
    return f"{number} ± {of.std / {'s': 1, 'min': 60, 'h': 3600}[unit]:.{digits}f} {unit}"


def count(number: int, noun: str, plural: str = "") -> str:
    """ "1 run", "2 runs"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def seeds(number: int, runs: int, noun: str = "seed") -> str:
    """ "3 seeds"; if seeds ran more than once, "1 seed, run 3 times" or "2 seeds in 5 runs"; also of another noun."""
    told = count(number, noun)
    if runs <= number:
        return told
    return f"{told}, run {runs:,} times" if number == 1 else f"{told} in {runs:,} runs"


UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]"
)


def printable(text: str) -> str:
    """A text that any page, file and picture can contain: characters that cannot be shown safely are escaped.

    These are control characters except line breaks and tabs, bytes of a file name that are not UTF-8, surrogates (half
    characters), and marks that change the direction of writing.
    """
    return UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:  # Python's form of undecodable bytes in a name
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def printables(value: Any) -> Any:
    """A JSON value with `printable` texts."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(key)): printables(of) for key, of in value.items()}
    return [printables(of) for of in value] if isinstance(value, list | tuple) else value


def slug(text: str) -> str:
    """Letters, digits and dashes of a text, for file names and anchors; several texts may give the same slug."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:80].strip("-") or "x"


def untaken(name: str, taken: set[str]) -> str:
    """A name, or "<name>-2" and so on if it is taken; the result is added to `taken`."""
    chosen, number = name, 2
    while chosen in taken:
        chosen, number = f"{name}-{number}", number + 1
    taken.add(chosen)
    return chosen
