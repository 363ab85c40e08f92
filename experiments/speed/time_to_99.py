"""T99: the time that independent starts need until 99 % of searches have met the best optimum known."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from gmm_jax.bench.clock import Clock
from gmm_jax.bench.runner import derive_key
from gmm_jax.em import EMConfig, fit_em_restarts, spurious
from gmm_jax.mixture import MixtureSpec, sample
from gmm_jax.problems import datasets, generators
from shared.cells import groups

from .programs import sklearn_from_starts
from .ratios import WITHIN, timed_calls
from .searches import best_sound, draw_starts, log_likelihoods, one_of
from .table import MAX_ITER, RIDGE, RULE, TIGHT, sklearn_ways

KINDS = ("random_points", "kmeans")  # starts of T99


class Trials(NamedTuple):
    """Starts of one method, in chunks."""

    seconds: Float[np.ndarray, "C"]
    n_starts: int
    n_hits: int  # starts that reached the best optimum

    @property
    def mean_seconds(self) -> float:
        """Seconds a start."""
        return float(self.seconds.sum()) / self.n_starts


def t99(mean_seconds, share):
    """t̄·max(1, ln 0.01 / ln(1 − p)): seconds of independent starts until 99 % of searches have met the optimum."""
    share = np.asarray(share, float)
    with np.errstate(divide="ignore"):
        n_starts = np.where(share > 0.0, np.log(0.01) / np.log1p(-np.minimum(share, 1.0)), np.inf)
    return mean_seconds * np.maximum(1.0, n_starts)


def t99_ratio(slow: Trials, fast: Trials, *, n_draws: int = 4000, seed: int = 0) -> tuple[float, float]:
    """How many times longer `slow` needs, and its lower 95 % bound; infinite where only `fast` ever arrived.

    The bound resamples chunks for t̄ and draws p from Beta(hits + ½, misses + ½), which no hit at all does not break.
    """
    rng = np.random.default_rng(seed)

    def draws(trials):
        picked = rng.integers(trials.seconds.size, size=(n_draws, trials.seconds.size))
        mean_seconds = trials.seconds[picked].sum(axis=1) / trials.n_starts
        return t99(mean_seconds, rng.beta(trials.n_hits + 0.5, trials.n_starts - trials.n_hits + 0.5, n_draws))

    if not fast.n_hits:
        return math.nan, math.nan
    value = t99(slow.mean_seconds, slow.n_hits / slow.n_starts) / t99(fast.mean_seconds, fast.n_hits / fast.n_starts)
    return float(value), float(np.quantile(draws(slow) / draws(fast), 0.05))


# ---- the experiment


def t99_problems():
    """name -> (x, K). Velocities in 1000 km/s, so that the ridge means the same as elsewhere."""
    galaxies = datasets.load("galaxies_roeder")[0] / 1000.0
    crowd = generators.random_mixture(jax.random.key(20), 20, 2, distance=4.0)
    overlap = np.asarray(sample(jax.random.key(21), crowd, 1000)[0], float)
    return {
        "iris K=3": (datasets.load("iris")[0], 3),
        "galaxies_roeder K=5": (galaxies, 5),
        "galaxies_roeder K=6": (galaxies, 6),
        "twenty overlapping K=20": (overlap, 20),
    }


def time_to_99(table, *, starts, **_):
    """Each kind of start of each problem; then again what the best optimum known, that of all of them, says of each."""
    for case, (x, k) in list(t99_problems().items())[: 1 if table.smoke else None]:
        for kind in KINDS[:1] if table.smoke else KINDS:
            there = [row for row in table.rows if row["case"] == case and row.get("near") is not None]
            if table.fresh or kind not in [row["start"] for row in there]:
                rows = t99_rows(np.ascontiguousarray(x), MixtureSpec(k), starts, kind, smoke=table.smoke)
                table.put("t99", case, judged([*(row for row in there if row["start"] != kind), *rows]))


def t99_rows(x, spec, n_starts, kind, *, smoke, n_chunks=10, tol=TIGHT):
    """Chunks in turn: ours, then scikit-learn on the first fifth of the same starts, by the faster of its ways."""
    options = {"tol": tol, "max_iter": 200 if smoke else MAX_ITER, "reg_covar": RIDGE}
    key, ways = derive_key(0, "t99", kind), sklearn_ways(smoke)
    seconds, ends = {}, {}
    for i in range(-1, n_chunks):  # -1: to warm up, and to choose
        begun = draw_starts(jax.random.fold_in(key, i + 1), x, spec, kind, max(1, n_starts // n_chunks))
        n_few = 8 if i < 0 else max(1, n_starts // (5 * n_chunks))
        fewer = jax.tree.map(lambda leaf, n_few=n_few: leaf[:n_few], begun)
        works = {"gmm_jax": partial(our_fits, key, x, spec, begun, options)}
        for way in ways:
            fit = partial(sklearn_from_starts, x, fewer, way=way, **options)
            works[way] = lambda fit=fit: fit().gmms
        calls, answers = timed_calls(works)
        with Clock() as clock:
            spent = {name: call() for name, call in calls.items()}
        if clock.seconds["seconds_compile"] > 0.0:  # for a number of running fits that was never reached before
            spent["gmm_jax"] = calls["gmm_jax"]()
        if i < 0:  # the second time: processes have started, programs are compiled
            ways = [min(ways, key=lambda way: calls[way]())]
            continue
        for name, answer in answers.items():
            seconds.setdefault(name, []).append(spent[name])
            ends.setdefault(name, []).append(answer)
    common = {"start": kind, "status": "ok", "k": spec.n_components, "tol": tol, "reg_covar": RIDGE, "stopping": RULE}
    common |= {"precision": "float64", "n": len(x), "d": x.shape[1]}
    rows = []
    for name, chunks in ends.items():
        gmms = jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks)
        n = gmms.means.shape[0]
        row = {"method": name, "seconds": sum(seconds[name]) / n, "n_starts": n, "seconds_chunks": seconds[name]}
        rows.append(row | {"near": near_the_best(x, gmms, spec)} | common)
    return rows


def our_fits(key, x, spec, begun, options):
    """Where every fit ended."""
    n = begun.means.shape[0]
    return fit_em_restarts(key, x, spec, n_restarts=n, init=begun, config=EMConfig(**options)).fits.gmm


def near_the_best(x, gmms, spec):
    """Log-likelihood, to 1e-6 nats -> how many fits ended there; without spurious ones and those far below the best.

    Likelihoods are computed in one way and hits are judged by one rule for every program.
    """
    values = np.asarray(log_likelihoods(gmms, x))
    best = best_sound(x, gmms, spec, values)
    near = np.flatnonzero(values >= best - WITHIN) if np.isfinite(best) else []
    return Counter(f"{values[i]:.6f}" for i in near if spurious(x, one_of(gmms, i), spec) == "")


def judged(rows):
    """Rows of one problem with hits and T99: an end is a hit within 1e-4 nats of the best of all methods and kinds."""
    best = max((float(value) for row in rows for value in row["near"]), default=-np.inf)
    all_starts, done = sum(row["n_starts"] for row in rows), []
    for of_kind in groups(rows, "start").values():
        mine = {row["method"]: row for row in of_kind}
        trials = {}
        for name, row in mine.items():
            hits = sum(count for value, count in row["near"].items() if float(value) >= best - WITHIN)
            trials[name] = Trials(np.array(row["seconds_chunks"]), row["n_starts"], hits)
        for name, row in mine.items():
            share = trials[name].n_hits / row["n_starts"]
            found = {"n_hits": trials[name].n_hits, "share": share, "best_known": best, "n_starts_of_all": all_starts}
            found["t99"] = float(t99(trials[name].mean_seconds, share))
            if name != "gmm_jax":
                ratio, low = t99_ratio(trials[name], trials["gmm_jax"])
                found |= {"against": "gmm_jax", "ratio": ratio, "ratio_low": low, "threads": name}
            done.append(row | found)
    return done
