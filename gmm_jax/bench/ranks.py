"""gmm-jax fit DATA --distributed: every rank reads its share of the rows, and rank 0 alone prints the one answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import em
from ..judge import penalised
from ..mixture import Fit, MixtureSpec, Status, n_parameters, validate_spec
from ..problems import open_blocks
from . import methods
from .files import as_far_as_it_came, read_known, show


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
    """Fit by EM and print; the same exit code on every rank: 2 for what is wrong with the input, 3 for a failed fit.

    At Ctrl-C the best lane as far as it came is printed.
    """
    interrupted = None
    with _stdout_for_the_answer():
        try:
            x, names, n_samples, known = _read_share(path, columns, known)
            spec = validate_spec(MixtureSpec(n_components, covariance_type, known), len(names))
            files = {"checkpoint": checkpoint, "resume": resume}
            fit, found = _fit(seed, x, spec, options or {}, files)
        except em.Interrupted as error:
            interrupted, found, fit = error, error.restarts, as_far_as_it_came(error.restarts)
        except ValueError:
            if jax.process_index() == 0:
                raise
            return 2  # rank 0 says why
    if jax.process_index() == 0:
        scores = penalised(float(found.best.log_likelihood), n_parameters(spec, len(names)), n_samples)
        show(fit, Path(path).name, names, n_samples, spec, scores, as_json=as_json)
    if interrupted is not None:
        raise interrupted
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
    return Fit(found.best.gmm, None, None, Status(int(found.best.status)), info), found


def _read_share(path, columns, known):
    """This rank's rows of the chosen columns, their names, how many rows there are, and what is known.

    An error is told to all: ranks may see different files.
    """
    problem, table, n_samples, mine = None, None, 0, slice(0)
    try:
        known = read_known(known)
        table = open_blocks(path, columns=columns)
        rows = np.load(path, mmap_mode="r") if Path(path).suffix == ".npy" else np.concatenate(list(table()))
        n_samples, mine = len(rows), em.local_rows(len(rows))
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}."
    except ValueError as error:
        problem = str(error)
    em.agree(problem, {f"number of rows in {Path(path).name}": n_samples})
    if Path(path).suffix == ".npy":  # mapped: of its columns all, named by their numbers
        return rows[mine][:, [int(name) for name in table.names]], table.names, n_samples, known
    return rows[mine], table.names, n_samples, known


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
