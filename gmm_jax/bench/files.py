"""gmm-jax fit DATA: a user's table in, an answer with its uncertainty out; what is wrong is named by its place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import em
from ..judge import information_criteria
from ..mixture import Fit, Known, MixtureSpec, Status, check_data, validate_spec
from ..problems import open_blocks
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
    """Fit and print; returns the exit code: 3 where the fit failed, with the reason.

    At Ctrl-C during EM the best lane as far as it came is printed.
    """
    x, names = read_table(path, columns)
    chosen = methods.load(method)
    methods.check_options(chosen, options or {})
    spec = MixtureSpec(n_components, covariance_type, read_known(known))
    check_data(x, n_components=n_components, name=Path(path).name)
    spec = validate_spec(spec, x.shape[1])
    extra, interrupted = {}, None
    with report.progress_bar(f"{method} on {Path(path).name}") as update:
        if "progress" in chosen.options:
            extra = {"progress": lambda done, total, *_: update(done, total)}
        try:
            fit = chosen.fit(jax.random.key(seed), x, spec, **(options or {}), **extra)
        except em.Interrupted as error:
            interrupted, fit = error, as_far_as_it_came(error.restarts)
    scores = information_criteria(fit.point, x, spec)
    show(fit, Path(path).name, names, x.shape[0], spec, scores, as_json=as_json)
    if interrupted is not None:
        raise interrupted
    return 0 if fit.status.ok else 3


def as_far_as_it_came(found: em.Restarts) -> Fit:
    """The best lane of an interrupted search."""
    best = found.best
    return Fit(best.gmm, None, None, Status(int(best.status)), {"n_iter": int(best.n_iter), "message": found.message})


def read_table(path: Path, columns: Sequence[str] = ()) -> tuple[np.ndarray, list[str]]:
    """The chosen columns of a .npy, .parquet or text file, (N, D), and their names; see `open_blocks`."""
    table = open_blocks(path, columns=columns)
    return np.concatenate(list(table())), list(table.names)


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


def show(fit: Fit, file: str, names, n_rows: int, spec: MixtureSpec, scores: Mapping, *, as_json: bool) -> None:
    """Print the answer: a table, or one JSON document."""
    if as_json:
        print(json.dumps(_document(fit, names, scores), allow_nan=False))
        return
    console = report.console()
    method_status = (fit.point, fit.standard_errors, fit.status)
    table = report.parameter_rows(None, spec.known, {"estimate": method_status})
    report.print_table(console, f"{file}: {n_rows} rows of {', '.join(names)}", table)
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.6g}" for name, value in scores.items())
    console.print(f"{shown}.", highlight=False)
    if fit.status.ok:
        console.print(fit.info.get("message", f"{fit.status.advice}."), highlight=False)
    if len(fit.info.get("landscape", ())) > 1:
        report.print_table(console, "where the starts ended", landscape.table(fit.info["landscape"]))
