"""Computes the maps, scores, randomisation and neighbours of `python -m jaxcnn.explain`, some images at a time."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Num, UInt8

from jaxcnn.config import UserError
from jaxcnn.explain import (
    alike,
    evaluation,
    feature_chart,
    feature_map,
    kept,
    methods,
    objects,
    out,
    pictures,
    randomisation,
    sheet,
)
from jaxcnn.explain.explanation import Explanation
from jaxcnn.explain.given import Given
from jaxcnn.explain.request import Request
from jaxcnn.explain.subject import LABEL, Subject
from jaxcnn.text import counted
from jaxcnn.train import mistakes

MOST_SHOWN = 200  # images on the page, at most
MOST_RANDOMISED = 32  # images for the test of randomisation


@dataclasses.dataclass(frozen=True)
class Answers:
    """What the network says of the images.

    Attributes:
      target: the explained output of each.
      classes: the class of that output.
      best: the class of the highest output.
      confidence: its probability, or the output for tasks without probabilities.
      outputs: the outputs; None for detectors, which have too many.
      boxes: the explained ones of a detector.
    """

    target: Int[np.ndarray, " n"]
    classes: Int[np.ndarray, " n"]
    best: Int[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]
    outputs: Float[np.ndarray, "n k"] | None
    boxes: Float[np.ndarray, "n 4"] | None


@dataclasses.dataclass(frozen=True)
class Found:
    """What remains of the maps of a method once they are kept.

    Attributes:
      layer: as of `Explanation`.
      maps: those of the first images, for figures and the test of randomisation.
      small: those of the first `MOST_SHOWN` images in the size of the page, as places in the palette; of a control that
        only scores ask for, none.
      gap: as of `Explanation`, for all images.
      relative_gap: the same as a share of the change.
    """

    layer: str
    maps: Float[np.ndarray, "m h w"]
    small: list[UInt8[np.ndarray, "h w"]]
    gap: Float[np.ndarray, " n"] | None
    relative_gap: Float[np.ndarray, " n"] | None


@dataclasses.dataclass(frozen=True)
class Result:
    """What was found, before the rest of it is written.

    Attributes:
      given: the images.
      answers: what the network says of them.
      keeper: who took the maps.
      found: by method, what remains of its maps.
      scores: scores of all methods, if they were wanted.
      stages: the cascading randomisation of each method.
      near: the nearest training images of the first `MOST_SHOWN` images.
      looked: how many training images were looked at for them, and how many there are.
      points: the map of the features.
      alone: the independent randomisation of each method.
    """

    given: Given
    answers: Answers
    keeper: kept.Keeper
    found: dict[str, Found]
    scores: evaluation.Scores | None
    stages: dict[str, list[randomisation.Stage]]
    near: list[list[alike.Alike]] | None
    looked: tuple[int, int]
    points: feature_map.Points | None
    alone: dict[str, list[randomisation.Stage]]


Explain = Callable[..., Explanation]


def explained(
    subject: Subject, given: Given, request: Request, tell: Any = print, folder: pathlib.Path | None = None
) -> Result:
    """Explain images; `tell` gets a line for each method.

    Args:
      subject: the network.
      given: the images.
      request: what is to be done.
      tell: gets lines.
      folder: where the maps of each method are written as soon as they are made; None: they are held in memory.

    Raises:
      UserError: as `Subject.explain` and `Subject.targets`; or a file of the folder is not one of an earlier call.
    """
    arguments = _checked(subject, given, request)
    keeper: kept.Keeper = kept.Held() if folder is None else writer(subject, given, request, folder)
    answers = _answers(subject, given, request)
    facts = {"names": np.array(given.names), "target": answers.classes}
    if answers.boxes is None:
        labels = np.array([-1 if label is None else label for label in given.labels], np.int32)
        assert answers.outputs is not None
        facts |= {"outputs": answers.outputs, "labels": labels}
    else:
        facts |= {"boxes": answers.boxes}
    keeper.begin(facts)

    def explain(name: str, images: Any, target: Any, using: Any = None) -> Explanation:
        return subject.explain(name, images, target, using=using, **arguments.get(name, {}))

    found, scored = {}, {}
    for name in request.scored:
        found[name], scored[name] = _of_method(subject, given, answers, request, explain, name, keeper, tell)
    stages: dict[str, list[randomisation.Stage]] = {}
    alone: dict[str, list[randomisation.Stage]] = {}
    if request.randomise:
        stages, alone = _randomised(subject, given, answers, request, explain, found, tell)
    near, looked, points = None, (0, 0), None
    if request.neighbours:
        there = len(subject.splits.train)
        looked = min(request.among, there), there
        tell(f"nearest training images: {looked_words(looked)}")
        on_page = dataclasses.replace(given, names=given.names[:MOST_SHOWN])
        near = alike.nearest(subject, on_page, request.neighbours, request.among, request.seed)
    if request.feature_map:
        points = feature_map.of_split(subject, request.split, request.feature_map, request.points, request.seed)
        tell(f"map of the features: {feature_chart.title(points)}")
    of_images = evaluation.joined(scored) if request.score else None
    return Result(given, answers, keeper, found, of_images, stages, near, looked, points, alone)


def looked_words(looked: tuple[int, int]) -> str:
    """How many training images were looked at, in words."""
    some, there = looked
    return f"among all {there:,}" if some == there else f"among {some:,} random ones of {there:,}"


def writer(subject: Subject, given: Given, request: Request, folder: pathlib.Path) -> kept.Written:
    """Writes maps into a folder, whose earlier files are removed. Raises UserError if others are in the way."""
    place = out.Out(folder, request.files(len(given)))
    place.clear()
    return kept.Written(place, len(given), subject.image_shape[:2], tuple(request.methods))


def as_seen(pixels: Num[np.ndarray, "n h w c"], answers: Answers, rows: slice) -> UInt8[np.ndarray, "n h w 3"]:
    """The pixels of images `rows` as people see them, with the explained boxes of a detector."""
    images = mistakes.as_rgb(pixels)
    return images if answers.boxes is None else pictures.with_boxes(images, answers.boxes[rows], answers.classes[rows])


def _checked(subject: Subject, given: Given, request: Request) -> dict[str, dict[str, Any]]:
    """The arguments of each method; mistakes are reported before anything is computed."""
    if request.neighbours:
        alike.check(subject, "--neighbours")
    if request.feature_map:
        feature_map.check(subject, request.feature_map)
    if np.ndim(request.target) and len(request.target) != len(given):
        raise UserError(f"target has {len(request.target)} outputs for {len(given)} images")
    if isinstance(request.target, str) and request.target == LABEL:
        subject.check_labels(given.labels, len(given))
    arguments = {name: _arguments(name, request) for name in request.methods}
    for name in request.methods:
        subject.prepared(name, **arguments[name])
    if request.layer and not any("layer" in of_method for of_method in arguments.values()):
        raise UserError(
            f"--layer={request.layer} is for class activation maps and attention, none of which is in --methods"
        )
    if request.baseline != "mean" and not any("baseline" in of_method for of_method in arguments.values()):
        raise UserError(f"--baseline={request.baseline} is for methods that hide pixels, none of which is in --methods")
    return arguments


def _arguments(name: str, request: Request) -> dict[str, Any]:
    """What `Subject.explain` gets for a method, images and target aside."""
    method = methods.find(name)
    made = dict(request.options.get(name, {}))
    if {"layer", "gate"} & set(method.needs):
        made["layer"] = request.layer
    if method.takes:
        made["baseline"] = request.baseline
    return made


def _answers(subject: Subject, given: Given, request: Request) -> Answers:
    """What the network says of the images, some at a time."""
    found: list[tuple[Any, ...]] = []
    for rows in given.parts(subject.batch):
        images = subject.normalised(given.read(rows))
        outputs = subject.outputs(images)
        wanted = request.target[rows] if np.ndim(request.target) else request.target
        target = subject.targets(wanted, outputs, given.labels[rows])
        boxes = subject.boxes(images, target) if subject.has_boxes else None
        sure = np.asarray(subject.probability(outputs)).max(1)
        best = subject.classes(outputs.argmax(1))
        found.append((target, subject.classes(target), best, sure, None if subject.has_boxes else outputs, boxes))
    joined: list[Any] = [None if parts[0] is None else np.concatenate(parts) for parts in zip(*found, strict=True)]
    return Answers(*joined)


def _of_method(
    subject: Subject,
    given: Given,
    answers: Answers,
    request: Request,
    explain: Explain,
    name: str,
    keeper: kept.Keeper,
    tell: Any,
) -> tuple[Found, list[evaluation.Of]]:
    """Explain the images by a method, some at a time, and score each part while its values are there."""
    most = max(sheet.MOST, MOST_RANDOMISED if request.randomise else 0)
    first, small, of_parts, empty, layer = [], [], [], 0, ""
    gaps: list[tuple[Any, Any]] = []
    for rows in given.parts(subject.batch):
        pixels, target = given.read(rows), answers.target[rows]
        images = subject.normalised(pixels)
        found = explain(name, images, target)
        layer, empty = found.layer, empty + int((~found.maps.any((1, 2))).sum())
        keeper.part(name, rows, as_seen(pixels, answers, rows), found.maps)
        if rows.start < most:
            first.append(found.maps[: most - rows.start])
        if name in request.methods:
            gives = methods.find(name).gives
            shown = found.maps[: max(0, MOST_SHOWN - rows.start)]
            small += [pictures.scaled(pictures.at_most(each, pictures.ON_PAGE), gives) for each in shown]
        if found.gap is not None:
            gaps.append((found.gap, found.relative_gap))
        if request.score:
            masks = None if given.masks is None else given.masks[rows]
            if given.targets is not None:
                own = jax.tree.map(lambda leaf, rows=rows: leaf[rows], given.targets)
                masks = objects.of_targets(subject, own, answers.classes[rows])
            scores = evaluation.of_part(
                subject, name, images, target, found.values, found.maps, explain, masks, request.road
            )
            of_parts.append(scores)
    gap, relative = (np.concatenate(each) for each in zip(*gaps, strict=True)) if gaps else (None, None)
    facts = {} if gap is None or relative is None else {f"gap_{name}": gap, f"relative_gap_{name}": relative}
    keeper.done(name, facts)
    tell(_line(name, len(given), layer, gap, relative))
    if empty:
        why = " and have no scores" if request.score else ""
        tell(f"{name}: {empty} of {counted(len(given), 'map')} {'is' if empty == 1 else 'are'} 0 everywhere{why}")
    return Found(layer, np.concatenate(first), small, gap, relative), of_parts


def _line(name: str, count: int, layer: str, gap: Any, relative: Any) -> str:
    line = f"{name}: {counted(count, 'image')}"
    if layer:
        line += f", layer {layer}"
    if gap is None:
        return line
    known = relative[~np.isnan(relative)]
    if methods.find(name).loses:
        return line + (f", {gap_words(name, np.median(known))} (median)" if len(known) else "")
    share = f" ({100 * np.abs(known).max():.2g} % of the change)" if len(known) else ""
    return f"{line}, largest completeness gap {np.abs(gap).max():.2g}{share}"


def gap_words(name: str, relative: float) -> str:
    """The relative gap of an image in words: what is lost, or how far the sum is off."""
    if methods.find(name).loses:
        return f"lost to biases {-100 * relative:.2g} %"
    return f"gap {100 * abs(relative):.2g} %"


def _randomised(
    subject: Subject,
    given: Given,
    answers: Answers,
    request: Request,
    explain: Explain,
    known: dict[str, Found],
    tell: Any,
) -> tuple[dict[str, list[randomisation.Stage]], dict[str, list[randomisation.Stage]]]:
    """The cascading and the independent test of each method, on the first images."""
    initial = subject.initial(request.seed)
    order = randomisation.layers_from_the_top(subject.network, subject.image_shape)
    rows = slice(0, min(MOST_RANDOMISED, len(given)))
    some, wanted = subject.normalised(given.read(rows)), answers.target[rows]
    if rows.stop < len(given):
        tell(f"randomisation: the first {rows.stop} of {counted(len(given), 'image')}")
    stages, alone = {}, {}
    for name in request.methods:
        compared = lambda network, name=name: explain(name, some, wanted, network).maps  # noqa: E731
        before = known[name].maps[rows]
        stages[name] = list(randomisation.cascading(subject.network, initial, order, compared, before))
        tell(f"{name}: rank correlation {stages[name][-1].similarity.mean():.2f} when all layers are random")
        if request.independent:
            one = stages[name][0]
            alone[name] = list(randomisation.independent(subject.network, initial, order, compared, before, one))
    return stages, alone
