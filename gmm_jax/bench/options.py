"""What is typed as NAME=VALUE, and the JSON file that says what is known."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..mixture import Known
from .grid import FIELDS


def read_known(path: Path | None) -> Known:
    """Known from a JSON object with any of weights, means, covariances; null where free."""
    if path is None:
        return Known()
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f'{path} is not JSON ({error}): write an object like {{"weights": [0.7, 0.3]}}.') from None
    if not isinstance(record, dict) or not set(record) <= set(FIELDS):
        raise ValueError(f"{path} must hold a JSON object with any of {', '.join(FIELDS)}.")
    return Known(**{name: None if value is None else _with_nan(value, path, name) for name, value in record.items()})


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
