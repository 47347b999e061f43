"""`--mode=embed`: features of images from a trained network, as arrays for search, clustering or another library."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Num

from jaxcnn.config import UserError
from jaxcnn.data.batch import Split
from jaxcnn.data.decode import Unreadable
from jaxcnn.data.selection import name_in_set
from jaxcnn.machine import npz_arrays
from jaxcnn.machine.extras import need
from jaxcnn.text import shown
from jaxcnn.train import predict
from jaxcnn.train.trained import Trained

SUFFIXES = (".npz", ".parquet")
ARRAYS = ("features", "names")  # that every npz file of features has
MOST_BYTES = 2**36  # largest size of the arrays in a file of features
SAME = 1e-2  # greatest difference between features of one image, relative to the largest of them
Rows = Float[np.ndarray, "n d"]


@dataclasses.dataclass(frozen=True)
class Features:
    """The features of images.

    Attributes:
      values: float32 [n, d]; for a layer whose output is a map, all its values in one row.
      names: file of each image, or its base split and its place there.
      targets: the answers of the images of a split, with n as their first dimension; None for files.
      class_names: empty for files.
    """

    values: Rows
    names: tuple[str, ...]
    targets: Any = None
    class_names: tuple[str, ...] = ()


def of_split(trained: Trained, split: Split, layer: str = "", places: Int[np.ndarray, " n"] | None = None) -> Features:
    """The features of a split, in its order; images are not augmented.

    Args:
      trained: the network.
      split: the images.
      layer: the path of the layer whose output is taken; empty: the input of the layer that makes the outputs.
      places: indices of the wanted examples; None: all.

    Raises:
      UserError: the network has no such layer.
    """
    chosen, targets = np.arange(len(split)), split.targets
    if places is not None:
        chosen, targets = places, jax.tree.map(lambda leaf: leaf[places], split.targets)
    values = _values(trained, len(chosen), lambda rows: split.read(chosen[rows]), layer)
    return Features(values, tuple(name_in_set(split, int(k)) for k in chosen), targets, split.class_names)


def and_outputs(trained: Trained, split: Split, places: Int[np.ndarray, " n"]) -> tuple[Rows, Float[np.ndarray, "n k"]]:
    """The features of some examples of a split, as from `of_split`, and their outputs, from one pass."""
    starts = range(0, len(places), predict.BATCH)
    rows = [
        predict.outputs_of(trained, split.read(places[k : k + predict.BATCH]), "", outputs=True).astype(np.float32)
        for k in starts
    ]
    outputs, features = np.split(np.concatenate(rows), [trained.spec.task.targets.outputs], axis=1)
    return features, outputs


def of_pixels(trained: Trained, pixels: Num[np.ndarray, "n h w c"], layer: str = "") -> Rows:
    """The features of images as they are stored; for `layer` and errors see `of_split`."""
    return _values(trained, len(pixels), lambda rows: pixels[rows], layer)


def of_files(trained: Trained, paths: list[pathlib.Path], layer: str = "", *, skip_unreadable: bool) -> Features:
    """The features of image files; those that cannot be read are an error, or left out with `skip_unreadable`.

    Raises:
      UserError: an image cannot be read, or none can; or the network has no such layer.
    """
    names: list[str] = []

    def read(places: np.ndarray) -> np.ndarray:
        pixels = []
        for path in (paths[k] for k in places):
            try:
                pixels.append(predict.read(path, trained.spec.image_shape, trained.config.data))
                names.append(str(path))
            except (Unreadable, OSError) as error:
                if not skip_unreadable:
                    raise predict.unreadable(path, error) from None
        return np.stack(pixels) if pixels else np.zeros((0, *trained.spec.image_shape), trained.config.data.dtype)

    values = _values(trained, len(paths), read, layer)
    if not names:
        raise UserError("--images: none of the images could be read")
    return Features(values, tuple(names))


def _values(trained: Trained, count: int, read: Callable[[np.ndarray], np.ndarray], layer: str) -> Rows:
    parts = []
    for start in range(0, count, predict.BATCH):
        images = read(np.arange(start, min(start + predict.BATCH, count)))
        if len(images):
            found = predict.outputs_of(trained, images, layer)
            parts.append(found.reshape(len(found), -1).astype(np.float32))
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def write(features: Features, path: pathlib.Path) -> None:
    """Write features to an npz file (features, names, labels, class_names) or a Parquet table, a row for each image.

    Raises:
      UserError: Parquet is wanted, and pyarrow is not installed.
    """
    labelled = isinstance(features.targets, np.ndarray)
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {"features": features.values, "names": np.array(features.names, dtype=np.str_)}
        if labelled:
            arrays |= {"labels": features.targets, "class_names": np.array(features.class_names, dtype=np.str_)}
        with path.open("wb") as file:
            np.savez(file, **arrays)
        return
    check(path)
    import pyarrow as pa
    from pyarrow import parquet

    width = features.values.shape[1]
    columns: dict[str, Any] = {"name": pa.array(features.names, pa.string())}
    if labelled and features.targets.ndim == 1 and features.targets.dtype.kind == "i":
        columns["label"] = pa.array([features.class_names[k] for k in features.targets], pa.string())
    elif labelled:
        columns["label"] = pa.array(features.targets.tolist())
    columns["features"] = pa.FixedSizeListArray.from_arrays(pa.array(features.values.ravel()), width)
    parquet.write_table(pa.table(columns), path)


def check(path: pathlib.Path) -> None:
    """Refuse a file that cannot be written, before any work is done."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"--out={path} must end in .npz or .parquet")
    if path.suffix == ".parquet":
        need("parquet", f"--out={path}")


def read(path: pathlib.Path) -> Features:
    """The features of an npz file that `write` made.

    Raises:
      UserError: the file has no features.
    """
    try:
        file = npz_arrays.read(path, MOST_BYTES)
        if missing := [name for name in (*ARRAYS, *(["class_names"] if "labels" in file else [])) if name not in file]:
            raise ValueError(f"it has no array {' and no array '.join(missing)}")
        values, names = file["features"], tuple(map(str, file["names"]))
        labels = file.get("labels")
        classes = tuple(map(str, file["class_names"])) if labels is not None else ()
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"--among={path} is no npz file of --mode=embed: {error}") from None
    if values.ndim != 2 or len(values) != len(names) or not len(names):
        raise UserError(f"--among={path} is no npz file of --mode=embed: it has features {values.shape}")
    return Features(values, names, labels, classes)


def nearest(
    queries: Rows, among: Rows, count: int, left_out: Sequence[Sequence[int]] = ()
) -> tuple[list[Int[np.ndarray, " m"]], list[Float[np.ndarray, " m"]]]:
    """The indices of the nearest rows of each query by cosine similarity, nearest first, and these similarities.

    Of equally similar rows, the first one counts as nearer. A row of zeros is similar to nothing (0).

    Args:
      queries: features.
      among: the rows that are looked at.
      count: number of nearest rows; m is less if there are fewer.
      left_out: indices of rows that are not looked at, for each query; empty: all are.
    """
    directions = _directions(among)
    places: list[Int[np.ndarray, " m"]] = []
    similar: list[Float[np.ndarray, " m"]] = []
    for start in range(0, len(queries), predict.BATCH):
        found = _directions(queries[start : start + predict.BATCH]) @ directions.T
        for number, row in enumerate(found, start):
            nearness = np.where(np.isnan(row), -np.inf, row)
            absent = np.asarray(left_out[number] if left_out else (), np.int64)
            nearness[absent] = -np.inf
            wanted = min(count, len(row) - len(absent))
            least = -np.partition(-nearness, wanted - 1)[wanted - 1] if wanted else np.inf
            rows = np.setdiff1d(np.flatnonzero(nearness >= least), absent)
            rows = rows[np.argsort(-nearness[rows], kind="stable")][:wanted]
            places.append(rows)
            similar.append(row[rows])
    return places, similar


def _directions(rows: Rows) -> Float[np.ndarray, "n d"]:
    """Rows of length 1, float64; those of zeros stay so."""
    rows = rows.astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return rows


def neighbours(queries: Features, among: Features, count: int) -> list[dict[str, Any]]:
    """A mapping for each query: `{"file", "neighbours": [{"file", "similarity", "label"}]}`, without the image itself.

    The image itself is what has its name and its features.

    Raises:
      UserError: the features of queries and candidates have different lengths.
    """
    if queries.values.shape[1] != among.values.shape[1]:
        raise UserError(
            f"--among has {among.values.shape[1]} features for an image, not {queries.values.shape[1]}; it is of "
            "another network or layer"
        )
    named: dict[str, list[int]] = {}
    for row, name in enumerate(among.names):
        named.setdefault(name, []).append(row)
    itself = [
        [row for row in named.get(name, ()) if _same(values, among.values[row])]
        for name, values in zip(queries.names, queries.values, strict=True)
    ]
    told = among.class_names and among.targets is not None and among.targets.ndim == 1
    found = nearest(queries.values, among.values, count, itself)
    return [
        {
            "file": name,
            "neighbours": [
                {"file": among.names[k], "similarity": round(float(value), 6)}
                | ({"label": among.class_names[among.targets[k]]} if told else {})
                for k, value in zip(places, similar, strict=True)
            ],
        }
        for name, places, similar in zip(queries.names, *found, strict=True)
    ]


def _same(one: Float[np.ndarray, " d"], other: Float[np.ndarray, " d"]) -> bool:
    """Whether two features are those of one image, computed in other batches."""
    return float(np.abs(one - other).max(initial=0)) <= SAME * float(np.abs(other).max(initial=0))


def in_words(result: dict[str, Any]) -> str:
    """A result of `neighbours` as one line of text."""
    rows = (
        f"{shown(one['file'])} {one['similarity']:.3f}" + (f" ({shown(one['label'])})" if "label" in one else "")
        for one in result["neighbours"]
    )
    return f"{shown(result['file'])}: {', '.join(rows)}"
