"""Image files listed in a table with their labels: `csv:labels.csv`.

The columns are read first (`read_manifest`), for any kind of labels; `open_manifest` makes arrays of them.
"""

import collections
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

import jaxcnn.config as config
from jaxcnn.config import UserError, convert
from jaxcnn.data import files, labels, layout
from jaxcnn.data.encoded import open_encoded
from jaxcnn.data.examples import Examples, Groups, Source
from jaxcnn.data.table import Table, read_table
from jaxcnn.machine.paths import expand

USUAL = {  # names of columns, in lower case, from the surest to the least sure
    "image": ("image", "image_path", "filepath", "file_path", "path", "filename", "file_name", "file", "img"),
    "label": ("label", "class", "class_name", "category", "target", "y"),
    "split": ("split", "subset", "partition"),
    "weight": ("example_weight", "sample_weight"),
}
_NEEDED = ("image", "label")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The rows of a manifest.

    Attributes:
      title: name in messages, such as "csv:labels.csv".
      folder: the folder of the manifest; relative paths begin there.
      images: path of each image as a normal path, relative to `folder` or absolute; no two are equal.
      labels: the cells of each column of labels, by its name.
      splits: "train", "val" or "test" for each row; None without such a column.
      weights: weight of each row; None without such a column.
      groups: the name of each row's group; None unless `data.group` names their column.
      where: returns the place of row i in messages.
    """

    title: str
    folder: Path
    images: list[str]
    labels: labels.Columns
    splits: list[str] | None
    weights: Float32[np.ndarray, " n"] | None
    groups: Groups | None
    where: Callable[[int], str]


def open_manifest(argument: str, data: config.Data, task: str = "classification") -> Source:
    """Images listed in a CSV, TSV, JSON-lines or Parquet file, with their labels.

    Columns are those that the config names, or else have usual names (`USUAL`). What a label is depends on the task
    (`labels.read`); classes are the labels that occur. The base splits are those in the column of splits;
    without one, the set is divided by itself (`jaxcnn.data.automatic`). As in a folder, examples are sorted by a hash
    of their path.

    Raises:
      UserError: what `read_manifest` refuses, an empty label, or no training split.
    """
    if not argument:
        raise UserError("config.data.source='csv:' needs a path: csv:<path>")
    manifest = read_manifest(expand(argument, "config.data.source=csv:"), f"csv:{argument}", data)

    def refuse(row: int, what: str) -> UserError:
        return UserError(f"{manifest.title} {manifest.where(row)}: {what}")

    values, names = labels.read(manifest.labels, task, data.label_separator, refuse)
    rows: dict[str, list[int]] = {"train": list(range(len(values)))}
    if manifest.splits is not None:
        rows = {split: [] for split in ("train", "val", "test") if split in manifest.splits}
        for row, split in enumerate(manifest.splits):
            rows[split].append(row)
        if "train" not in rows:
            raise UserError(f"{manifest.title} has no row of the train split; it has: {', '.join(rows)}")

    def open_split(split: str) -> Examples:
        chosen = rows[split]
        weights = None if manifest.weights is None else manifest.weights[chosen]
        title, images = f"{manifest.title} {split}", [manifest.images[row] for row in chosen]
        groups = None if manifest.groups is None else manifest.groups[chosen]
        encoded = files.encoded_files(title, manifest.folder, images, values[chosen], weights=weights, groups=groups)
        return open_encoded(encoded, data)

    of_all = () if values.ndim == 1 else (values,)
    undivided = manifest.splits is None
    return Source(manifest.title, names, tuple(rows), open_split, labels=of_all, undivided=undivided)


def read_manifest(path: Path, title: str, data: config.Data) -> Manifest:
    """The rows of a manifest, checked except for the labels.

    Raises:
      UserError: what `read_table` refuses; no column of images or labels; a row without an image, with one outside the
        folder (`files.outside`), a missing one (unless `data.on_error="skip"`) or one listed before, an unknown split,
        or a weight that is not a number.
    """
    table = read_table(path, title)
    columns = _columns(table, title, data)
    folder = path.absolute().parent

    def refuse(row: int, what: str, rows: Sequence[int] = ()) -> UserError:
        more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
        return UserError(f"{title} {table.where(row)}: {what}{more}")

    images: list[str] = []
    first: dict[str, int] = {}
    for row, cell in enumerate(table.column(columns["image"])):
        text = cell.strip() if isinstance(cell, str) else ""
        if not text:
            raise refuse(row, f"column {columns['image']!r} has no path of an image")
        image = os.path.normpath(text)
        if image in first:
            raise refuse(row, f"image {text!r} is already in {table.where(first[image])}; list each image once")
        first[image] = row
        images.append(image)
    if strange := files.outside(folder, images, data):
        raise refuse(strange[0], files.refusal(images[strange[0]], folder), strange)
    if data.on_error == "raise":
        missing = [row for row, image in enumerate(images) if files.state(os.path.join(folder, image)) == (-1, -1)]
        if missing:
            advice = "correct it, or set config.data.on_error='skip' to leave such rows out"
            raise refuse(missing[0], f"image {images[missing[0]]!r} does not exist; {advice}", missing)
    splits = weights = groups = None
    if name := columns["split"]:
        splits = [layout.split_of(str(cell)) or "" for cell in table.column(name)]
        if unknown := [row for row, split in enumerate(splits) if not split]:
            cell = table.column(name)[unknown[0]]
            raise refuse(unknown[0], f"column {name!r} is {cell!r}, but must be train, val or test", unknown)
    if name := columns["weight"]:
        weights = np.array([labels.number(cell) for cell in table.column(name)], np.float32)
        if len(wrong := np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))):
            cell = table.column(name)[wrong[0]]
            raise refuse(
                int(wrong[0]), f"weight {cell!r} in column {name!r} must be a number of at least 0", wrong.tolist()
            )
    if name := data.group:
        _check_known([name], name, "group", table, title)
        names = labels.names(table.column(name), lambda row, what: refuse(row, f"the group in column {name!r} {what}"))
        groups = np.array(names, np.str_)
    of_labels = {name: table.column(name) for name in labels.columns_named(columns["label"], table.names)}
    return Manifest(title, folder, images, of_labels, splits, weights, groups, table.where)


def _columns(table: Table, title: str, data: config.Data) -> dict[str, str]:
    """The name of each kind of column; empty if the table has none of that kind. Raises UserError."""
    lower = collections.defaultdict(list)
    for name in table.names:
        lower[name.lower()].append(name)
    found = {}
    for kind, usual in USUAL.items():
        wanted = getattr(data, f"{kind}_column")
        named = labels.columns_named(wanted, table.names) if kind == "label" else [wanted]
        if wanted:
            _check_known(named, wanted, f"{kind}_column", table, title)
        found[kind] = wanted or next((lower[name][0] for name in usual if name in lower), "")
        if kind in _NEEDED and not found[kind]:
            raise UserError(
                f"{title} has no column of {kind}s with a usual name; it has: {_listed(table)}; name the column by "
                f"config.data.{kind}_column"
            )
    return found


def _check_known(named: Sequence[str], wanted: str, field: str, table: Table, title: str) -> None:
    """Refuse names of columns that the table does not have.

    Raises:
      UserError: it lacks one.
    """
    if unknown := [name for name in named if name not in table.names]:
        hint = convert.nearest(unknown[0], table.names)
        raise UserError(f"config.data.{field}={wanted!r}: {title} has no such column{hint}; it has: {_listed(table)}")


def _listed(table: Table) -> str:
    shown = [name if name.isprintable() else repr(name) for name in table.names[:10]]
    return ", ".join(shown) + (f" and {len(table.names) - 10} more" if len(table.names) > 10 else "")
