"""One EM iteration of every program that is here: at the sizes of the table, and against n, d, K and restarts."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from gmm_jax.bench.clock import Clock
from gmm_jax.bench.runner import derive_key
from gmm_jax.bench.workers import Lost
from gmm_jax.em import EMConfig, fit_em_restarts
from gmm_jax.mixture import GMM
from gmm_jax.problems import generators
from gmm_jax.shell import configure_jax
from shared import pictures
from shared.workers import alone

from .programs import ITERATIONS, Timer, missing, sklearn_restarts
from .ratios import MANY_FITS, ONE_FIT, compare, floor, interleave, measure_rates, timed_calls
from .searches import course
from .table import MAX_ITER, RIDGE, TOL, sklearn_ways

SIZES = {  # n, d, K: how many times scikit-learn's iteration, and gmmx's, should take
    (500, 2, 2): (30, 8),
    (10_000, 2, 5): (25, 8),
    (100_000, 2, 8): (40, 8),
    (1_000_000, 8, 16): (30, None),
    (100_000, 10, 10): (15, 4),
    (100_000, 32, 16): (10, 4),
    (100_000, 64, 32): (6, None),
}
GRID = {
    "n": [(n, 2, 5) for n in (500, 2_000, 10_000, 100_000, 1_000_000)],
    "d": [(10_000, d, 8) for d in (2, 4, 8, 16, 32, 64)],
    "K": [(10_000, 8, k) for k in (2, 4, 8, 16, 32, 64)],
}
AXES = {"n": "one iteration, d = 2, K = 5", "d": "n = 10⁴, K = 8", "K": "n = 10⁴, d = 8", "restarts": "course_2d"}
SMOKE_NAMES = (ONE_FIT, "scikit-learn one thread", "mclust")
ENOUGH = 10.0  # seconds of calls, after which a program leaves that has had its least number of rounds
NO_STOP = "fixed number of iterations"


def iteration(table, *, iteration_pairs, **_):
    """The sizes of the table of targets."""
    for size in list(SIZES)[: 1 if table.smoke else None]:
        case = "n={} d={} K={}".format(*size)
        if table.lacks("iteration", case):
            table.put("iteration", case, iteration_rows(size, iteration_pairs, smoke=table.smoke))


def iteration_rows(size, pairs, *, smoke=False, names=None):
    """Every program that is here, beside the floor; for each that gives no time a row that says why.

    Each runs in a process of its own: neither the waiting threads nor the memory of one
    disturb another.
    """
    rates = {dtype: measure_rates(dtype, size=256 if smoke else 2048) for dtype in ("float64", "float32")}
    floors = {dtype: floor(r, *size, np.dtype(dtype).itemsize) for dtype, r in rates.items()}
    names = names or (SMOKE_NAMES if smoke else tuple(ITERATIONS))
    common = dict(zip(("n", "d", "k"), size, strict=True)) | {"reg_covar": 0.0, "stopping": NO_STOP, "start": "truth"}
    reasons = {name: missing(name) for name in names}
    rows = [{"method": n, "status": "unavailable", "reason": why, **common} for n, why in reasons.items() if why]
    timers = {name: ITERATIONS[name] for name in names if not reasons[name]}
    visits, about = {}, {}
    with ExitStack() as stack:
        for name, timer in timers.items():
            n_iter = int(np.clip(0.3 / (timer.n_floors * floors["float64"][0]), 4, 40 if smoke else 20_000))
            visits[name] = Visit(timer, stack.enter_context(alone(Program(name, size, n_iter), prepare=configure_jax)))
            about[name] = {"precision": timer.precision, "threads": timer.threads, "counted": timer.what, "m": n_iter}
        for name, visit in visits.items():
            about[name]["seconds_compile"] = visit.answer()
        seconds = interleave(visits, pairs)
    for name, said in about.items():
        if visits[name].reason:
            del seconds[name]
            rows.append({"method": name, "status": "failed", "reason": visits[name].reason, **common})
            continue
        least, limit = floors[said["precision"]]
        said |= {"floor_seconds": least, "floor_limit": limit, **rates[said["precision"]]._asdict()}
        said["fraction_of_floor"] = least / float(np.median(seconds[name]))
    return compare(seconds, [n for n in (ONE_FIT, MANY_FITS) if n in seconds], about, **common) + rows


@dataclass
class Program:
    """One of ITERATIONS, in its process: the first call makes its timer, each other gives seconds an iteration."""

    name: str
    size: tuple[int, int, int]
    n_iter: int
    once: Callable[[], float] | None = None

    def __call__(self, _):
        """Seconds of compilation, then those of an iteration; Lost where it fails, as a peer may as it likes."""
        try:
            if self.once is not None:
                return self.once()
            with Clock() as clock:
                self.once = ITERATIONS[self.name].make(*standardised_problem(*self.size), 0.0, self.n_iter)
        except Exception as error:
            return Lost(f"{type(error).__name__}: {error}")
        return clock.seconds["seconds_trace"] + clock.seconds["seconds_compile"]


@dataclass
class Visit:
    """A program as the rounds call it: it leaves where it has failed, or has had rounds and time enough."""

    timer: Timer
    ask: Callable
    spent: list[float] = field(default_factory=list)
    reason: str = ""  # it has failed

    def __call__(self):
        """Seconds of an iteration, or None."""
        if self.reason or (len(self.spent) >= self.timer.least and sum(self.spent) > ENOUGH):
            return None
        begin = time.perf_counter()
        seconds = self.answer()
        self.spent.append(time.perf_counter() - begin)
        return seconds

    def answer(self):
        """What the program says, None where it has failed."""
        found = self.ask(None, self.timer.limit)
        if not isinstance(found, Lost):
            return found
        self.reason = found.reason
        return None


def standardised_problem(n, d, k, seed=0):
    """Data with mean 0 and sd 1, and the truth in their units: a mixture whose components overlap, in NumPy."""
    rng = np.random.default_rng([seed, n, d, k])
    means = 2.0 * rng.standard_normal((k, d))
    roots = rng.standard_normal((k, d, d)) / np.sqrt(d)
    covariances = roots @ np.swapaxes(roots, 1, 2) + 0.3 * np.eye(d)
    counts = generators.fixed_counts(np.full(k, 1.0 / k), n)
    factors = np.linalg.cholesky(covariances)
    parts = [means[i] + rng.standard_normal((counts[i], d)) @ factors[i].T for i in range(k)]
    x = np.concatenate(parts)[rng.permutation(n)]
    centre, scale = x.mean(axis=0), x.std(axis=0)
    start = GMM(counts / n, (means - centre) / scale, covariances / np.outer(scale, scale))
    return np.ascontiguousarray((x - centre) / scale), start


def grid(table, *, iteration_pairs, **_):
    """One iteration against n, d and K, and a whole search against the number of restarts; then the picture."""
    if table.smoke:
        return
    names = [ONE_FIT, MANY_FITS, "scikit-learn", "scikit-learn one thread", "gmmx"]
    for axis, sizes in GRID.items():
        for size in sizes:
            at, case = size["ndK".index(axis)], "against {}: n={} d={} K={}".format(axis, *size)
            if table.lacks("grid", case):
                rows = iteration_rows(size, iteration_pairs, names=names)
                table.put("grid", case, [row | {"axis": axis, "at": at} for row in rows])
    x, spec = course()
    options = {"tol": TOL, "max_iter": MAX_ITER, "reg_covar": RIDGE}
    for n in (1, 10, 100, 1000):
        if not table.lacks("grid", f"{n} restarts"):
            continue
        config, key = EMConfig(**options), derive_key(0, "method", "grid")
        works = {MANY_FITS: partial(fit_em_restarts, key, x, spec, n_restarts=n, config=config)}
        for way in sklearn_ways(table.smoke):
            works[way] = partial(sklearn_restarts, x, 2, n_restarts=n, seed=0, way=way, **options)
        calls, _ = timed_calls(works)
        interleave(calls, 1)
        rows = compare(interleave(calls, iteration_pairs), [MANY_FITS], {}, n_restarts=n, tol=TOL)
        table.put("grid", f"{n} restarts", [row | {"axis": "restarts", "at": n} for row in rows])
    draw = [row for row in table.rows if row["part"] == "grid" and row["status"] == "ok"]
    once = {(row["axis"], row["at"], row["method"]): row for row in draw}
    pictures.scaling(table.folder / "scaling.png", list(once.values()), AXES)
