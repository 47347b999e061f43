"""Writes what `python -m jaxcnn.explain` worked out: arrays, pictures, tables and a page."""

import json
import pathlib
from importlib import util
from typing import Any

import numpy as np

from jaxcnn.explain import (
    charts,
    evaluation,
    feature_chart,
    feature_map,
    kept,
    out,
    page,
    pictures,
    randomisation,
    sheet,
)
from jaxcnn.explain.request import Request
from jaxcnn.explain.subject import Subject
from jaxcnn.explain.work import MOST_SHOWN, Result, as_seen, explained, gap_words, looked_words, writer
from jaxcnn.text import counted, shown
from jaxcnn.train import mistakes, predict

__all__ = ["Request", "Result", "explained", "write"]


def write(subject: Subject, result: Result, request: Request, folder: pathlib.Path, title: str) -> list[pathlib.Path]:
    """Write everything into a folder, in place of what was written there before; return the files, pictures aside.

    Maps that are there already, because `explained` got the folder, stay.

    Raises:
      UserError: a file of the folder is not one of an earlier call.
    """
    written_maps = result.keeper
    if isinstance(written_maps, kept.Held):
        written_maps = _maps_written(subject, result, written_maps, request, folder)
    assert isinstance(written_maps, kept.Written)
    place, given, names = written_maps.place, result.given, subject.class_names
    written = [place.folder / out.MAPS]
    drawing = bool(util.find_spec("matplotlib"))

    def table(name: str, text: str) -> None:
        written.append(place.path(name))
        written[-1].write_text(text, encoding="utf-8")

    def figure_of(name: str) -> pathlib.Path:
        written.append(place.path(name.removesuffix(".csv") + ".png"))
        return written[-1]

    rows = [] if result.scores is None else evaluation.table(result.scores.of_each)
    if result.scores is not None:
        table(out.SCORES, evaluation.as_csv(rows))
        table(out.CURVES, evaluation.curves_csv(result.scores))
        if drawing:
            charts.draw_curves(result.scores.curves, figure_of(out.CURVES))
    if result.stages:
        table(out.RANDOMISED, _stages_csv(result.stages))
        if result.alone:
            table(out.ALONE, _stages_csv(result.alone, "random_alone"))
        if drawing:
            charts.draw(result.stages, figure_of(out.RANDOMISED), result.alone)
    if result.points is not None:
        table(out.FEATURES, feature_map.as_csv(result.points, names))
        if drawing:
            feature_chart.draw(result.points, names, figure_of(out.FEATURES))
    if drawing:
        rows_of = slice(0, min(sheet.MOST, len(given)))
        some = as_seen(given.read(rows_of), result.answers, rows_of)
        maps = {name: result.found[name].maps[: len(some)] for name in request.methods}
        targets = [shown(names[k]) for k in result.answers.classes[: len(some)]]
        place.path(out.FIGURE.removesuffix(".png") + ".pdf")
        written += sheet.draw(some, maps, targets, place.path(out.FIGURE))
    about = [
        f"{counted(len(given), 'image')}, step {subject.trained.step}, {subject.trained.weights} weights. "
        f"Explained: {_target_words(request.target, subject)}."
    ]
    shown_names, items = [shown(name) for name in names], _items(subject, result, request)
    made = page.page(
        title, about, items, shown_names, rows, result.stages, result.points, result.alone, count=len(given)
    )
    written.append(place.path(out.PAGE))
    written[-1].write_text(made, encoding="utf-8", errors="backslashreplace")
    return written


def _maps_written(
    subject: Subject, result: Result, held: kept.Held, request: Request, folder: pathlib.Path
) -> kept.Written:
    """Write maps that were held in memory."""
    made, given = writer(subject, result.given, request, folder), result.given
    made.begin(held.facts)
    for name, parts in held.maps.items():
        for rows, maps in zip(given.parts(subject.batch), parts, strict=True):
            made.part(name, rows, as_seen(given.read(rows), result.answers, rows), maps)
        made.done(name, {})
    return made


def _target_words(target: Any, subject: Subject) -> str:
    if subject.has_boxes:
        return "the surest box" + ("" if target == "predicted" else f" of the class {shown(str(target))}")
    if subject.has_maps:
        of = "the highest class but the first" if target == "predicted" else f"the class {shown(str(target))}"
        return f"the mean logit over all pixels of {of}"
    known = {"predicted": "the output of the predicted class", "label": "the output of the true class"}
    return known.get(str(target), f"the output {shown(str(target))}")


def _items(subject: Subject, result: Result, request: Request) -> list[page.Item]:
    given, trained, answers = result.given, subject.trained, result.answers
    finds, task = trained.spec.task.finds, trained.spec.task.evaluation
    of_each = {} if result.scores is None else result.scores.of_each
    items: list[page.Item] = []
    for rows in given.parts(predict.BATCH):
        if rows.start >= MOST_SHOWN:
            break
        pixels = given.read(rows)
        if finds is not None:
            said, in_words = predict.answers(trained, pixels), finds.in_words
        else:
            assert answers.outputs is not None
            some = answers.outputs[rows]
            said = task.answers(some, subject.class_names, trained.constants, trained.fitted)
            in_words = mistakes.in_words
        images = as_seen(pixels, answers, rows)
        for number in range(rows.start, min(rows.stop, MOST_SHOWN)):
            answer, label, best = said[number - rows.start], given.labels[number], int(answers.best[number])
            classes = {best, int(answers.classes[number])} | ({label} if label is not None else set())
            right = None if label is None else best == label
            if given.sets is not None:
                true = np.flatnonzero(given.sets[number])
                classes |= {int(k) for k in true}
                right = set(answer["labels"]) == {subject.class_names[k] for k in true}
            items.append(
                page.Item(
                    name=shown(given.names[number]),
                    image=pictures.at_most(images[number - rows.start], pictures.ON_PAGE),
                    answer=in_words(answer),
                    target=shown(subject.class_names[answers.classes[number]]),
                    label=shown(given.words[number]),
                    right=right,
                    confidence=float(answers.confidence[number]),
                    classes=tuple(sorted(classes)),
                    maps={name: result.found[name].small[number] for name in request.methods},
                    scores={name: _of_image(result, of_each, name, number) for name in request.methods},
                    near=() if result.near is None else result.near[number],
                    among=looked_words(result.looked) if result.near else "",
                )
            )
    return items


def _of_image(result: Result, of_each: Any, name: str, number: int) -> str:
    """The scores and the gap of an image by a method, in words."""
    found = [(score, of_each[name][score][number]) for score in ("insertion", "deletion") if name in of_each]
    told = [f"{score} {value:.2f}" for score, value in found if not np.isnan(value)]
    relative = result.found[name].relative_gap
    if relative is not None and not np.isnan(relative[number]):
        told.append(gap_words(name, relative[number]))
    return ", ".join(told)


def _stages_csv(stages: dict[str, list[randomisation.Stage]], which: str = "random_down_to") -> str:
    lines = [f"method,{which},rank_correlation,spread,images"]
    for name, found in stages.items():
        for stage in found:
            each = stage.similarity
            spread = each.std(ddof=1) if len(each) > 1 else 0.0
            lines.append(f"{name},{json.dumps(stage.layer)},{each.mean():.4f},{spread:.4f},{len(each)}")
    return "\n".join(lines) + "\n"
