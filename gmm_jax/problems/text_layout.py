"""How a table of text is written, seen from its first lines: separator, decimal sign, names, comments.

Of the separators and decimal signs the pair is taken with which most fields are numbers and all lines are equally long.
What the lines leave open is said in a note, with the option that decides it.
"""

import csv
import math
import re
from collections.abc import Sequence
from itertools import pairwise, product
from statistics import mode
from typing import NamedTuple

SEPARATORS = (",", ";", "\t", "|", " ")
MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "?", "-", ".", "missing"))
YEARS = range(1800, 2200)
_GROUPED = {  # 1,234,567.8 and 1.234.567,8; apostrophes and blanks group digits in both
    ".": re.compile(r"[+-]?[1-9]\d{0,2}([,' \u00a0\u202f]\d{3})+(\.\d*)?"),
    ",": re.compile(r"[+-]?[1-9]\d{0,2}([.' \u00a0\u202f]\d{3})+(,\d*)?"),
}


class TextFormat(NamedTuple):
    """What is said of a text file beforehand; None is seen from its first lines."""

    header: bool | None = None  # whether its first line names the columns
    separator: str | None = None  # of fields
    decimal: str | None = None  # "." or ","
    comment: str = "#"  # lines that begin with it are skipped
    encoding: str | None = None  # UTF-8, or else Latin-1
    na: tuple[str, ...] = ()  # what stands for a missing value, besides NA, NaN, ?, nothing and the like


class Layout(NamedTuple):
    """How a text file is written."""

    names: list[str]  # of the columns, all different
    has_names: bool
    separator: str
    decimal: str
    trailing: bool  # whether lines end with a separator
    missing: frozenset[str]  # what stands for a missing value, in lower case
    missing_numbers: list[float]
    text_columns: dict[int, str]  # column without any number in the first lines -> its first entry
    notes: list[str]

    def number(self, field: str) -> float | None:
        """The number that a field holds, NaN where it is missing; None for text."""
        if field.lower() in self.missing:
            return math.nan
        value = to_number(field, self.decimal)
        return math.nan if value in self.missing_numbers else value

    def fields(self, line: str) -> list[str]:
        """The fields of one line; a csv.Error is raised for what cannot be one."""
        found = fields_of(line, self.separator)
        return found[:-1] if self.trailing and len(found) > len(self.names) and not found[-1] else found


def layout_of(lines: Sequence[str], given: TextFormat) -> Layout:
    """The layout of a file that begins with these lines."""
    missing = MISSING | {text.lower() for text in given.na}
    separator, decimal = max(_pairs(given, lines), key=lambda pair: _score(lines, *pair, missing))
    rows, notes = [fields_of(line, separator) for line in lines], []
    body = rows[1:] or rows
    width = mode(map(len, body))
    trailing = width > 1 and not any(row[-1] for row in rows if len(row) == width)
    width -= trailing
    has_names = given.header
    if has_names is None:
        has_names, notes = _has_names(rows[0][:width], _columns(body, width, missing), decimal)
    names = list(map(str, range(width)))
    if has_names:
        unnamed = [""] * (len(rows[0]) == width - 1)  # R names rows in a column without a name
        names = _different([*unnamed, *rows[0][: width - len(unnamed)]], notes)
    columns = _columns(body if has_names else rows, width, missing)
    text = {j: of[0] for j, of in enumerate(columns) if of and all(to_number(f, decimal) is None for f in of)}
    unclear = [field for of in columns for field in of if "," in field]
    if decimal == "," and unclear and given.decimal is None and all(map(_GROUPED["."].fullmatch, unclear)):
        value = f"{to_number(unclear[0], '.'):.0f}"
        notes.append(f"{unclear[0]} was read with a decimal comma: --decimal . if it means {value}")
    whole = separator == "," and width == 2 and all(field.isdecimal() for of in columns for field in of)
    if whole and not has_names and given == TextFormat():
        notes.append("two columns of whole numbers were read: --decimal , if they are one with decimal commas")
    codes = [number for number in (to_number(text, decimal) for text in given.na) if number is not None]
    return Layout(names, has_names, separator, decimal, trailing, missing, codes, text, notes)


def to_number(field: str, decimal: str) -> float | None:
    """The number that a text stands for, also with groups of three digits; None where it is none."""
    if _GROUPED[decimal].fullmatch(field):
        field = re.sub(rf"[^0-9+\-{decimal}]", "", field)
    elif "_" in field or (decimal == "," and ("." in field or field.endswith(","))):
        return None
    try:
        return float(field if decimal == "." else field.replace(",", "."))
    except ValueError:
        return None


def fields_of(line: str, separator: str) -> list[str]:
    """One line at a time, so that a stray quotation mark does not swallow the lines after it."""
    line = line.strip() if separator == " " else line.rstrip("\r\n")
    return [field.strip() for field in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]


def _pairs(given, lines):
    """Separators and decimal signs to be tried, the likelier first."""
    separator = {"\\t": "\t", "tab": "\t"}.get(given.separator, given.separator)
    if separator is not None and len(separator) != 1:
        raise ValueError(f"separator must be one character, such as ';', or tab; got {given.separator!r}.")
    if given.decimal not in (None, ".", ","):
        raise ValueError(f"decimal must be '.' or ','; got {given.decimal!r}.")
    pairs = product([separator] if separator else SEPARATORS, [given.decimal] if given.decimal else ".,")
    quoted = any('"' in line for line in lines)
    return [pair for pair in pairs if quoted or pair != (",", ",")] or [(separator, given.decimal)]


def _columns(rows, width, missing):
    """The entries of each column that are not missing."""
    return [[row[j] for row in rows if len(row) > j and row[j].lower() not in missing] for j in range(width)]


def _score(lines, separator, decimal, missing):
    """How well a pair explains the lines."""
    try:
        rows = [fields_of(line, separator) for line in lines]
    except csv.Error:
        return (0.0,)
    body = rows[1:] or rows
    width = mode(map(len, body))
    fields = [field for row in body for field in row if field.lower() not in missing]
    numbers = sum(to_number(field, decimal) is not None for field in fields)
    grouped = separator != "," and sum(_GROUPED[decimal].fullmatch(field) is not None for field in fields)
    alike = sum(len(row) == width for row in rows) + (len(rows[0]) == width - 1 > 1)
    return numbers / max(len(fields), 1) * alike / len(rows), width > 1, -grouped


def _has_names(first, columns, decimal):
    """(whether the first line names the columns, what is to be said of that)."""
    numbers = [to_number(field, decimal) for field in first]
    found = [number for number in numbers if number is not None]
    if not found:
        return True, []
    if not all(b - a == 1.0 for a, b in pairwise(found)) or not found[0].is_integer():
        return False, []
    below = [[to_number(field, decimal) for field in of] for of in columns]
    numeric = [bool(of) and None not in of for of in below]
    word = any(number is None and is_numeric for number, is_numeric in zip(numbers, numeric, strict=False))
    fractions = all(any(number % 1.0 for number in of if number is not None) for of in below if of)
    years = found[0] in YEARS and not any(number in YEARS for of in below for number in of)
    shown = ", ".join(first)
    if (len(found) > 1 and (word or fractions or years)) or (word and found[0] in YEARS):
        return True, [f"the first line ({shown}) was taken for names of columns: --header no if it is a row"]
    unclear = first == ["0"] if len(found) == 1 else found[0] in YEARS or (len(found) > 2 and found[0] in (0.0, 1.0))
    return False, [f"the first line ({shown}) was taken for a row: --header yes if it names the columns"] * unclear


def _different(names, notes):
    """The names, those of the same name numbered, those without one by their place."""
    found = []
    for j, name in enumerate(names):
        name = name or str(j)
        if name in found:
            again = next(f"{name}_{i}" for i in range(2, len(names) + 2) if f"{name}_{i}" not in (*found, *names))
            notes.append(f"two columns are named {name!r}: the second is called {again!r}")
            name = again
        found.append(name)
    return found
