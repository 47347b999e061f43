"""A model card in Markdown, beside a file or a run: what the network is, its figures, and what is not known of it.

Mitchell et al. 2019, "Model cards for model reporting", arXiv:1810.03993. What a run cannot know, such as the licence,
is left to be filled in; no figure is on a card but those that were measured with these weights, each with its split.
"""

import datetime
import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax

import jaxcnn
from jaxcnn.config import UserError, networks
from jaxcnn.deploy import predictor
from jaxcnn.learn.state import count_parameters
from jaxcnn.machine import whole_files
from jaxcnn.text import as_markdown, counted, markdown_table, shown
from jaxcnn.train import environment, workdir
from jaxcnn.train.trained import Trained

TITLE, OF_THE_USER = "# Model card: ", "To be filled in by whoever gives it to others"
TO_FILL_IN = "*to be filled in*"
LEFT = "a model card, whose licence and uses are to be filled in"
MOST_LABELS = 200
_BELOW = ("Images it takes, and what it answers", "Labels", "Data and protocol", "Figures", "Limits", "Provenance")
_TITLES_BELOW = tuple(f"## {title}" for title in _BELOW)
_LEFT_TO_THE_USER = (
    ("Licence", "of the network, and of the data it learnt from"),
    ("Contact", "whom to ask, and whom to tell of mistakes"),
    ("Intended use", "what for, and by whom"),
    ("Uses it is not for", "decisions that must not be left to it"),
    ("Ethical considerations", "whom its mistakes may harm; whether the images were given with consent"),
)


def place_of(artefact: pathlib.Path, is_folder: bool) -> pathlib.Path:
    """Where the card of a file lies, or that of a folder, which may be a run, a page or a SavedModel."""
    return artefact / "model_card.md" if is_folder else artefact.with_name(f"{artefact.name}.md")


def check(path: pathlib.Path) -> None:
    """Refuse the place of a card where something else lies.

    Raises:
      UserError: it does.
    """
    if path.exists() and not _text(path).startswith(TITLE):
        raise UserError(f"{shown(str(path))} is there, and is no model card; move it, or give --nocard")


def _text(path: pathlib.Path) -> str:
    """The text of a file; empty if it has none that can be read."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _of_the_user(path: pathlib.Path) -> list[str]:
    """The lines of a card that are left to the user: those of an earlier card in the same place, if there is one.

    They end with the next title of `write`, so they may have titles of their own.
    """
    _, found, rest = _text(path).partition(f"\n## {OF_THE_USER}\n")
    if found:
        lines = rest.strip("\n").split("\n")
        end = next((number for number, line in enumerate(lines) if line in _TITLES_BELOW), len(lines))
        return "\n".join(lines[:end]).strip("\n").split("\n")
    return [f"- **{what}** ({of}): {TO_FILL_IN}" for what, of in _LEFT_TO_THE_USER]


def write(
    trained: Trained,
    folder: pathlib.Path,
    artefact: pathlib.Path,
    form: str,
    *,
    exact: bool = True,
    measured: Sequence[str] = (),
) -> pathlib.Path:
    """Write the card of a network; return its path. What a user has filled in on an earlier card stays.

    Args:
      trained: the network.
      folder: the workdir of the run that it was trained in.
      artefact: the file, or the folder of a run.
      form: the format, in words.
      exact: whether it computes what the run does; else the figures of the run are not those of the artefact.
      measured: lines of Markdown on what was measured of the artefact itself.

    Raises:
      UserError: it cannot be written.
    """
    path = place_of(artefact, artefact.is_dir())
    below = (
        _input(trained), _labels(trained), _data(trained, folder), _figures(trained, folder, exact, measured),
        _limits(trained, folder), _provenance(trained, folder, artefact),
    )  # fmt: skip
    sections = {"What it is": _what(trained, artefact, form), OF_THE_USER: _of_the_user(path)}
    sections |= zip(_BELOW, below, strict=True)
    lines = [f"{TITLE}{as_markdown(shown(artefact.name))}", ""]
    for title, body in sections.items():
        lines += [f"## {title}", "", *body, ""]
    try:
        whole_files.write(path, "\n".join(lines))
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be written: {error.strerror}") from error
    return path


def _safe(value: Any) -> str:
    """A value as text on one line without markup."""
    return as_markdown(shown(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))


def _pairs(pairs: Iterable[tuple[str, Any]]) -> list[str]:
    return markdown_table(["", ""], [[name, _safe(value)] for name, value in pairs if value not in (None, "", ())])


def _what(trained: Trained, artefact: pathlib.Path, form: str) -> list[str]:
    model = trained.config.model
    slimmed = f"fewer channels in {counted(len(model.channels), 'layer')}" if model.channels else ""
    return _pairs(
        (
            ("network", model.name),
            ("layout", model.form if model.name in networks.readers("form") else ""),
            ("width", "" if model.width == 1 else f"{model.width:g}"),
            ("slimmed", slimmed),
            ("parameters", f"{count_parameters(trained.variables['params']):,}"),
            ("task", trained.config.task.name),
            ("form of this artefact", form),
            ("bytes", f"{artefact.stat().st_size:,}" if artefact.is_file() else ""),
        )
    )


def _input(trained: Trained) -> list[str]:
    facts = {name: json.loads(text) for name, text in predictor.facts(trained).items() if name not in _NOT_JSON}
    height, width, channels = facts["image_shape"]
    colours = {1: "grey", 3: "red, green, blue"}.get(channels, "as stored")
    return _pairs(
        (
            ("images", facts["input"]),
            ("size", f"{height} x {width} pixels, {channels} channels ({colours})"),
            ("resize", facts["resize"]),
            ("mean", facts.get("mean", "none: pixels count from 0 to 1")),
            ("standard deviation", facts.get("std")),
            ("answer", facts["output"]),
        )
    )


_NOT_JSON = ("format", "made_by")


def _labels(trained: Trained) -> list[str]:
    names = trained.class_names
    rows = [[str(number), _safe(name)] for number, name in enumerate(names[:MOST_LABELS])]
    more = [f"\nand {len(names) - MOST_LABELS:,} more."] if len(names) > MOST_LABELS else []
    return [*markdown_table(["number", "label"], rows), *more]


def _data(trained: Trained, folder: pathlib.Path) -> list[str]:
    config, facts = trained.config, workdir.read_data_facts(folder)
    held = {
        "holdout": "a validation split decided, and the test split was read at the end",
        "full": "trained on the whole training split; no validation split decided anything",
    }
    return _pairs(
        (
            ("source", config.data.source),
            *((f"{name} split", description) for name, description in facts.get("splits", {}).items()),
            ("training examples", f"{facts['train_examples']:,}"),
            ("protocol", f"{config.data.protocol}: {held[config.data.protocol]}"),
            ("starting weights", config.init.source or "drawn, or those of the network that it was made from"),
            ("steps", f"{trained.step:,} of {trained.config.global_batch_size} images"),
            ("weights", "the moving average" if trained.weights == "ema" else "those of the last step"),
            ("seed", config.seed),
        )
    )


def _figures(trained: Trained, folder: pathlib.Path, exact: bool, measured: Sequence[str]) -> list[str]:
    known = _measured_in_run(trained, folder)
    lines = []
    if known and not exact:
        lines += ["Of the run that it was made from, **not of this artefact**:", ""]
    if known:
        lines += [*markdown_table(["split", "examples", "figure", "value"], known), ""]
    if measured:
        lines += ["Measured on the artefact itself:", "", *measured]
    elif not exact or not known:
        lines.append("Of the artefact itself nothing was measured.")
    return lines


def _measured_in_run(trained: Trained, folder: pathlib.Path) -> list[list[str]]:
    """Rows of the figures that the workdir has of these weights: of the single test, and of `--mode=eval`."""
    found: dict[str, tuple[dict[str, Any], str]] = {}
    summary = _read(folder / "summary.json")
    test, headline = summary.get("test"), trained.spec.task.evaluation.headline
    prefix = "ema_" if str(summary.get("headline", "")).startswith("ema_") else ""
    same = (trained.weights == "ema") == bool(prefix)  # as those of the test and of validation
    if same and isinstance(test, dict) and test.get("of_step") == trained.step:
        earlier = len(summary.get("earlier_tests") or ())
        again = f" (also read at {counted(earlier, 'earlier end')} of the run)" if earlier else ""
        found["test"] = ({name.removeprefix(prefix): value for name, value in test.items()}, again)
    for path in sorted(folder.glob(f"eval-*-{trained.step}.json")):
        figures = _read(path)
        if figures.get("step") == trained.step and figures.get("weights") == trained.weights:
            found.setdefault(str(figures.get("split")), (figures, ""))
    val = summary.get("val_last") if same and summary.get("steps") == trained.step else None
    if isinstance(val, int | float):
        found.setdefault("val", ({headline.name: val}, ""))
    rows = []
    evaluation = trained.spec.task.evaluation
    for split, (figures, remark) in found.items():
        for name in dict.fromkeys((evaluation.headline.name, *evaluation.metrics, "loss")):
            if isinstance(value := figures.get(name), int | float):
                of = evaluation.headline.shown(value) if name == evaluation.headline.name else f"{value:.4f}"
                label = evaluation.headline.label if name == evaluation.headline.name else name
                rows.append([_safe(split) + remark, _safe(figures.get("examples", "all")), _safe(label), of])
    return rows


def _limits(trained: Trained, folder: pathlib.Path) -> list[str]:
    lines = []
    if trained.config.task.name == "classification":
        lines.append(f"- It answers one of its {len(trained.class_names)} labels for any image, also for one of none.")
    lines.append(
        "- The figures are those of images like the ones of their split; other cameras, places or times differ."
    )
    lines.append("- Not measured here: groups of people or conditions, corrupted images, attacks.")
    classes = _read(folder / "test.json")
    if classes.get("of_step") == trained.step and isinstance(each := classes.get("per_class_accuracy"), dict):
        known = {name: value for name, value in each.items() if isinstance(value, int | float)}
        if len(known) > 1:
            worst = min(known, key=lambda name: known[name])
            lines.append(
                f"- In the test of the run, the worst label was {_safe(worst)}: {100 * known[worst]:.1f}% found."
            )
    if trained.config.data.protocol == "full":
        lines.append("- Nothing was held out of training, so no validation figure stands beside the test.")
    return lines


def _provenance(trained: Trained, folder: pathlib.Path, artefact: pathlib.Path) -> list[str]:
    there = _read(folder / "environment.json")
    here = environment.facts([])
    versions = {name: version for name, version in (there.get("packages") or {}).items() if version}
    data = workdir.read_data_facts(folder).get("content") or {}
    digest = hashlib.sha256(artefact.read_bytes()).hexdigest() if artefact.is_file() else ""
    return _pairs(
        (
            ("trained by", f"jaxcnn {versions.get('jaxcnn', 'of an unknown version')}, commit {there.get('commit')}"),
            ("packages", ", ".join(f"{name} {version}" for name, version in versions.items())),
            ("trained on", f"{there.get('devices', '?')} x {there.get('device', '?')}"),
            ("written by", f"jaxcnn {jaxcnn.__version__}, jax {jax.__version__}, commit {here['commit']}"),
            ("written on", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d} (UTC)"),
            *((f"fingerprint of the {name} images", value) for name, value in data.items()),
            ("SHA-256 of the file", digest),
        )
    )


def _read(path: pathlib.Path) -> dict[str, Any]:
    """The JSON of a file of the workdir; empty where there is none, or it is damaged."""
    try:
        return workdir.read_json(path)
    except UserError:
        return {}
