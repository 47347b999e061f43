"""Results that a notebook shows as tables and pictures; they are plain lists and dictionaries otherwise."""

import base64
import html
import io
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.train.terminal import epochs_at

_ROWS = 12  # records shown
_IMAGES = 20  # thumbnails
_COLUMNS = 6  # columns of an answer
_SIDE = 96  # largest side of a thumbnail, pixels


class Picture:
    """A picture in a file. A notebook shows it; in code, use the file.

    Attributes:
      path: the PNG file.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Picture({str(self.path)!r})"

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


class Figures(dict[str, Any]):
    """Figures by name: a dictionary, with inner ones; a notebook shows it as a table.

    Shares, such as "top1_accuracy", are from 0 to 1, and names that end in "_seconds" are in seconds.

    Attributes:
      picture: what `Run.evaluate` drew, such as the confusion matrix; None if there is no picture.
    """

    picture: Picture | None = None

    def _repr_html_(self) -> str:
        rows = [(name, value) for name, value in _plain(_whole_epochs(self)) if not isinstance(value, list | dict)]
        return table(("", ""), rows) + (image(self.picture) if self.picture is not None else "")


class Records(list[dict[str, Any]]):
    """Records in order, such as those of `metrics.jsonl`: a list of dictionaries; a notebook shows the last ones.

    `pandas.DataFrame(records)` makes a table. The records of a run have "kind" ("train", "val" or "test") and "step";
    others, such as "epoch", "loss" and "top1_accuracy", are in those that measured them.
    """

    def column(self, name: str) -> list[Any]:
        """The values of one name, such as "loss", from the records that have it; an empty list if none has."""
        return [record[name] for record in self if name in record]

    def _repr_html_(self) -> str:
        last = self[-_ROWS:]
        names = list(dict.fromkeys(name for record in last for name in record))
        note = f"<p>the last {_ROWS} of {len(self)} records</p>" if len(self) > _ROWS else ""
        return note + table(names, ([record.get(name) for name in names] for record in map(_whole_epochs, last)))


class Predictions(list[dict[str, Any]]):
    """The answers for images, in order: a list of dictionaries; a notebook shows the first ones beside their images.

    For classification, an answer has "label", "probability" and "top", the most probable classes with theirs; other
    tasks have "labels" and "probabilities", "values", or objects. Answers for files have "file"; with
    `on_error="skip"`, those for files that cannot be read have only "file" and "error".
    """

    def __init__(self, columns: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        super().__init__()
        self._columns = columns  # those of an answer
        self._pixels: list[np.ndarray | None] = []

    def see(self, answer: dict[str, Any], pixels: np.ndarray | None) -> None:
        """Append an answer; the image is kept if it will be shown."""
        if len(self) < _IMAGES:
            self._pixels.append(pixels)
        self.append(answer)

    def _repr_html_(self) -> str:
        rows = []
        for answer, pixels in zip(self, self._pixels, strict=False):
            seen = {"image": Html(thumbnail(pixels) if pixels is not None else "")}
            named = {"file": pathlib.Path(answer["file"]).name} if "file" in answer else {}
            said = {"error": answer["error"]} if "error" in answer else self._columns(answer)
            rows.append(seen | named | dict(list(said.items())[:_COLUMNS]))
        names = list(dict.fromkeys(name for row in rows for name in row))
        note = f"<p>the first {_IMAGES} of {len(self)} images</p>" if len(self) > _IMAGES else ""
        return note + table(names, ([row.get(name) for name in names] for row in rows))


class Html(str):
    """Text that is already HTML."""


def table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in HTML, with the names as its header."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if any(names) else ''}<tbody>{body}</tbody></table>"


def image(picture: Picture) -> str:
    """A picture as part of an HTML page."""
    return f'<img style="max-width: 100%" src="data:image/png;base64,{_base64(picture.path.read_bytes())}">'


def thumbnail(pixels: np.ndarray) -> str:
    """A thumbnail of an image [H, W, C]; with other than 1 or 3 channels, of the first channel."""
    from PIL import Image

    channels = pixels.shape[-1]
    if pixels.dtype != np.uint8:
        values = pixels.astype(np.float64) - pixels.min()
        pixels = (255 * values / max(values.max(), 1e-9)).astype(np.uint8)
    drawn = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    side = min(_SIDE, 4 * max(drawn.size))
    drawn = drawn.resize(
        (max(1, drawn.width * side // max(drawn.size)), max(1, drawn.height * side // max(drawn.size)))
    )
    opened = io.BytesIO()
    drawn.save(opened, "PNG")
    return f'<img src="data:image/png;base64,{_base64(opened.getvalue())}">'


def value_text(value: Any) -> str:
    """A number or text as it is shown in tables."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _whole_epochs(told: Mapping[str, Any]) -> dict[str, Any]:
    """A record or a summary with its epoch as the terminal shows it: "30" after the step in which the 30th ends."""
    found = dict(told)
    for epoch, step in (("epoch", "step"), ("epochs", "steps")):
        if epoch in found and step in found:
            found[epoch] = epochs_at(found[step], found[epoch])
    return found


def _cell(value: Any) -> str:
    return value if isinstance(value, Html) else html.escape(value_text(value))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _plain(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The names and values of a tree; inner mappings of a few numbers get names such as "test loss"."""
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping) and len(value) <= 20 and not prefix:
            found += _plain(value, f"{name} ")
        else:
            found.append((f"{prefix}{name}", value))
    return found
