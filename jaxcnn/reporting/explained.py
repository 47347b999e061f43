"""The confused pairs of the chosen settings, with maps of what supports either class; needs JAX and checkpoints."""

import html
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Family, Findings
from jaxcnn.reporting.plots import Plot, place, plot_name, words
from jaxcnn.reporting.read import Run
from jaxcnn.reporting.tables import Cell, Table, by_name, number, text

if TYPE_CHECKING:
    from jaxcnn.explain.confused import Mistake, Pair

SECTION = "confused"
GAP = 8  # pixels between the images of a picture
_COLOURS = {
    "signed": "orange speaks for the class, purple against it",
    "positive": "yellow speaks most for the class, dark blue does not",
    "size": "yellow matters most for the class, dark blue does not",
}


def check(method: str) -> None:
    """Refuse a method that does not exist, before any work.

    Raises:
      UserError: it does not.
    """
    from jaxcnn.explain import methods

    try:
        methods.find(method)
    except UserError as error:
        raise UserError(f"--explain: {error}") from None


def sections(
    findings: Findings, method: str, folder: pathlib.Path, remarks: list[str], taken: set[str]
) -> tuple[dict[str, Table], list[tuple[Plot, str]]]:
    """A table of pairs for each family, and a picture of each pair, which is also written into `folder`.

    Args:
      findings: findings of the report.
      method: method of the maps.
      folder: folder of the pictures.
      remarks: gets a line for each family that cannot be explained.
      taken: names of pictures that are already there.
    """
    made: list[Table | None] = []
    drawn: list[tuple[Plot, str]] = []
    for family in findings.families:
        try:
            table, pictures = _of_family(family, method, folder, taken)
        except UserError as error:
            remarks.append(f"--explain={method}: {place(family)}: {labels.printable(' '.join(str(error).split()))}")
            continue
        made.append(table)
        drawn += pictures
    return by_name(made), drawn


def _run(family: Family) -> Run:
    """A finished run of the chosen setting that has a checkpoint. Raises UserError without one."""
    finished = family.chosen.finished if family.chosen else []
    for run in finished:
        if any(child.name.isdecimal() for child in _children(run.folder / "checkpoints")):
            return run
    raise UserError("no finished run of the chosen setting has a checkpoint" if finished else "no setting is chosen")


def _children(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _checkpoint(run: Run) -> str:
    """The checkpoint whose weights were tested, if it is still there; else the newest."""
    step = (run.test or {}).get("of_step")
    there = {child.name for child in _children(run.folder / "checkpoints")}
    return str(step) if str(step) in there else "last"


def _of_family(
    family: Family, method: str, folder: pathlib.Path, taken: set[str]
) -> tuple[Table | None, list[tuple[Plot, str]]]:
    from jaxcnn.explain import confused
    from jaxcnn.explain.subject import Subject
    from jaxcnn.train import trained

    run = _run(family)
    network, _ = trained.load(run.folder, _checkpoint(run), "", 1)
    subject = Subject(network)
    split = "test" if subject.splits.test is not None else "val"
    pairs, looked = confused.of_split(subject, split, method)
    if not pairs:
        raise UserError(f"{run.name} makes no mistake in {labels.count(looked, 'image')} of its {split} split")
    pictures = []
    for pair in pairs:
        plot = _plot(family, pair, subject.class_names, method)
        plot.name = labels.untaken(plot.name, taken)
        pictures.append((plot, _grid(pair, subject.class_names, method)))
        (folder / f"{plot.name}.png").write_bytes(_sheet(pair, method))
    return _table(family, run, pairs, subject.class_names, split, looked), pictures


def _table(family: Family, run: Run, pairs: "list[Pair]", names: tuple[str, ...], split: str, looked: int) -> Table:
    rows: list[list[Cell]] = [
        [
            text(labels.printable(names[pair.label])), text(labels.printable(names[pair.answer])),
            number(pair.count, str(pair.count)), number(pair.examples, str(pair.examples)),
            number(pair.count / pair.examples, f"{100 * pair.count / pair.examples:.1f}"),
        ]
        for pair in pairs
    ]  # fmt: skip
    columns = ["class", "taken for", "mistakes", "examples", "share %"]
    notes = [f"The pairs with most mistakes of {run.name} in {labels.count(looked, 'image')} of its {split} split."]
    title = f"Confused pairs of {place(family)}"
    name = labels.slug(f"{SECTION} {family.architecture} on {family.dataset}")
    return Table(name, title, columns, rows, frozenset(columns[2:]), notes)


def _plot(family: Family, pair: "Pair", names: tuple[str, ...], method: str) -> Plot:
    from jaxcnn.explain import methods

    label, answer = (words(names[k]) for k in (pair.label, pair.answer))
    found = methods.find(method)
    caption = (
        f"{label} taken for {answer}: {labels.count(pair.count, 'mistake')}, here the most confident. Each row is an "
        f"image, {found.title} ({found.source}) for the answer {answer}, and for the truth {label}, with the "
        f"probability of either. Both maps have one scale: {_COLOURS[found.gives]}."
    )
    alt = f"Images of {label} taken for {answer}, with maps for either class"
    return Plot(plot_name(SECTION, place(family), label, answer), SECTION, alt, caption, None)


def _scaled(mistake: "Mistake", gives: str) -> list[np.ndarray]:
    """Both maps as indices of the palette, on one common scale."""
    from jaxcnn.explain import pictures

    return np.split(pictures.scaled(np.concatenate([mistake.for_answer, mistake.for_label]), gives), 2)


def _grid(pair: "Pair", names: tuple[str, ...], method: str) -> str:
    """The images and maps of a pair as HTML."""
    from jaxcnn.explain import methods, page, pictures

    gives = methods.find(method).gives
    label, answer = (html.escape(words(names[k])) for k in (pair.label, pair.answer))
    rows = [f"<span>image</span><span>for <b>{answer}</b> (answer)</span><span>for <b>{label}</b> (truth)</span>"]
    for mistake in pair.shown:
        url = pictures.data_url(pictures.image_png(mistake.image))
        height, width = mistake.image.shape[:2]
        smooth = " smooth" if max(height, width) >= page.SMOOTH_FROM else ""
        style = f"--image: url({url}); --ratio: {width} / {height}"
        views = [f'<div class="view{smooth}" role="img" aria-label="the image"></div>']
        for name, places in zip((answer, label), _scaled(mistake, gives), strict=True):
            source = pictures.data_url(pictures.palette_png(places, gives))
            views.append(f'<div class="view{smooth}"><img alt="map for {name}" src="{source}"></div>')
        sure = [f"{100 * of:.1f} %" for of in (mistake.probability, mistake.of_label)]
        told = [html.escape(labels.printable(mistake.name)), *sure]
        cells = "".join(f"<div>{view}<small>{said}</small></div>" for view, said in zip(views, told, strict=True))
        rows.append(f'<div class="mistake" style="{style}">{cells}</div>')
    return f'<div class="pair"><div class="mistake heads">{rows[0]}</div>{"".join(rows[1:])}</div>'


def _sheet(pair: "Pair", method: str) -> bytes:
    """The images and maps of a pair as a PNG without text: one row for each image, with white between the rows."""
    from jaxcnn.explain import methods, pictures

    gives = methods.find(method).gives
    rows: list[Any] = []
    for mistake in pair.shown:
        maps = [pictures.mixed(mistake.image, places, gives) for places in _scaled(mistake, gives)]
        cells = [pictures.enlarged(each) for each in (mistake.image, *maps)]
        rows.append([np.pad(cell, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for cell in cells])
    return pictures.image_png(np.concatenate([np.concatenate(row, axis=1) for row in rows])[:-GAP, :-GAP])
