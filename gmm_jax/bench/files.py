"""gmm-jax fit DATA.csv: a user's table in, an answer with its uncertainty out; what is wrong is named by its place."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..judge import information_criteria
from ..mixture import Known, MixtureSpec, Status, check_data, validate_spec
from . import landscape, methods, report, store


def fit_file(
    path: Path,
    *,
    n_components: int,
    covariance_type: str = "full",
    columns: Sequence[str] = (),
    method: str = "em",
    options: Mapping[str, Any] | None = None,
    known: Path | None = None,
    seed: int = 0,
    as_json: bool = False,
) -> int:
    """Fit and print; returns the exit code: 3 where the fit failed, with the reason."""
    x, names = read_table(path, columns)
    chosen = methods.load(method)
    methods.check_options(chosen, options or {})
    spec = MixtureSpec(n_components, covariance_type, read_known(known))
    check_data(x, n_components=n_components, name=Path(path).name)
    spec = validate_spec(spec, x.shape[1])
    extra = {}
    with report.progress_bar(f"{method} on {Path(path).name}") as update:
        if "progress" in chosen.options:
            extra = {"progress": lambda done, total, *_: update(done, total)}
        fit = chosen.fit(jax.random.key(seed), x, spec, **(options or {}), **extra)
    scores = information_criteria(fit.point, x, spec)
    if as_json:
        print(json.dumps(_document(fit, names, scores), allow_nan=False))
    else:
        _tell(fit, Path(path).name, names, x, spec, scores)
    return 0 if fit.status.ok else 3


def read_table(path: Path, columns: Sequence[str] = ()) -> tuple[np.ndarray, list[str]]:
    """The chosen columns of a CSV file, (N, D), and their names; a first row without any number names the columns.

    Commas, semicolons, tabs or blanks part the fields. A ValueError names the line and column of a field that is
    empty or no number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file in UTF-8: save it as CSV.") from None
    lines = [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty: it needs a row for each sample.")
    delimiter = next((d for d in (",", ";", "\t") if d in lines[0][1]), " ")
    fields = [_fields(line, delimiter, f"{path}, line {i}") for i, line in lines]
    has_names = not any(_is_number(field) for field in fields[0])
    names = fields[0] if has_names else [str(j) for j in range(len(fields[0]))]
    rows = list(zip([i for i, _ in lines], fields, strict=True))[1 if has_names else 0 :]
    if not rows:
        raise ValueError(f"{path} has names of columns but no rows.")
    chosen = _choose(columns, names, path)
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(f"{path}, line {line}: {len(row)} fields where the first line has {len(names)}.")
    table = [[_number(row[j], path, line, names[j]) for j in chosen] for line, row in rows]
    return np.array(table, float), [names[j] for j in chosen]


def read_known(path: Path | None) -> Known:
    """Known from a JSON object with any of weights, means, covariances; null where free."""
    if path is None:
        return Known()
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f'{path} is not JSON ({error}): write an object like {{"weights": [0.7, 0.3]}}.') from None
    fields = ("weights", "means", "covariances")
    if not isinstance(record, dict) or not set(record) <= set(fields):
        raise ValueError(f"{path} must hold a JSON object with any of {', '.join(fields)}.")
    return Known(**{name: None if value is None else _with_nan(value, path, name) for name, value in record.items()})


def parse_option(text: str) -> tuple[str, Any]:
    """NAME=VALUE; the value is JSON where it can be, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"an option is written NAME=VALUE; got {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


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


def _choose(columns, names, path):
    chosen = []
    for column in columns:
        if column in names:
            chosen.append(names.index(column))
        elif column.isdigit() and int(column) < len(names):
            chosen.append(int(column))
        else:
            near = get_close_matches(column, names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"column {column!r} does not exist in {path}{hint}; it has {', '.join(names)}.")
    return chosen or list(range(len(names)))


def _with_nan(value, path, name):
    """null is NaN; beside lists it stands for a whole component, NaN throughout."""

    def filled(entry):
        if not isinstance(entry, list):
            return np.array(math.nan if entry is None else entry, float)
        parts = [filled(e) for e in entry]
        shape = max((part.shape for part in parts), key=len, default=())
        return np.stack([np.full(shape, math.nan) if e is None else part for e, part in zip(entry, parts, strict=True)])

    try:
        return filled(value)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: {name} must be a rectangular array of numbers, null where free.") from None


def _document(fit, names, scores):
    return store.plain(
        {
            "columns": names,
            "status": Status(fit.status).name,
            "advice": fit.status.advice,
            "estimate": store.mixture_record(fit.point),
            "standard_errors": store.mixture_record(fit.standard_errors),
            **scores,
            "info": fit.info,
        }
    )


def _tell(fit, file, names, x, spec, scores):
    console = report.console()
    method_status = (fit.point, fit.standard_errors, fit.status)
    table = report.parameter_rows(None, spec.known, {"estimate": method_status})
    report.print_table(console, f"{file}: {x.shape[0]} rows of {', '.join(names)}", table)
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.6g}" for name, value in scores.items())
    console.print(f"{shown}.", highlight=False)
    if fit.status.ok:
        console.print(fit.info.get("message", f"{fit.status.advice}."), highlight=False)
    if len(fit.info.get("landscape", ())) > 1:
        report.print_table(console, "where the starts ended", landscape.table(fit.info["landscape"]))
