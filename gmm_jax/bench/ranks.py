"""gmm-jax fit DATA --distributed: every rank reads its share of the rows, and rank 0 alone prints the one answer."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import em
from ..mixture import Fit, MixtureSpec, Status, n_parameters
from ..problems.blocks import choose_columns
from . import methods
from .files import read_known, read_table, show


def fit_ranks(
    path: Path,
    *,
    n_components: int,
    covariance_type: str = "full",
    columns: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    known: Path | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    resume: bool = False,
    as_json: bool = False,
) -> int:
    """Fit by EM and print; the same exit code on every rank: 2 for what is wrong with the input, 3 for a failed fit."""
    with _stdout_for_the_answer():
        try:
            x, names, n_samples = _read_share(path, columns)
            spec = MixtureSpec(n_components, covariance_type, read_known(known))
            fit = _fit(seed, x, spec, options or {}, {"checkpoint": checkpoint, "resume": resume})
        except ValueError:
            if jax.process_index() == 0:
                raise
            return 2  # rank 0 says why
    if jax.process_index() == 0:
        scores = _scores(fit, spec, *x.shape[1:], n_samples)
        show(fit, Path(path).name, names, n_samples, spec, scores, as_json=as_json)
    return 0 if fit.status.ok else 3


def _fit(seed, x, spec, options, files):
    chosen = methods.load("em")
    methods.check_options(chosen, options)
    terms = {name: value for name, value in (chosen.options | options).items() if name != "progress"}
    start = {name: terms.pop(name) for name in ("n_restarts", "init")}
    config = em.EMConfig(**terms)
    found = em.fit_em_sharded(jax.random.key(seed), x, spec, config=config, **files, **start)
    info = {
        "log_likelihood": float(found.best.log_likelihood),
        "n_iter": int(found.best.n_iter),
        "message": found.message,
        "n_optima": int(found.optima.count.size),
        "n_ranks": jax.process_count(),
    }
    return Fit(found.best.gmm, None, None, Status(int(found.best.status)), info)


def _read_share(path, columns):
    """This rank's rows of the chosen columns, their names, and how many rows there are; an error is told to all."""
    problem, table, names = None, np.zeros((0, 0)), []
    try:
        table, names = _read_array(path, columns) if Path(path).suffix == ".npy" else read_table(path, columns)
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}."
    except ValueError as error:
        problem = str(error)
    em.agree(problem, {f"number of rows in {Path(path).name}": len(table)})
    return table[em.local_rows(len(table))], names, len(table)


def _read_array(path, columns):
    """The chosen columns of a .npy file, as far as possible without reading it, and their names."""
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npy file of numbers, or is cut off ({error}): write it anew.") from None
    if table.ndim != 2:
        raise ValueError(f"{path} must hold a table (N, D); its shape is {table.shape}.")
    every = [str(j) for j in range(table.shape[1])]
    chosen = choose_columns(columns, every, path)
    return table if chosen == list(range(len(every))) else table[:, chosen], [every[j] for j in chosen]


def _scores(fit, spec, n_features, n_samples):
    """What can be said without another pass over the rows."""
    log_likelihood, p = fit.info["log_likelihood"], n_parameters(spec, n_features)
    aic, bic = 2.0 * p - 2.0 * log_likelihood, p * math.log(n_samples) - 2.0 * log_likelihood
    return {"log_likelihood": log_likelihood, "n_parameters": p, "aic": aic, "bic": bic}


@contextmanager
def _stdout_for_the_answer() -> Iterator[None]:
    """What libraries write to stdout meanwhile is lost: Gloo tells of its connections there."""
    sys.stdout.flush()
    stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)
