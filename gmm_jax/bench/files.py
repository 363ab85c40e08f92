"""gmm-jax fit DATA: a user's table in, an answer with its uncertainty out; what is wrong is named by its place.

Rows are in memory, in the file (one pass an iteration), or with the workers of a Dask cluster: x differs, nothing else.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import em
from ..judge import information_criteria, penalised
from ..mixture import Fit, Known, MixtureSpec, Status, check_data, n_parameters, validate_spec
from ..problems import FileBlocks, dependent_features, open_blocks, open_dask
from . import landscape, methods, report, store, workers
from .grid import FIELDS

CONFIG = {"max_iter": 1000, "tol": 1e-8, "reg_covar": None}
OPTIONS = {"n_restarts": 10, "init": "kmeans++", "n_sample": 10_000, "progress": None, **CONFIG}  # beyond memory


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
    stream: bool = False,
    scheduler: str | None = None,
    prepare: Callable[[], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    as_json: bool = False,
) -> int:
    """Fit and print; returns the exit code: 0 if the answer may be used, 3 if not, and the advice says why.

    Args:
        stream: leave the rows in the file.
        scheduler: leave them with the workers of the Dask cluster at this address, or of a "local" one.
        prepare: what each of the workers calls first.

    At Ctrl-C during EM the best fit so far is printed, and the interruption raised again.
    """
    in_memory = not stream and scheduler is None
    _check_choice(method, stream, scheduler, checkpoint is not None or resume)
    there = partial(_fit_there, checkpoint=checkpoint, resume=resume)
    chosen = methods.load(method) if in_memory else methods.Method("em beyond memory", "", OPTIONS, there)
    offered = {name: value for name, value in chosen.options.items() if name not in methods.INTERNAL}
    given = dict(options or {})
    methods.check_options(chosen._replace(options=offered), given)
    spec, interrupted = MixtureSpec(n_components, covariance_type, read_known(known)), None
    with (
        closing(open_blocks(path, columns=columns)) as table,
        nullcontext() if scheduler is None else workers.cluster(scheduler, prepare=prepare),
        report.progress_bar(f"{method} on {Path(path).name}") as update,
    ):
        spec = validate_spec(spec, len(table.names))
        x = _rows(table, n_components) if in_memory else table if stream else open_dask(path, columns=columns)
        warnings = dependent_features(x if in_memory else table, table.names)
        n_samples = len(x) if in_memory or scheduler else table.n_rows
        if "progress" in chosen.options:
            note = "log-likelihood {:.8g}".format
            given["progress"] = lambda done, total, *best: update(done, total, *map(note, best))
        try:
            fit = chosen.fit(jax.random.key(seed), x, spec, **given)
        except em.Interrupted as error:
            interrupted, fit = error, _as_fit(error.restarts)
            on_sample = not in_memory and error.restarts.search is None
            n_samples = min(n_samples, (chosen.options | given)["n_sample"]) if on_sample else n_samples
            warnings = [_so_far(method, n_samples), *warnings]
            if method != "em":
                fit = fit._replace(status=Status.RUNNING, info={"n_iter": fit.info["n_iter"]})
    if in_memory:
        scores = information_criteria(fit.point, x, spec)
    else:
        scores = penalised(fit.info["log_likelihood"], n_parameters(spec, len(table.names)), n_samples)
    file = str(table.path) if table.path.copy else table.path.path.name
    show(fit, file, method, table.names, n_samples, spec, scores, warnings, as_json=as_json)
    if interrupted is not None:
        if checkpoint is not None and checkpoint.exists():
            print(f"go on from {checkpoint} with --resume.", file=sys.stderr)
        raise interrupted
    return 0 if trusted(fit) else 3


def trusted(fit: Fit) -> bool:
    """Whether the answer may be used: converged or sampled, and not at a spurious optimum for want of any other."""
    optima = [row for row in fit.info.get("landscape", ()) if row["optimum"] is not None]
    spurious = fit.info.get("spurious", bool(optima) and all(row["spurious"] for row in optima))
    return fit.status in (Status.CONVERGED, Status.SAMPLED) and not spurious


def _check_choice(method, stream, scheduler, keeps):
    if stream and scheduler is not None:
        raise ValueError("--stream leaves the rows in the file, --scheduler with the cluster's workers: choose one.")
    if not stream and scheduler is None:
        if keeps:
            raise ValueError("--checkpoint and --resume belong to --stream or --scheduler: add one of them.")
    elif method != "em":
        option = "--stream" if stream else "--scheduler"
        raise ValueError(f"{option} is for method em; {method} needs the data in memory: leave {option} out.")


def _so_far(method, n_samples):
    if method == "em":
        return f"interrupted: this is the best fit so far, to {n_samples} rows"
    return f"interrupted before {method} began: this is the best EM fit so far, not the answer of {method}"


def _rows(table: FileBlocks, n_components):
    """All rows, (N, D), finite; a ValueError names the column of one that is not."""
    x, file = np.concatenate(list(table())), table.path
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = bad[0]
        name = table.names[column]
        raise ValueError(f"{file}, row {row}, column {name!r}: {x[row, column]} is not finite; drop or impute the row.")
    return check_data(x, n_components=n_components, name=Path(str(file)).name)  # enough rows, and floats


def _fit_there(key, x, spec, **options) -> Fit:
    """EM on rows that stay where they are, from the best of several fits to a sample of them."""
    options = OPTIONS | options
    config = em.EMConfig(**{name: options.pop(name) for name in CONFIG})
    return _as_fit(em.fit_em_restarts(key, x, spec, config=config, **options))


def _as_fit(found: em.Restarts) -> Fit:
    """The best fit alone."""
    best, optima = found.best, found.optima
    info = {
        "log_likelihood": float(best.log_likelihood),
        "n_iter": int(best.n_iter),
        "message": found.message,
        "spurious": bool(optima.count.size) and bool(np.all(optima.spurious)),
    }
    return Fit(best.gmm, None, None, Status(int(best.status)), info)


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


def _advice(fit: Fit, warnings: Sequence[str]) -> str:
    """What happened and what to try: the same sentences in the table and in JSON, features by their names."""
    message = fit.info.get("message", fit.status.advice).removesuffix(".")
    if not fit.status.ok and fit.status.advice not in message:
        message = f"{fit.status.advice}; {message}"
    by_number = ("x is constant in", "x is linearly", "no standard errors: column(s)")
    said = [part for part in message.split("; ") if not part.startswith(by_number)]
    said += ["no standard errors: the covariance is singular"] * (by_number[-1] in message)
    return "; ".join([*warnings, *said]) + "."


def show(fit: Fit, file, method, names, n_samples, spec, scores: Mapping, warnings, *, as_json: bool) -> None:
    """Print the answer: a table, or one JSON document."""
    advice = _advice(fit, warnings)
    if as_json:
        document = {
            "method": method,
            "n_samples": n_samples,
            "n_components": spec.n_components,
            "covariance_type": spec.covariance_type,
            "columns": names,
            "status": Status(fit.status).name,
            "advice": advice,
            "estimate": store.mixture_record(fit.point),
            "standard_errors": store.mixture_record(fit.standard_errors),
            **scores,
            "info": {name: value for name, value in fit.info.items() if name != "message"},  # it is in the advice
        }
        print(json.dumps(store.plain(document), allow_nan=False))
        return
    console = report.console()
    table = report.parameter_rows(None, spec.known, {"estimate": (fit.point, fit.standard_errors, fit.status)})
    title = f"{method} on {file}: {n_samples} rows of {', '.join(names)}"
    report.print_table(console, title, table._replace(notes=()))
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.6g}" for name, value in scores.items())
    console.print(f"{shown}.\n{advice}", highlight=False, markup=False)
    if len(fit.info.get("landscape", ())) > 1:
        report.print_table(console, "where the starts ended", landscape.table(fit.info["landscape"]))
