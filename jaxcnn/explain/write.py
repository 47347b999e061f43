"""`python -m jaxcnn.explain`: explains images by several methods, and writes arrays, pictures, scores and a page."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from importlib import util
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxcnn.config import UserError
from jaxcnn.explain import (
    alike,
    charts,
    evaluation,
    feature_chart,
    feature_map,
    methods,
    objects,
    page,
    pictures,
    randomisation,
    sheet,
)
from jaxcnn.explain.given import Given
from jaxcnn.explain.subject import Explanation, Subject
from jaxcnn.text import counted, shown
from jaxcnn.train import mistakes, predict

MAPS, SCORES, RANDOMISED, PAGE = "maps.npz", "scores.csv", "randomisation.csv", "index.html"
ALONE = "randomisation_independent.csv"
FEATURES, CURVES, FIGURE = "features.csv", "curves.csv", "figure.png"
DRAWN = "maps"  # the folder of the pictures
AMONG, POINTS = 20_000, 2000
MOST_SHOWN = 200  # images on the page
MOST_RANDOMISED = 32  # images for the test of randomisation


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is to be explained and written.

    Attributes:
      methods: their names.
      target: as for `Subject.targets`.
      layer: of class activation maps.
      baseline: "mean" or "black".
      options: by method, its arguments.
      score: whether methods are scored, beside two controls.
      randomise: whether the layers of the network are drawn anew, from the top down.
      independent: whether each is also drawn anew alone.
      road: as for `evaluation.of_images`.
      seed: of all random numbers.
      neighbours: nearest training images that are shown for each image.
      among: training images that are looked at for them.
      feature_map: one of `feature_map.KINDS`; empty: none.
      split: whose images the map shows.
      points: most images of the map.
    """

    methods: Sequence[str]
    target: Any = "predicted"
    layer: str = ""
    baseline: str = "mean"
    options: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    score: bool = False
    randomise: bool = False
    independent: bool = False
    road: bool | None = None
    seed: int = 0
    neighbours: int = 0
    among: int = AMONG
    feature_map: str = ""
    split: str = "test"
    points: int = POINTS


@dataclasses.dataclass(frozen=True)
class Result:
    """What was found, before it is written."""

    given: Given
    outputs: Float[np.ndarray, "n k"]
    target: np.ndarray
    found: dict[str, Explanation]
    scores: evaluation.Scores | None
    stages: dict[str, list[randomisation.Stage]]
    boxes: Float[np.ndarray, "n 4"] | None = None  # the explained ones of a detector
    near: list[list[alike.Alike]] | None = None
    points: feature_map.Points | None = None
    alone: dict[str, list[randomisation.Stage]] = dataclasses.field(default_factory=dict)  # as `stages`: independent


def explained(subject: Subject, given: Given, wish: Wish, tell: Any = print) -> Result:
    """Explain images; `tell` gets a line for each method.

    Raises:
      UserError: as `Subject.explain` and `Subject.targets`.
    """
    if wish.neighbours:
        alike.check(subject, "--neighbours")
    if wish.feature_map:
        feature_map.check(subject, wish.feature_map)
    arguments = {name: _arguments(name, wish) for name in wish.methods}
    for name in wish.methods:
        subject.prepared(name, **arguments[name])  # mistakes are told before anything is computed
    if wish.layer and not any("layer" in of_method for of_method in arguments.values()):
        raise UserError(
            f"--layer={wish.layer} is for class activation maps and attention, none of which is in --methods"
        )
    if wish.baseline != "mean" and not any("baseline" in of_method for of_method in arguments.values()):
        raise UserError(f"--baseline={wish.baseline} is for methods that hide pixels, none of which is in --methods")
    images = subject.normalised(given.pixels)
    outputs = subject.outputs(images)
    target = subject.targets(wish.target, outputs, given.labels)

    def explain(name: str, images: Any, target: Any, using: Any = None) -> Explanation:
        return subject.explain(name, images, target, using=using, **arguments.get(name, {}))

    scored = list(dict.fromkeys([*wish.methods, *(evaluation.CONTROLS if wish.score else ())]))
    found = {}
    for name in scored:
        found[name] = explain(name, images, target)
        tell(_line(found[name], subject, images, target))
    masks = given.masks
    if given.targets is not None:
        masks = objects.of_targets(subject, given.targets, subject.classes(target))
    of_images = None
    if wish.score:
        of_images = evaluation.of_images(subject, scored, images, target, found, explain, masks, wish.road)
    stages, alone = {}, {}
    if wish.randomise:
        initial = subject.initial(wish.seed)
        order = randomisation.layers_from_the_top(subject.network, subject.image_shape)
        some, wanted = images[:MOST_RANDOMISED], target[:MOST_RANDOMISED]
        for name in wish.methods:
            compared = lambda network, name=name: explain(name, some, wanted, network).maps  # noqa: E731
            before = compared(subject.network)
            stages[name] = list(randomisation.cascading(subject.network, initial, order, compared, before))
            tell(f"{name}: rank correlation {stages[name][-1].similarity.mean():.2f} when all layers are random")
            if wish.independent:
                alone[name] = list(randomisation.independent(subject.network, initial, order, compared, before))
    boxes = subject.boxes(images, target) if subject.has_boxes else None
    near, points = None, None
    if wish.neighbours:
        near = alike.nearest(subject, given, wish.neighbours, wish.among, wish.seed)
    if wish.feature_map:
        points = feature_map.of_split(subject, wish.split, wish.feature_map, wish.points, wish.seed)
        tell(f"map of the features: {feature_chart.title(points)}")
    return Result(given, outputs, target, found, of_images, stages, boxes, near, points, alone)


def _arguments(name: str, wish: Wish) -> dict[str, Any]:
    """What `Subject.explain` gets for a method, images and target aside."""
    method = methods.find(name)
    made = dict(wish.options.get(name, {}))
    if {"layer", "gate"} & set(method.needs):
        made["layer"] = wish.layer
    if method.takes:
        made["baseline"] = wish.baseline
    return made


def _line(found: Explanation, subject: Subject, images: Any, target: Any) -> str:
    line = f"{found.method}: {counted(len(found.maps), 'image')}"
    if found.layer:
        line += f", layer {found.layer}"
    if found.gap is not None:
        line += f", largest completeness gap {np.abs(found.gap).max():.2g}"
    return line


def write(subject: Subject, result: Result, wish: Wish, folder: pathlib.Path, title: str) -> list[pathlib.Path]:
    """Write everything into a folder, in place of what was written there before; return the files, pictures aside."""
    _clear(folder)
    given, names = result.given, subject.class_names
    arrays = {name: each.maps.astype(np.float32) for name, each in result.found.items()}
    labels = np.array([-1 if label is None else label for label in given.labels], np.int32)
    classes = subject.classes(result.target)
    facts = {"names": np.array(given.names), "target": classes}
    facts |= {"outputs": result.outputs, "labels": labels} if result.boxes is None else {"boxes": result.boxes}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / MAPS, **(facts | arrays))  # type: ignore[arg-type]
    written = [folder / MAPS]
    images = mistakes.as_rgb(given.pixels)
    if result.boxes is not None:
        images = pictures.with_boxes(images, result.boxes, classes)
    drawn = folder / DRAWN
    drawn.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(images) - 1))
    for name in wish.methods:
        gives = methods.find(name).gives
        for number, image in enumerate(images):
            picture = pictures.over_image(image, result.found[name].maps[number], gives)
            (drawn / f"{number:0{digits}d}-{name}.png").write_bytes(picture)
    rows = [] if result.scores is None else evaluation.table(result.scores.of_each)
    if result.scores is not None:
        written.append(folder / SCORES)
        written[-1].write_text(evaluation.as_csv(rows), encoding="utf-8")
        written.append(folder / CURVES)
        written[-1].write_text(evaluation.curves_csv(result.scores), encoding="utf-8")
        if util.find_spec("matplotlib"):
            written.append((folder / CURVES).with_suffix(".png"))
            charts.draw_curves(result.scores.curves, written[-1])
    if result.stages:
        written.append(folder / RANDOMISED)
        written[-1].write_text(_stages_csv(result.stages), encoding="utf-8")
        if result.alone:
            written.append(folder / ALONE)
            written[-1].write_text(_stages_csv(result.alone, "random_alone"), encoding="utf-8")
        if util.find_spec("matplotlib"):
            written.append((folder / RANDOMISED).with_suffix(".png"))
            charts.draw(result.stages, written[-1], result.alone)
    if result.points is not None:
        written.append(folder / FEATURES)
        written[-1].write_text(feature_map.as_csv(result.points, names), encoding="utf-8")
        if util.find_spec("matplotlib"):
            written.append((folder / FEATURES).with_suffix(".png"))
            feature_chart.draw(result.points, names, written[-1])
    items = _items(subject, result, wish, images)
    if util.find_spec("matplotlib"):
        maps = {name: result.found[name].maps for name in wish.methods}
        written += sheet.draw(images, maps, [item.target for item in items], folder / FIGURE)
    about = [
        f"{counted(len(images), 'image')}, step {subject.trained.step}, {subject.trained.weights} weights. "
        f"Explained: {_target_words(wish.target, subject)}.",
        *([f"The page has the first {MOST_SHOWN} of {len(images)} images."] if len(images) > MOST_SHOWN else []),
    ]
    written.append(folder / PAGE)
    shown_names = [shown(name) for name in names]
    made = page.page(title, about, items, shown_names, rows, result.stages, result.points, result.alone)
    written[-1].write_text(made, encoding="utf-8", errors="backslashreplace")
    return written


def _clear(folder: pathlib.Path) -> None:
    """Remove what an earlier call wrote into a folder, and nothing else."""
    pictures_of = "|".join(map(re.escape, methods.METHODS))
    drawn = [path for path in (folder / DRAWN).glob("*.png") if re.fullmatch(rf"\d+-({pictures_of})\.png", path.name)]
    tables = [folder / name for name in (SCORES, CURVES, RANDOMISED, ALONE, FEATURES)]
    figures = [folder / FIGURE, (folder / FIGURE).with_suffix(".pdf"), *(table.with_suffix(".png") for table in tables)]
    for path in (*drawn, *tables, *figures, folder / MAPS, folder / PAGE):
        path.unlink(missing_ok=True)


def _target_words(target: Any, subject: Subject) -> str:
    if subject.has_boxes:
        return "the surest box" + ("" if target == "predicted" else f" of the class {shown(str(target))}")
    if subject.has_maps:
        of = "the highest class but the first" if target == "predicted" else f"the class {shown(str(target))}"
        return f"the mean logit over all pixels of {of}"
    known = {"predicted": "the output of the predicted class", "label": "the output of the true class"}
    return known.get(str(target), f"the output {shown(str(target))}")


def _items(subject: Subject, result: Result, wish: Wish, images: np.ndarray) -> list[page.Item]:
    given, trained, finds = result.given, subject.trained, subject.trained.spec.task.finds
    if finds is not None:
        starts = range(0, len(images), predict.BATCH)
        answers = [one for k in starts for one in predict.answers(trained, given.pixels[k : k + predict.BATCH])]
        in_words = finds.in_words
    else:
        evaluation_of = trained.spec.task.evaluation
        answers = evaluation_of.answers(result.outputs, subject.class_names, trained.constants, trained.fitted)
        in_words = mistakes.in_words
    probability = np.asarray(subject.probability(result.outputs))
    items = []
    for number in range(min(len(images), MOST_SHOWN)):
        label, best, target = given.labels[number], result.outputs[number].argmax(), result.target[number]
        best, target = (int(each) for each in subject.classes(np.array([best, target])))
        of_each = {} if result.scores is None else result.scores.of_each
        scores = {
            name: ", ".join(f"{score} {of_each[name][score][number]:.2f}" for score in ("insertion", "deletion"))
            for name in wish.methods
            if name in of_each
        }
        items.append(
            page.Item(
                name=shown(given.names[number]),
                image=images[number],
                answer=in_words(answers[number]),
                target=shown(subject.class_names[target]),
                label=shown(given.words[number]),
                right=None if label is None else best == label,
                confidence=float(probability[number].max()),
                classes=tuple(sorted({best, target} | ({label} if label is not None else set()))),
                maps={name: result.found[name].maps[number] for name in wish.methods},
                scores=scores,
                near=() if result.near is None else result.near[number],
            )
        )
    return items


def _stages_csv(stages: dict[str, list[randomisation.Stage]], which: str = "random_down_to") -> str:
    lines = [f"method,{which},rank_correlation,spread,images"]
    for name, found in stages.items():
        for stage in found:
            each = stage.similarity
            spread = each.std(ddof=1) if len(each) > 1 else 0.0
            lines.append(f"{name},{json.dumps(stage.layer)},{each.mean():.4f},{spread:.4f},{len(each)}")
    return "\n".join(lines) + "\n"
