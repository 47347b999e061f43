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
MOST_ROWS = 2**25  # of Parquet, whose few kilobytes may claim, or be, any number of rows
MOST_BYTES = 2**31  # that a column of Parquet may take
_AT_ONCE = 2**20  # rows of Parquet
_CELL = 64  # bytes of a value besides its text, about


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
        texts = [field.name for field in parquet.read_schema(path) if pyarrow.types.is_string(field.type)]
        file = parquet.ParquetFile(path, read_dictionary=texts)  # a text that is repeated is inflated once
        names = tuple(file.schema_arrow.names)
        length = file.metadata.num_rows
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{title} is not a Parquet file: {str(error).splitlines()[0]}") from None

    if length > MOST_ROWS:
        raise UserError(
            f"{title} claims {length:,} rows, and the limit is {MOST_ROWS:,}; divide it, or write it as CSV"
        )

    def column(name: str) -> Column:
        too_large = UserError(
            f"{title}: column {name!r} is larger than {MOST_ROWS:,} values or {MOST_BYTES / 2**30:g} GiB, which is the "
            "limit; divide the table, or write it as CSV"
        )
        values, taken = _claimed(file, name)
        if values > MOST_ROWS or taken > MOST_BYTES:
            raise too_large
        cells: Column = []
        taken = 0
        try:
            for batch in file.iter_batches(_AT_ONCE, columns=[name]):
                more, size = _cells(batch.column(0))
                cells += more
                taken += size
                if len(cells) > MOST_ROWS or taken > MOST_BYTES:
                    raise too_large
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # also text that is not UTF-8
            raise UserError(f"{title}: column {name!r} cannot be read: {str(error).splitlines()[0]}") from None
        return cells

    return Table(names, column, lambda row: f"row {row + 1}", length)


def _claimed(file: Any, name: str) -> tuple[int, int]:
    """The values of a column of Parquet, and their bytes, by the file's own account."""
    groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
    parts = [part for group in groups for part in map(group.column, range(group.num_columns))]
    own = [part for part in parts if part.path_in_schema.partition(".")[0] == name.partition(".")[0]]
    return sum(part.num_values for part in own), sum(part.total_uncompressed_size for part in own)


def _cells(column: Any) -> tuple[Column, int]:
    """The cells of a part of a column of Parquet, where equal cells are one object, and about the bytes they take."""
    import numpy as np
    import pyarrow

    if pyarrow.types.is_nested(column.type):
        return column.to_pylist(), column.nbytes * _CELL // 8
    if not pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    values, places = column.dictionary, column.indices
    if len(values) > 2 * len(places):  # most are of other parts
        used = places.dictionary_encode()
        values, places = values.take(used.dictionary), used.indices
    cells = np.array([*values.to_pylist(), None], object)
    places = places.fill_null(len(values)).to_numpy(zero_copy_only=False)
    return cells[places].tolist(), values.nbytes + len(values) * _CELL + 8 * len(column)
