"""T99: the time that independent starts need until 99 % of searches have met the best admissible optimum known."""

from __future__ import annotations

from collections import Counter
from functools import partial

import jax
import numpy as np

from ...em import EMConfig, fit_em_restarts, spurious
from ...mixture import MixtureSpec, sample
from ...problems import datasets, generators
from ..clock import Clock
from ..runner import derive_key
from . import peers
from .book import MAX_ITER, RIDGE, RULE, TIGHT, sklearn_ways, timed_calls
from .measure import WITHIN, Trials, t99, t99_ratio
from .searches import best_admissible, draw_starts, log_likelihoods, one_of

KINDS = ("random_points", "kmeans")  # starts of T99


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


def certainty(book, *, starts, **_):
    """Each kind of start of each problem; then again what the best optimum known, that of all of them, says of each."""
    for case, (x, k) in list(t99_problems().items())[: 1 if book.smoke else None]:
        for kind in KINDS[:1] if book.smoke else KINDS:
            there = [row for row in book.rows if row["case"] == case and row.get("near") is not None]
            if book.fresh or kind not in [row["start"] for row in there]:
                rows = t99_rows(np.ascontiguousarray(x), MixtureSpec(k), starts, kind, smoke=book.smoke)
                book.put("t99", case, judged([*(row for row in there if row["start"] != kind), *rows]))


def t99_rows(x, spec, n_starts, kind, *, smoke, n_chunks=10, tol=TIGHT):
    """Chunks in turn: ours, then scikit-learn on the first fifth of the same starts, by the faster of its ways."""
    options = {"tol": tol, "max_iter": 200 if smoke else MAX_ITER, "reg_covar": RIDGE}
    key, ways = derive_key(0, "t99", kind), sklearn_ways(smoke)
    seconds, ends = {}, {}
    for i in range(-1, n_chunks):  # -1: to warm up, and to choose
        begun = draw_starts(jax.random.fold_in(key, i + 1), x, spec, kind, max(1, n_starts // n_chunks))
        n_few = 8 if i < 0 else max(1, n_starts // (5 * n_chunks))
        fewer = jax.tree.map(lambda leaf, n_few=n_few: leaf[:n_few], begun)
        works = {"gmm_jax": partial(our_lanes, key, x, spec, begun, options)}
        for way in ways:
            fit = partial(peers.sklearn_from_starts, x, fewer, way=way, **options)
            works[way] = lambda fit=fit: fit().gmms
        calls, answers = timed_calls(works)
        with Clock() as clock:
            spent = {name: call() for name, call in calls.items()}
        if clock.seconds["seconds_compile"] > 0.0:  # for a number of lanes that was never left before
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


def our_lanes(key, x, spec, begun, options):
    """Where every lane ended."""
    n = begun.means.shape[0]
    return fit_em_restarts(key, x, spec, n_restarts=n, init=begun, config=EMConfig(**options)).fits.gmm


def near_the_best(x, gmms, spec):
    """Log-likelihood, to 1e-6 nats -> number of admissible ends there, of those that can count: near the best of them.

    Likelihoods are computed in one way and hits are judged by one rule for every program.
    """
    values = np.asarray(log_likelihoods(gmms, x))
    best = best_admissible(x, gmms, spec, values)
    near = np.flatnonzero(values >= best - WITHIN) if np.isfinite(best) else []
    return Counter(f"{values[i]:.6f}" for i in near if spurious(x, one_of(gmms, i), spec) == "")


def judged(rows):
    """Rows of one problem with hits and T99: an end is a hit within 1e-4 nats of the best of all methods and kinds."""
    best = max((float(value) for row in rows for value in row["near"]), default=-np.inf)
    all_starts, done = sum(row["n_starts"] for row in rows), []
    for kind in dict.fromkeys(row["start"] for row in rows):
        mine = {row["method"]: row for row in rows if row["start"] == kind}
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
