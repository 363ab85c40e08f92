"""A table as text, block by block: commas, semicolons, tabs or blanks part the fields; what is wrong has its place.

Blocks are read by NumPy's parser; one that it refuses is read again field by field, to say which field is at fault.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

ROWS_AT_A_TIME = 1 << 16


def open_text(path: Path) -> tuple[list[str], Callable[[list[int]], Iterator[np.ndarray]]]:
    """(names of the columns, read): a first line without any number names them, else they are numbered from 0.

    read(columns) yields blocks (rows, columns). A ValueError names line and column of a field that is empty or no
    finite number.
    """
    first = next(_lines(path), None)
    if first is None:
        raise ValueError(f"{path} is empty: it needs a row for each sample.")
    number, line = first
    delimiter = next((d for d in (",", ";", "\t") if d in line), " ")
    fields = _fields(line, delimiter, f"{path}, line {number}")
    has_names = not any(_is_number(field) for field in fields)
    names = fields if has_names else [str(j) for j in range(len(fields))]

    def read(columns):
        lines, n_blocks = islice(_lines(path), int(has_names), None), 0
        while some := list(islice(lines, ROWS_AT_A_TIME)):
            n_blocks += 1
            yield _table(some, delimiter, names, columns, path)
        if not n_blocks:
            raise ValueError(f"{path} has names of columns but no rows.")

    return names, read


def _lines(path):
    """(number, text) of the lines that are not blank."""
    with open(path, encoding="utf-8-sig") as file:
        try:
            yield from ((i, line) for i, line in enumerate(file, start=1) if line.strip())
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not a text file in UTF-8: save it as CSV.") from None


def _table(lines, delimiter, names, columns, path):
    try:
        texts = [line for _, line in lines]
        table = np.loadtxt(texts, delimiter=None if delimiter == " " else delimiter, comments=None, ndmin=2)
        if table.shape[1] == len(names) and np.isfinite(table).all():
            return table[:, columns]
    except ValueError:
        pass
    rows = []
    for i, line in lines:
        row = _fields(line.rstrip("\r\n"), delimiter, f"{path}, line {i}")
        if len(row) != len(names):
            raise ValueError(f"{path}, line {i}: {len(row)} fields where the first line has {len(names)}.")
        rows.append([_number(row[j], path, i, names[j]) for j in columns])
    return np.array(rows, float)


def _fields(line, delimiter, place):
    """One line at a time, so that a stray quotation mark does not swallow the lines after it."""
    try:
        row = next(csv.reader([line.strip() if delimiter == " " else line], delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"{place}: {error}.") from None
    return [field.strip() for field in row]


def _is_number(field):
    try:
        float(field)
    except ValueError:
        return False
    return True


def _number(field, path, line, name):
    if not field:
        raise ValueError(f"{path}, line {line}, column {name!r}: no value; fill it or drop the row.")
    if not _is_number(field):
        raise ValueError(
            f"{path}, line {line}, column {name!r}: {field!r} is no number; choose other columns with --columns."
        )
    if not math.isfinite(float(field)):
        raise ValueError(f"{path}, line {line}, column {name!r}: {field} is not finite; drop or impute the row.")
    return float(field)
