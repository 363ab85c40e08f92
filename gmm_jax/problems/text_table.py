"""A table as text in parts, in whatever way it is written (see `text_layout`); what is wrong has its place.

Parts are ranges of bytes; the lines that begin in one are its rows. They are read by NumPy's parser; lines that it
refuses are read again field by field, which finds missing values and says which field is at fault.
"""

import csv
import io
import math
import os
from functools import partial
from itertools import islice, pairwise

import numpy as np

from .formats import Content
from .text_layout import TextFormat, layout_of

BYTES_AT_A_TIME = 1 << 22
LINES_SEEN = 200  # for the layout


def open_text(file, given: TextFormat, missing: str | None) -> Content:
    """The file's `Content`: a ValueError names line and column of a field that is no finite number.

    Args:
        missing: "marginalise" makes NaN of what is missing; else that is an error too.
    """
    size = os.stat(file).st_size
    parts = list(pairwise([*range(0, size, BYTES_AT_A_TIME), size]))
    head = list(islice(((part, line) for part in parts for _, line in _lines(file, given, part)), LINES_SEEN))
    if not head:
        raise ValueError(f"{file} is empty: it needs a row for each sample.")
    try:
        layout = layout_of([line for _, line in head], given)
    except csv.Error as error:
        raise ValueError(f"{file} is no table of text: {error}.") from None
    begin = head[0][0] if layout.has_names else None

    def rows(part):
        """(number, text) of a part's rows, without the line of names, which is the first line of its part."""
        lines = list(_lines(file, given, part))
        return lines[1:] if part == begin else lines

    if layout.has_names and not any(rows(part) for part in parts):
        raise ValueError(f"{file} has names of columns but no rows.")

    def read(columns, part):
        lines = rows(part)
        if lines:
            yield _table(lines, layout, columns, missing, partial(_place, file, given, parts, part))

    def records(part):
        return (layout.fields(line) for _, line in rows(part))

    return Content(layout.names, parts, read, lambda part: len(rows(part)), records, layout)


def _lines(file, given, part, *, whole=False):
    """(number within the part, text) of the lines that begin in it, without comments and blank ones if not `whole`."""
    start, stop = part
    with open(file, "rb") as content:
        content.seek(max(start - 1, 0))
        if start:
            content.readline()  # it began before
        found = content.read(max(stop - content.tell(), 0))
        if found and not found.endswith(b"\n"):
            found += content.readline()
    for number, line in enumerate(io.StringIO(_text(found, file, given.encoding), newline=None), start=1):
        if whole or (line.strip() and not (given.comment and line.lstrip().startswith(given.comment))):
            yield number, line


def _text(content, file, encoding):
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode(encoding or "utf-8")
    except LookupError:
        raise ValueError(f"encoding {encoding!r} does not exist: utf-8 and latin-1 do.") from None
    except UnicodeDecodeError:
        if encoding is not None or b"\0" in content:
            how = f"no text in {encoding}" if encoding else "not a text file"
            raise ValueError(f"{file} is {how}: save it as CSV, or name its encoding (--encoding).") from None
        return content.decode("latin-1")


def _place(file, given, parts, part, number):
    before = sum(1 for other in parts if other < part for _ in _lines(file, given, other, whole=True))
    return f"{file}, line {before + number}"


def _table(lines, layout, columns, missing, place):
    """(n, D) of the chosen columns."""
    width = len(layout.names)
    try:
        return _by_numpy([line for _, line in lines], layout, columns)
    except ValueError:
        pass
    rows = []
    for number, line in lines:
        try:
            row = layout.fields(line)
        except csv.Error as error:
            raise ValueError(f"{place(number)}: {error}.") from None
        if len(row) != width:
            seen = f"{len(row)} fields where the first line has {width}"
            raise ValueError(f"{place(number)}: {seen} (separator {layout.separator!r}).")
        values = [layout.number(row[j]) for j in columns]
        if not all(value is not None and (math.isfinite(value) or (value != value and missing)) for value in values):
            j = next(j for j, v in zip(columns, values, strict=True) if v is None or not math.isfinite(v))
            raise ValueError(f"{place(number)}, column {layout.names[j]!r}: {_wrong(row[j], layout)}")
        rows.append(values)
    return np.array(rows, float)


def _by_numpy(lines, layout, columns):
    """The same, or a ValueError where NumPy's parser cannot tell."""
    separator, decimal = layout.separator, layout.decimal
    if decimal == ",":
        if separator == "," or any("." in line for line in lines):  # groups of three digits
            raise ValueError
        lines = [line.replace(",", ".") for line in lines]
    blank = separator == " "
    n_fields = {len(line.split()) if blank else line.count(separator) + 1 - layout.trailing for line in lines}
    if n_fields != {len(layout.names)}:
        raise ValueError
    table = np.loadtxt(lines, delimiter=None if blank else separator, comments=None, ndmin=2, usecols=columns)
    if not np.isfinite(table).all() or np.isin(table, layout.missing_numbers).any():
        raise ValueError
    return table


def _wrong(field, layout):
    value = layout.number(field)
    if value is not None and math.isnan(value):
        said = f"{field!r} is a missing value" if field else "no value"
        return f"{said}; add --missing marginalise, or drop the row."
    if value is not None:
        return f"{field} is not finite; drop or impute the row."
    return f"{field!r} is no number (decimal sign {layout.decimal!r}); mend it, or leave the column out with --drop."
