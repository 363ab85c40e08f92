"""What is typed as NAME=VALUE, and the JSON files that say what is known, or which trials to run."""

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..mixture import Known
from .grid import FIELDS, Grid


def read_known(path: Path | None) -> Known:
    """Known from a JSON object with any of weights, means, covariances; null where free."""
    record = {} if path is None else _read_object(path, FIELDS)
    return Known(**{name: None if value is None else _with_nan(value, path, name) for name, value in record.items()})


def read_grid(path: Path) -> Grid:
    """The checked grid of a JSON file, missing keys as they are by default."""
    record = _read_object(path, [field.name for field in fields(Grid)])
    grid = Grid(**{name: tuple(value) if isinstance(value, list) else value for name, value in record.items()})
    grid.check()
    return grid


def _read_object(path, names):
    """The JSON object of a file; a ValueError where it is none, or has another name in it."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): write an object with any of {', '.join(names)}.") from None
    if not isinstance(record, dict) or not set(record) <= set(names):
        got = json.dumps(record)[:80]
        raise ValueError(f"{path} must hold a JSON object with any of {', '.join(names)}; got {got}.")
    return record


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """NAME -> VALUE of all; a ValueError names one that is given twice."""
    options = {}
    for name, value in map(parse_option, texts):
        if name in options:
            raise ValueError(f"option {name!r} is given twice: {options[name]!r} and {value!r}; leave one out.")
        options[name] = value
    return options


def parse_option(text: str) -> tuple[str, Any]:
    """(NAME, VALUE) of NAME=VALUE; the value is JSON where it can be, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"an option is written NAME=VALUE; got {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _with_nan(value, path, name):
    """null is NaN; beside lists it stands for a whole component, NaN throughout."""
    try:
        if isinstance(value, list):
            shape = next((np.shape(entry) for entry in value if entry is not None), ())
            value = [np.full(shape, math.nan) if entry is None else np.array(entry, float) for entry in value]
        return np.array(value, float)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: {name} must be a rectangular array of numbers, null where free.") from None
