"""Trials: a problem, what is known of it, a method and a seed give one row; failures are rows too.

Randomness is derived from the seed by the names of the axes, so all methods see the same data, and a trial gives the
same row whatever else is run beside it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple
from warnings import warn
from zlib import crc32

import jax
import numpy as np

from .. import judge, problems
from ..mixture import GMM, Fit, MixtureSpec, NotSupported, Status
from . import methods, provenance, store
from .clock import Clock
from .study import Study
from .workers import Lost, in_processes, on_cluster

CASES = {"Case I": ("weights", "covariances"), "Case II": ()}  # the course's names of what is known
KNOWING = {"Case I": "φ and Σ known, learn μ", "Case II": "nothing known"}
N_TEST = 10_000  # held-out samples
MIXTURES = {"estimate": "point", "standard_errors": "standard_errors"}  # column of a row -> part of a Fit
TOGETHER = 20  # trials at most that one fit_many makes, and that Ctrl-C can cost
FAILED = tuple(s.name for s in (Status.FAILED, Status.COLLAPSED, Status.NON_FINITE, Status.DECREASED))  # exit code 3


@dataclass(frozen=True)
class Cell:
    """One trial: all that decides its answer."""

    problem: str
    known: tuple[str, ...] = ()
    method: str = "em"
    options: tuple[tuple[str, Any], ...] = ()
    seed: int = 0
    n: int | None = None
    counts: str = "fixed"

    @property
    def case(self) -> str:
        """The course's name of what is known, where it has one."""
        return next((case for case, known in CASES.items() if known == self.known), f"known {'+'.join(self.known)}")


def known_in(case: str) -> tuple[str, ...]:
    """What is known in a case: the inverse of `Cell.case`."""
    return CASES[case] if case in CASES else tuple(case.removeprefix("known ").split("+"))


@dataclass(frozen=True)
class How:
    """Where trials run; it does not change their rows."""

    workers: int = 0  # processes; 0: in this one, one after the other
    timeout: float | None = None  # seconds a trial may take, which needs a process
    scheduler: str | None = None  # address of a Dask cluster, or "local"
    prepare: Callable[[], Any] | None = None  # what each process does first: `gmm_jax.shell.configure_jax` for float64

    def __post_init__(self):
        if self.workers < 0:
            raise ValueError(f"workers must not be negative; got {self.workers}.")
        if self.timeout is not None and not self.timeout > 0.0:
            raise ValueError(f"timeout must be a positive number of seconds; got {self.timeout}.")
        if self.timeout is not None and self.scheduler is not None:
            raise ValueError("a cluster keeps no time: leave timeout out, or take workers in place of a scheduler.")

    @property
    def here(self) -> bool:
        """In this process."""
        return not self.workers and self.timeout is None and self.scheduler is None

    def answers(self, work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(place of the job, work(job) or Lost) as they come; elsewhere `work` is to be importable."""
        if self.here:
            return ((place, work(job)) for place, job in enumerate(jobs))
        if self.scheduler is not None:
            return on_cluster(work, jobs, self.scheduler, n_workers=self.workers or 2, prepare=self.prepare)
        return in_processes(work, jobs, max(self.workers, 1), timeout=self.timeout, prepare=self.prepare)


HERE = How()


class Trial(NamedTuple):
    """A row for the table, and what pictures need beside it."""

    row: dict[str, Any]
    fit: Fit | None
    x: np.ndarray
    labels: np.ndarray
    truth: GMM
    spec: MixtureSpec


def derive_key(seed: int, *names: str):
    """A typed key for an axis: the same names and seed, the same key."""
    key = jax.random.key(seed)
    for name in names:
        key = jax.random.fold_in(key, crc32(name.encode()))
    return key


def run(cell: Cell) -> Trial:
    """One trial. What the method raises becomes a row with status FAILED or NOT_SUPPORTED and the reason."""
    return run_together([cell])[0]


def run_together(cells: Sequence[Cell]) -> list[Trial]:
    """Trials that differ in their seeds alone; several by the method's fit_many, each with its part of the seconds.

    Where that raises, they are run one by one: the row of the one at fault says what is wrong.
    """
    first, alone = cells[0], len(cells) == 1
    problem, method, options = problems.load(first.problem), methods.load(first.method), dict(first.options)
    methods.check_options(method, options)
    spec = problem.knowing(*first.known)
    data = [problem.sample(derive_key(cell.seed, "data", cell.problem), cell.n, cell.counts) for cell in cells]
    keys = [derive_key(cell.seed, "method", cell.method, cell.case) for cell in cells]
    given = {"labels": data[0][1]} if "labels" in method.options else {}
    with Clock() as clock:
        try:
            if alone:
                fits = [method.fit(keys[0], data[0][0], spec, **options, **given)]
            else:
                fits = method.fit_many(jax.numpy.stack(keys), np.stack([x for x, _ in data]), spec, **options)
            ended = [{"status": f.status.name, "reason": "" if f.status.ok else f.status.advice} for f in fits]
        except Exception as error:  # a failed trial is a row
            if not alone:
                return [run(cell) for cell in cells]
            fits, ended = [None], [_failure(error)]
    spent = {name: value / len(cells) for name, value in clock.seconds.items()} | {"together": len(cells)}
    trials = []
    for cell, (x, labels), fit, end in zip(cells, data, fits, ended, strict=True):
        row = _head(cell) | end | spent
        row |= {} if fit is None else _judged(cell, problem, fit, x, labels, row)
        row["truth"] = store.mixture_record(problem.truth)
        trials.append(Trial(provenance.stamped(row), fit, x, labels, problem.truth, spec))
    return trials


def _judged(cell, problem, fit, x, labels, row):
    """What an answer adds to its row; what the method says of itself changes no other column."""
    x_test, _ = problem.sample(derive_key(cell.seed, "test", cell.problem), N_TEST, "multinomial")
    key = derive_key(cell.seed, "judge", cell.problem)
    try:
        found = judge.recovery(key, fit, problem.truth, x=x, labels=labels, x_test=x_test)
    except Exception as error:  # an answer of another shape than the data's
        found = _failure(error)
    taken = {*row, *found, *provenance.STAMP}
    info = {name: value for name, value in fit.info.items() if value is not None and name not in taken}
    return found | info | {name: store.mixture_record(getattr(fit, leaf)) for name, leaf in MIXTURES.items()}


def _failure(error):
    if isinstance(error, NotSupported):
        return {"status": "NOT_SUPPORTED", "reason": str(error)}
    return {"status": Status.FAILED.name, "reason": f"{type(error).__name__}: {error}"}


def run_grid(
    name: str,
    cells: Iterable[Cell],
    *,
    results="results",
    command: str = "",
    doc: str = "",
    answer=None,
    how: How = HERE,
    config: Mapping[str, Any] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Every cell to results/NAME: a finished cell is on disk at once and is not run again; rows.csv at the end.

    Ctrl-C leaves rows.csv with what is finished; a damaged cell is named before anything is touched. A trial whose
    process died or took too long is a row with status FAILED, and is tried again by the next run. `answer(rows)` gives
    the sentence that stands beside the question in `doc`; `config` stands in the provenance.
    """
    cells = list(cells)
    folder = store.result_folder(results, name)
    configs = [asdict(cell) | {"schema": store.SCHEMA} for cell in cells]
    paths = [store.cell_path(folder, config) for config in configs]
    kept = {i: store.read_cell(path) for i, path in enumerate(paths) if path.exists()}
    finished = {i: provenance.earlier(trial["row"]) for i, trial in kept.items()}
    if older := sum(trial.get("source") != store.source() for trial in kept.values()):
        warn(
            f"{older} of {len(cells)} trials in {folder} were made by other source of gmm_jax: if what is measured has "
            f"changed since, delete {folder / 'cells'} and run the same command again.",
            stacklevel=2,
        )
    missing = [i for i in range(len(cells)) if i not in finished]
    seeds = sorted({cell.seed for cell in cells})
    about = {"command": command, "seeds": seeds, "steps": len(missing), "rows": ()}
    study = Study(doc, name, results, {"cells": len(cells), **config}, **about)
    todo = [cells[i] for i in missing]
    with study, closing(_rows_here(todo) if how.here else how.answers(row_of, todo)) as coming:
        try:
            for place, row in coming:
                i = missing[place]
                if isinstance(row, Lost):
                    finished[i] = study.stamp(_head(cells[i]) | {"status": Status.FAILED.name, "reason": row.reason})
                else:
                    finished[i] = study.stamp(row)
                    store.write_cell(folder, configs[i], finished[i])
                study.step()
        finally:
            study.rows = [finished[i] for i in sorted(finished)]
            if answer is not None and len(finished) == len(cells):
                study.answer = answer(study.rows)
    return study.rows


def row_of(cell: Cell) -> dict[str, Any]:
    """The row of one trial as it is stored: what a process sends back."""
    return store.plain(run(cell).row)


def _rows_here(cells):
    """In this process: equal cells but for their seeds together, where their method can; others in their order."""
    alone = {name for name in {cell.method for cell in cells} if methods.load(name).many is None}
    groups: dict[Any, list[int]] = {}
    for place, cell in enumerate(cells):
        groups.setdefault(place if cell.method in alone else replace(cell, seed=0), []).append(place)
    for places in groups.values():
        for first in range(0, len(places), TOGETHER):
            some = [cells[place] for place in places[first : first + TOGETHER]]
            trials = run_together(some) if len(some) > 1 else [run(some[0])]
            yield from ((place, trial.row) for place, trial in zip(places[first:], trials, strict=False))


def _head(cell):
    problem = problems.load(cell.problem)
    head = {name: getattr(cell, name) for name in ("problem", "case", "method", "seed")}
    head["n_samples"] = problem.n_samples if cell.n is None else cell.n
    head |= {"n_features": problem.truth.n_features, "n_components": problem.spec.n_components}
    return head | {"counts": cell.counts, "options": json.dumps(dict(cell.options), sort_keys=True)}
