"""gmm-jax fit DATA: a user's table in, an answer with its uncertainty out; what is wrong is named by its place.

Rows are in memory, in the file (one pass an iteration), or with the workers of a Dask cluster: x differs, nothing else.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import bayes, em
from ..bench import methods, report, workers
from ..bench.methods import em as by_em
from ..bench.options import read_known
from ..judge import information_criteria, penalised
from ..mixture import Fit, MixtureSpec, Status, n_parameters, validate_spec
from ..mixture.moments import work_of_step
from ..problems import dependent_features, doubtful_features
from ..shell import compile_quickly
from . import answer, folder
from .reading import Reading, rows_of

BEYOND_MEMORY = {"n_restarts": 10, "n_sample": 10_000}  # where an iteration is a pass over a file
CONFIG = ("max_iter", "tol", "reg_covar")  # options of EM that are its EMConfig's
QUICK = ("em", "gibbs", "bayes")  # methods that run on few numbers for less time than their programs are compiled
LITTLE_WORK = 1 << 14  # multiplications of one E-step, the same
MANY_ROWS = 10_000  # from so many on, starts are compared on as many, drawn at random


class Place(NamedTuple):
    """Where the rows lie while they are fitted."""

    stream: bool = False  # in the file
    scheduler: str | None = None  # with the workers of the Dask cluster at this address, or of a "local" one
    prepare: Callable[[], None] | None = None  # what each of the workers calls first
    checkpoint: Path | None = None
    resume: bool = False

    @property
    def in_memory(self) -> bool:
        """Whether they are an array here."""
        return not self.stream and self.scheduler is None

    def check(self, method: str) -> None:
        """A ValueError where options contradict each other."""
        if self.stream and self.scheduler is not None:
            raise ValueError("--stream leaves the rows in the file, --scheduler with the workers: choose one.")
        if self.in_memory:
            if self.checkpoint is not None or self.resume:
                raise ValueError("--checkpoint and --resume belong to --stream or --scheduler: add one of them.")
        elif method != "em":
            option = "--stream" if self.stream else "--scheduler"
            raise ValueError(f"{option} is for method em; {method} needs the data in memory: leave {option} out.")


def fit_file(
    path: Path,
    *,
    n_components: int,
    covariance_type: str = "full",
    columns: Sequence[str] = (),
    drop: Sequence[str] = (),
    reading: Reading = Reading(),  # noqa: B008
    method: str = "em",
    options: dict[str, Any] | None = None,
    known: Path | None = None,
    seed: int = 0,
    place: Place = Place(),  # noqa: B008
    out: Path | None = None,
    force: bool = False,
    command: str = "",
    as_json: bool = False,
) -> int:
    """Fit, print and write; returns the exit code: 0 if the answer may be used, 3 if not, and the advice says why.

    At Ctrl-C the best fit so far, or the posterior at its last look, is printed, and the interruption raised again.
    """
    place.check(method)
    folder.check_free(out, force=force)
    chosen, given = _method(method, dict(options or {}), place, reading.marginalise)
    spec = MixtureSpec(n_components, covariance_type, read_known(known))
    with (
        closing(reading.open(path, columns, drop)) as table,
        nullcontext() if place.scheduler is None else workers.cluster(place.scheduler, prepare=place.prepare),
    ):
        file, names, spec = Path(table.path.name).name, table.names, validate_spec(spec, len(table.names))
        x = rows_of(table, n_components, reading.marginalise) if place.in_memory else None
        rows = x if place.in_memory else table if place.stream else reading.open_dask(path, columns, drop)
        n_samples = table.n_rows if x is None else len(x)
        if x is not None and method in QUICK and work_of_step(1, len(x), n_components, len(names)) <= LITTLE_WORK:
            compile_quickly()
        if x is not None and n_samples > MANY_ROWS and "n_sample" in given and "n_sample" not in (options or {}):
            given["n_sample"] = MANY_ROWS
        counted = "starts" if method == "em" else "steps"
        with report.progress_bar(f"{method} on {file}", unit=counted) as update:
            if "progress" in chosen.options:
                given["progress"] = lambda done, total, *best: update(done, total, *map("best {:.8g}".format, best))
            fit, found, interrupted = _fitted(chosen, jax.random.key(seed), rows, x, spec, given, place)
        fit = answer.in_order(fit, spec)
        if interrupted is not None and x is None and found.search is None:  # it came no further than the sample
            n_samples = min(n_samples, given["n_sample"] or n_samples)
        if x is not None:
            scores = information_criteria(fit.point, x, spec, missing=reading.marginalise)
        else:
            scores = penalised(fit.info["log_likelihood"], n_parameters(spec, len(names)), n_samples)
        notes = [*_how_far(method, n_samples, found, given, interrupted), *table.notes]
        notes += doubtful_features(next(table()) if x is None else x, names)
        notes += dependent_features(table if x is None else x, names)
        about = {"method": method, "file": file, "n_samples": n_samples, "columns": names}
        about |= {"missing": reading.marginalise, "seed": seed, "options": {**(options or {})}}
        said = answer.document(fit, spec, scores, notes, about)
        answer.show(fit, spec, said, as_json=as_json)
        if interrupted is not None:
            if place.checkpoint is not None and place.checkpoint.exists():
                print(f"go on from {place.checkpoint} with --resume.", file=sys.stderr)
            raise interrupted
        last = _written(out, fit, table, x, found, spec, said, command)
        if out is not None or not as_json:
            print(last, file=sys.stderr if as_json else sys.stdout)
    return 0 if answer.trusted(fit) else 3


def _fitted(chosen, key, rows, x, spec, given, place) -> tuple[Fit, em.Restarts | None, KeyboardInterrupt | None]:
    """The answer, of EM every start, and how it was interrupted; x is the rows where they are in memory."""
    if chosen.function is by_em.fit:
        search = {name: value for name, value in given.items() if name not in CONFIG}
        where = {"checkpoint": place.checkpoint, "resume": place.resume}
        fit = partial(em.fit_em_restarts, key, rows, spec, config=_config(given), **search, **where)
    else:
        fit = partial(chosen.fit, key, x, spec, **given)
    try:
        found, interrupted = fit(), None
    except em.Interrupted as error:
        found, interrupted, x = error.restarts, error, None
    except bayes.Interrupted as error:
        if error.answer is None:
            raise
        return error.answer.fit, None, error
    if isinstance(found, Fit):
        return found, None, None
    options = {"init": given.get("init"), "config": _config(given), "missing": given.get("missing")}
    answered = by_em.answer(found, x, spec, **options)
    if interrupted is not None and chosen.function is not by_em.fit:
        answered = answered._replace(status=Status.RUNNING, info={"n_iter": answered.info["n_iter"]})
    return answered, found, interrupted


def _how_far(method, n_samples, found, given, interrupted):
    """What an interrupted fit is, and that starts were compared on a sample."""
    said = []
    if isinstance(interrupted, em.Interrupted):
        so_far = f"interrupted: this is the best fit so far, to {n_samples} rows"
        not_it = f"interrupted before {method} began: this is the best EM fit so far, not the answer of {method}"
        said.append(so_far if method == "em" else not_it)
    if found is not None and found.search is not None:
        starts = f"{found.search.fits.status.size} starts on {given['n_sample']} rows drawn at random"
        said.append(f"{starts}, the best of which went on over all {n_samples}")
    return said


def _written(out, fit, table, x, found, spec, said, command):
    """Write the folder, if there is one and a mixture to write; what is said of that."""
    if out is None:
        return "nothing was written: --out FOLDER keeps labels, model, pictures and a report."
    finite = all(np.isfinite(np.asarray(leaf, float)).all() for leaf in jax.tree.leaves(fit.point))
    if not finite or fit.status in (Status.COLLAPSED, Status.NON_FINITE):
        return f"nothing was written to {out}: this is no mixture that could be used."
    return f"wrote {', '.join(folder.write(Path(out), table, x, fit, found, spec, said, command))} to {out}"


def _config(given):
    return em.EMConfig(**{name: given[name] for name in CONFIG if name in given})


def _method(name, given, place, missing):
    """The method and its options, those of EM with their defaults; a ValueError names one that a user may not give."""
    chosen = methods.load(name)
    offered = {option: value for option, value in chosen.options.items() if option not in methods.INTERNAL}
    methods.check_options(chosen._replace(options=offered), given)
    if missing is not None:
        if "missing" not in chosen.options or not place.in_memory:
            raise ValueError(
                f"--missing {missing} is for rows in memory and methods em, bayes, gibbs, nuts, svi and laplace; got "
                f"{name}: take one of these, or drop or impute such rows."
            )
        given["missing"] = missing
    if chosen.function is by_em.fit:
        given = chosen.options | ({} if place.in_memory else BEYOND_MEMORY) | given
    return chosen, given
