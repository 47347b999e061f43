"""`--mode=eval`: the figures of a trained network on a split, and a picture of them."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.data import place, selection
from jaxcnn.data.batch import Split
from jaxcnn.data.selection import Selection
from jaxcnn.data.source import open_splits
from jaxcnn.learn import programs
from jaxcnn.machine import extras
from jaxcnn.tasks import by_group
from jaxcnn.tasks import kept as keeping
from jaxcnn.tasks.kept import Faults, Kept
from jaxcnn.text import counted, shown
from jaxcnn.train import mistakes, mistakes_page, same_data, workdir
from jaxcnn.train.trained import Trained

TEST = "test.json"
_log = logging.getLogger("jaxcnn")


def assess(trained: Trained, folder: pathlib.Path, split_name: str, data_path: str, batch_size: int) -> dict[str, Any]:
    """Evaluate a split; write `eval-<split>-<step>.json` and its picture as PNG into the workdir.

    The images that are hardest for the network, those of the highest loss and the most confident mistakes, are shown on
    a page, `eval-<split>-<step>-hardest.html`. `eval-<split>-<step>-hardest.png` is a picture of the mistakes, or, for
    tasks other than classification, of the highest losses.

    If the workdir cannot be written, a warning says so.

    Args:
      trained: the trained network.
      folder: its workdir.
      split_name: "train", "val" or "test".
      data_path: the present path of the data (`place.at`); empty if it is where the run had it.
      batch_size: examples per batch; 0: the batch size of training.

    Returns:
      The content of the JSON file. If the run has test-time augmentation, this includes loss and metrics with it, named
      tta_….

    Raises:
      UserError: the run has no such split, its data is not there, or the split has other classes or another image size.
    """
    split, notes = open_split(trained, folder, split_name, data_path)
    for note in notes:
        _log.warning(note)
    kept = keeping.of(trained.spec.task, trained.constants, selection.groups_of(split), trained.config.data.group)
    figures = {
        "step": trained.step,
        "weights": trained.weights,
        "split": split.name,
        "data": split.description,
        "notes": notes,
        **trained.evaluate(split, batch_size, kept),
    }
    file = file_of(folder, figures)
    try:
        workdir.write_json(file, figures)
    except OSError as error:
        _log.warning("%s cannot be written (%s): the results are only shown here", folder, error.strerror or error)
    else:
        _draw(trained, figures, file.with_suffix(".png"))
        _show_hardest(trained, split, kept, file)
    return figures


def open_split(trained: Trained, folder: pathlib.Path, split_name: str, data_path: str) -> tuple[Selection, list[str]]:
    """A split of the data of a run, and remarks on it; arguments and errors are those of `assess`."""
    data = place.at(trained.config.data, data_path)
    if not place.is_ready(data):
        raise UserError(
            f"config.data.source={data.source!r}: no data was found there; set --data=<path> to its current path"
        )
    splits = open_splits(data, trained.config.task)
    split = getattr(splits, split_name)
    if split is None:
        protocol = trained.config.data.protocol
        raise UserError(f"--split={split_name}: this run has none (config.data.protocol={protocol!r})")
    if split.class_names != trained.class_names or split.image_shape != trained.spec.image_shape:
        raise UserError(f"{split.description} does not have the classes and image size that {folder} was trained with")
    return split, [*splits.notes, *same_data.remarks(workdir.read_data_facts(folder), splits, split)]


def file_of(folder: pathlib.Path, figures: dict[str, Any]) -> pathlib.Path:
    """The file of the figures from `assess`; its picture lies beside it, with the suffix .png."""
    return folder / f"eval-{figures['split']}-{figures['step']}.json"


def is_kept(folder: pathlib.Path, figures: dict[str, Any]) -> bool:
    """Whether the workdir holds the result of `assess`; it does not if it cannot be written."""
    try:
        return file_of(folder, figures).read_text(encoding="utf-8") == workdir.as_json(figures)
    except OSError:
        return False


def pictures(folder: pathlib.Path, figures: dict[str, Any]) -> list[pathlib.Path]:
    """The pictures and the page that lie beside the file of the figures."""
    file = file_of(folder, figures)
    names = (".png", "-hardest.png", "-hardest.html")
    return [path for path in (file.with_name(file.stem + name) for name in names) if path.exists()]


def _draw(trained: Trained, figures: dict[str, Any], path: pathlib.Path) -> None:
    """Draw the figures of a split, and write their picture."""
    with _only_a_warning(path):
        path.unlink(missing_ok=True)  # left by an earlier evaluation
        trained.spec.task.evaluation.draw(figures, trained.class_names, path)


def _show_hardest(trained: Trained, split: Split, kept: Kept, file: pathlib.Path) -> None:
    """Write the page and the picture of the hardest images."""
    page, whole = file.with_name(f"{file.stem}-hardest.html"), kept.whole()
    task = trained.spec.task
    if whole is None and not isinstance(kept, Faults):
        if task.finds is None:
            _log.warning("%s has too many outputs to show its hardest images", shown(split.description))
        return
    with _only_a_warning(page):
        for path in (page, page.with_suffix(".png")):
            path.unlink(missing_ok=True)  # left by an earlier evaluation
        found: mistakes.Hardest | mistakes.Worst
        if isinstance(kept, Faults):
            found = mistakes.worst(split, kept)
        else:
            assert whole is not None
            of_each = programs.loss_of_each(trained.spec, trained.mesh, *whole, trained.constants)
            found = mistakes.hardest(task, split, *whole, of_each, trained.constants, trained.fitted)
        title = f"{shown(file.parent.resolve().name)}: {split.name}, step {trained.step}"
        about = f"{shown(split.description)}, {trained.weights} weights. {found.legend}"
        page.write_text(mistakes_page.page(found, title, about), encoding="utf-8")
        mistakes.draw(found, title, page.with_suffix(".png"))


@contextlib.contextmanager
def _only_a_warning(path: pathlib.Path) -> Iterator[None]:
    """Log a warning if a picture cannot be drawn, so that the figures are not lost."""
    try:
        yield
    except Exception as error:
        error = extras.missing(error, str(path))
        if isinstance(error, extras.MissingExtra):
            _log.warning("%s", error)
        else:
            name, why = type(error).__name__, " ".join(str(error).split())[:300]
            _log.warning("%s could not be drawn: %s: %s", path, name, why)


def write_test(folder: pathlib.Path, figures: dict[str, Any]) -> None:
    """Write `test.json` of a finished run: the figures of its test."""
    workdir.write_sealed(folder / TEST, figures)


def damage(folder: pathlib.Path) -> str:
    """A line if the `test.json` of a finished run is not as the run wrote it; else an empty string."""
    try:
        if (folder / TEST).exists():
            workdir.read_sealed(folder / TEST)
    except UserError as error:
        return f"{str(error).partition(';')[0]}; --mode=eval --workdir={folder} measures the test split again"
    return ""


def describe(trained: Trained, figures: dict[str, Any]) -> list[str]:
    """The figures as a few readable lines."""
    return [
        f"{shown(figures['data'])}: {counted(figures['examples'], 'example')}, "
        f"checkpoint {figures['step']}, {figures['weights']} weights",
        *trained.spec.task.evaluation.describe(figures),
        *by_group.describe(figures, trained.spec.task.evaluation.headline),
    ]
