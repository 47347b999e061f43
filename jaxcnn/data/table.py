"""Tables in files: CSV, TSV, JSON lines and Parquet, column by column."""

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import json_text
from jaxcnn.machine.extras import need

Column = list[Any]  # text in CSV and TSV; any values of the file in JSON lines and Parquet
SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_LARGEST_CELL = 2**20  # characters


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose columns have names.

    Attributes:
      names: names of the columns.
      column: returns the cells of a column, by its name.
      where: returns the place of row i in messages, such as "line 17".
      length: number of rows.
    """

    names: tuple[str, ...]
    column: Callable[[str], Column]
    where: Callable[[int], str]
    length: int


def read_table(path: Path, title: str) -> Table:
    """The table in a file, whose suffix gives the format: .csv, .tsv, .jsonl or .parquet.

    CSV and TSV have the names of the columns in their first line; a CSV may have semicolons in place of commas.

    Raises:
      UserError: no such file, an unknown suffix, a file that is not of its format, or an empty one.
      MissingExtra: Parquet needs pyarrow, which is not installed.
    """
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise UserError(f"{title}: the suffix {path.suffix!r} is none of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"config.data.source={title!r}: this file does not exist")
    try:
        table = _parquet(path, title) if form == "parquet" else _lines(path, title, form)
    except OSError as error:
        raise UserError(f"config.data.source={title!r} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{title} is not text in UTF-8 (byte {error.start}); save it so") from None
    if not table.length:
        raise UserError(f"{title} has no rows")
    return table


def _lines(path: Path, title: str, form: str) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows, lines = _json(file, title) if form == "jsonl" else _separated(file, title, form)
    names = tuple(rows)
    return Table(names, rows.__getitem__, lambda row: f"line {lines[row]}", len(lines))


def _separated(file: Any, title: str, form: str) -> tuple[dict[str, Column], list[int]]:
    """The columns of a CSV or TSV, and the line of each row."""
    header = file.readline()
    commas = max(",;\t", key=header.count) if form == "csv" else "\t"
    file.seek(0)
    csv.field_size_limit(_LARGEST_CELL)
    reader = csv.reader(file, delimiter=commas, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{title} has two columns named {twice!r}")
        cells: list[list[str]] = []
        lines = []
        before = reader.line_num
        for row in reader:
            line, before = before + 1, reader.line_num
            if not row:  # an empty line
                continue
            if len(row) != len(names):
                raise UserError(f"{title} line {line} has {len(row)} cells, but the first line names {len(names)}")
            cells.append(row)
            lines.append(line)
    except csv.Error as error:
        raise UserError(f"{title} line {reader.line_num} cannot be read: {error}") from None
    return {name: [row[place] for row in cells] for place, name in enumerate(names)}, lines


def _json(file: Any, title: str) -> tuple[dict[str, Column], list[int]]:
    """The columns of JSON lines, and the line of each row; an absent key is None."""
    rows, lines = [], []
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json_text.parse(text)
        except ValueError as error:
            raise UserError(f"{title} line {line} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f'{title} line {line} is not an object, such as {{"image": "a.png", "label": "cat"}}')
        rows.append(row)
        lines.append(line)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}, lines


def _parquet(path: Path, title: str) -> Table:
    need("parquet", title, "pyarrow")
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = tuple(file.schema_arrow.names)
        length = file.metadata.num_rows
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{title} is not a Parquet file: {str(error).splitlines()[0]}") from None

    def column(name: str) -> Column:
        try:
            return file.read(columns=[name]).column(0).to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # also text that is not UTF-8
            raise UserError(f"{title}: column {name!r} cannot be read: {str(error).splitlines()[0]}") from None

    return Table(names, column, lambda row: f"row {row + 1}", length)
