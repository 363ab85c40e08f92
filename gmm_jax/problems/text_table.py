"""A table as text in parts: commas, semicolons, tabs or blanks separate the fields; what is wrong has its place.

Parts are ranges of bytes; the lines that begin in one are its rows. They are read by NumPy's parser; lines that it
refuses are read again field by field, to say which field is at fault.
"""

from __future__ import annotations

import csv
import io
import math
import os
from functools import partial
from itertools import pairwise

import numpy as np

BYTES_AT_A_TIME = 1 << 22


def open_text(file) -> tuple:
    """(names, parts, read, count), as `open_blocks` asks for: a first line without any number names the columns.

    Otherwise they are numbered from 0. A ValueError names line and column of a field that is empty or no finite number.
    """
    size = os.stat(file).st_size
    parts = list(pairwise([*range(0, size, BYTES_AT_A_TIME), size]))
    head = next(((part, line) for part in parts for line in _lines(file, part)), None)
    if head is None:
        raise ValueError(f"{file} is empty: it needs a row for each sample.")
    begin, (number, line) = head
    delimiter = next((d for d in (",", ";", "\t") if d in line), " ")
    fields = _fields(line, delimiter, f"{file}, line {_lines_before(file, parts, begin) + number}")
    has_names = not any(_is_number(field) for field in fields)
    names = fields if has_names else [str(j) for j in range(len(fields))]
    rows = partial(_rows, file, begin if has_names else None)
    if has_names and not any(rows(part) for part in parts):
        raise ValueError(f"{file} has names of columns but no rows.")

    def read(part, columns):
        lines = rows(part)
        if lines:
            yield _table(lines, delimiter, names, columns, file, partial(_lines_before, file, parts, part))

    return names, parts, read, lambda part: len(rows(part))


def _rows(file, head, part):
    """(number, text) of a part's rows, without the line of names, which is the first line in the part `head`."""
    lines = list(_lines(file, part))
    return lines[1:] if part == head else lines


def _lines(file, part, *, blank=False):
    """(number within the part, text) of the lines that begin in it, without blank ones."""
    start, stop = part
    with open(file, "rb") as content:
        content.seek(max(start - 1, 0))
        if start:
            content.readline()  # it began before
        found = content.read(max(stop - content.tell(), 0))
        if found and not found.endswith(b"\n"):
            found += content.readline()
    try:
        text = found.decode("utf-8" if start else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not a text file in UTF-8: save it as CSV.") from None
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if blank or line.strip():
            yield number, line


def _lines_before(file, parts, part):
    return sum(1 for before in parts if before < part for _ in _lines(file, before, blank=True))


def _table(lines, delimiter, names, columns, file, lines_before):
    try:
        texts = [line for _, line in lines]
        table = np.loadtxt(texts, delimiter=None if delimiter == " " else delimiter, comments=None, ndmin=2)
        if table.shape[1] == len(names) and np.isfinite(table).all():
            return table[:, columns]
    except ValueError:
        pass
    rows, before = [], lines_before()
    for i, line in lines:
        place = f"{file}, line {before + i}"
        row = _fields(line.rstrip("\r\n"), delimiter, place)
        if len(row) != len(names):
            raise ValueError(f"{place}: {len(row)} fields where the first line has {len(names)}.")
        rows.append([_number(row[j], f"{place}, column {names[j]!r}") for j in columns])
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


def _number(field, place):
    if not field:
        raise ValueError(f"{place}: no value; fill it or drop the row.")
    if not _is_number(field):
        raise ValueError(f"{place}: {field!r} is no number; choose other columns with --columns.")
    if not math.isfinite(float(field)):
        raise ValueError(f"{place}: {field} is not finite; drop or impute the row.")
    return float(field)
