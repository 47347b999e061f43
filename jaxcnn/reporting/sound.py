"""Checks the types of values read from files: damaged parts are left out, and reported in notes."""

import functools
import json
import math
from collections.abc import Iterable
from typing import Any

import jaxcnn.config as configs
from jaxcnn.config import Config
from jaxcnn.reporting.statistics import ACCURACY
from jaxcnn.tasks.confusion import Confusion
from jaxcnn.tasks.headline import Headline
from jaxcnn.text import distinct

LARGEST = 1e15  # limit of all figures in a report: beyond it, floating-point means and spreads may overflow
OF_RECORDS = (
    "step", "epoch", "train_seconds", "loss", "ema_loss", "learning_rate", "top1_accuracy", "ema_top1_accuracy",
    "mean_average_precision", "ema_mean_average_precision", "mean_absolute_error", "ema_mean_absolute_error",
    "ap", "ema_ap", "mask_ap", "ema_mask_ap", "mean_iou", "ema_mean_iou",
)  # fmt: skip
OF_TASKS = {  # for runs without a summary; `jaxcnn.tasks` itself is not imported here, as it needs JAX
    "multilabel": Headline("mean_average_precision", "mean average precision"),
    "detection": Headline("ap", "AP"),
    "instances": Headline("mask_ap", "mask AP"),
    "segmentation": Headline("mean_iou", "mean IoU"),
    "regression": Headline("mean_absolute_error", "mean absolute error", better="lower", percent=False),
}
OF_SUMMARY = (
    "parameters", "steps", "epochs", "global_batch_size", "val_last", "images_per_second", "train_seconds",
    "wall_seconds", "compile_seconds", "starts", "training_flops_per_image", "training_working_bytes",
)  # fmt: skip
OF_SCALING = (
    "devices", "images_per_second", "speedup", "efficiency", "compute_seconds", "communication_seconds",
    "input_seconds",
)  # fmt: skip


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, not too large for calculations."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def default_config() -> dict[str, Any]:
    """The default config, flat, with JSON types."""
    return dict(_defaults())


@functools.cache
def _defaults() -> dict[str, Any]:
    return configs.flatten(json.loads(json.dumps(configs.to_dict(Config()))))


def config(flat: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """A flat config in which values of a wrong type are replaced by the default."""
    sound = {}
    for key, value in flat.items():
        known = key in _defaults()
        if _fits(value, _defaults()[key]) if known else _is_plain(value):
            sound[key] = value
        else:
            notes.append(f"config.{key} cannot be {str(value)[:40]!r}")
            if known:
                sound[key] = _defaults()[key]
    return sound


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        whole = isinstance(default, float) or (is_number(value) and value == int(value))
        return is_number(value) and whole
    return isinstance(value, list) and _is_plain(value) if isinstance(default, list) else isinstance(value, str)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) and not isinstance(item, list) for item in value)
    return value is None or isinstance(value, str | bool) or is_number(value)


def summary(kept: dict[str, Any] | None, notes: list[str]) -> dict[str, Any] | None:
    """A `summary.json` with valid figures only."""
    if kept is None:
        return None
    sound = _numbers(kept, OF_SUMMARY, notes, "summary.json")
    if not _is_headline(sound.get("headline_kind"), sound.get("headline")):
        if sound.get("headline_kind") is not None:
            notes.append("summary.json: headline_kind cannot be read")
        sound["headline_kind"] = None
    for name in ("test", "val_best"):
        value = sound.get(name)
        if isinstance(value, dict):
            sound[name] = _numbers(value, [key for key in value if key != "tta"], notes, f"summary.json: {name}")
        elif value is not None:
            notes.append(f"summary.json: {name} is not an object")
            sound[name] = None
    if "seed" in sound and type(sound["seed"]) is not int:
        notes.append("summary.json: seed is not an integer")
        del sound["seed"]
    return sound


def headline(summary: dict[str, Any] | None, config: dict[str, Any]) -> Headline:
    """The figure that decides in a run, by its valid summary, else by its task, else accuracy."""
    kind, name = (summary or {}).get("headline_kind"), (summary or {}).get("headline")
    if kind and name:
        return Headline(name.removeprefix("ema_"), **kind)
    return OF_TASKS.get(str(config.get("task.name")), ACCURACY)


def _is_headline(kind: Any, name: Any) -> bool:
    """Whether these are the headline figure of a summary, in the form of `jaxcnn.tasks.headline.Headline`."""
    return (
        isinstance(kind, dict)
        and kind.keys() == {"label", "better", "percent"}
        and isinstance(kind["label"], str)
        and kind["better"] in ("higher", "lower")
        and isinstance(kind["percent"], bool)
        and isinstance(name, str)
    )


def _numbers(kept: dict[str, Any], names: Iterable[str], notes: list[str], where: str) -> dict[str, Any]:
    """A mapping without those of `names` whose values are neither numbers nor null."""
    wrong = [name for name in names if kept.get(name) is not None and not is_number(kept[name])]
    notes += [f"{where}: {name} is not a number" for name in wrong]
    return {name: value for name, value in kept.items() if name not in wrong}


def trial(kept: dict[str, Any] | None, notes: list[str]) -> dict[str, Any] | None:
    """A `trial.json` with valid overrides, seed and state."""
    if kept is None:
        return None
    sound = planned(kept)
    if sound is None:
        notes.append("trial.json: overrides or seed cannot be read")
        sound = kept | {"overrides": {}, "seed": None}
    if not isinstance(sound.get("state"), str | None):
        notes.append("trial.json: state is not a string")
        sound = sound | {"state": None}
    return sound


def planned(kept: Any) -> dict[str, Any] | None:
    """A planned trial, {"overrides", "seed", …}; None if it is not valid."""
    if not isinstance(kept, dict) or type(kept.get("seed", 0)) not in (int, type(None)):
        return None
    overrides = kept.get("overrides") or {}
    if not isinstance(overrides, dict) or not all(map(_is_plain, overrides.values())):
        return None
    return kept | {"overrides": overrides}


def sweep(kept: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """A `sweep.json` with valid parts only."""
    sound = dict(kept)
    for name, kind in (("base", dict), ("planned", list), ("varied", list), ("trials", int), ("commands", list)):
        if sound.get(name) is not None and not isinstance(sound[name], kind):
            notes.append(f"sweep.json: {name} cannot be read")
            sound[name] = None
    if sound.get("planned") is not None:
        there = [planned(one) for one in sound["planned"]]
        sound["planned"] = [one for one in there if one is not None]
        if lost := len(there) - len(sound["planned"]):
            notes.append(f"sweep.json: {lost} of the planned trials cannot be read")
    return sound


def environment(kept: dict[str, Any] | None) -> dict[str, Any]:
    """An `environment.json` with valid packages."""
    sound = dict(kept or {})
    if not isinstance(sound.get("packages"), dict):
        sound.pop("packages", None)
    return sound


def confusion(
    test: dict[str, Any] | None, data: dict[str, Any], notes: list[str]
) -> tuple[Confusion | None, tuple[str, ...]]:
    """The confusion matrix of a test, which is removed from it, and the names of its classes.

    The matrix of a detector has one more class, the background, which comes last and is among its names.
    """
    value = (test or {}).pop("confusion_matrix", None)
    if value is None:
        return None, ()
    try:
        found = Confusion.from_json(value)
    except ValueError as error:
        notes.append(f"test: {error}")
        return None, ()
    told = [(test or {}).get(name) for name in ("confusion_classes", "per_class_accuracy")]
    for names in (*told, data.get("class_names")):
        if isinstance(names, list | dict) and len(names) == found.classes:
            return found, distinct([str(name) for name in names])
    return found, tuple(map(str, range(found.classes)))


def records(lines: list[Any]) -> list[dict[str, Any]]:
    """Valid records of `metrics.jsonl`: with numbers, which may be NaN in a diverged run, where required."""
    sound = []
    for line in lines:
        if isinstance(line, dict) and isinstance(line.get("kind"), str):
            wrong = [name for name in OF_RECORDS if name in line and not _is_figure(line[name])]
            sound.append({name: value for name, value in line.items() if name not in wrong})
    return sound


def _is_figure(value: Any) -> bool:
    return is_number(value) or (isinstance(value, float) and not math.isfinite(value))


def scaling_rows(rows: list[Any]) -> list[dict[str, Any]]:
    """Rows of a `scaling.json` without their invalid figures; only rows with devices and a speed."""
    sound = []
    for row in rows:
        if isinstance(row, dict):
            row = {name: of for name, of in row.items() if name not in OF_SCALING or (is_number(of) and of > 0)}
            if type(row.get("devices")) is int and "images_per_second" in row:
                sound.append(row)
    return sound
