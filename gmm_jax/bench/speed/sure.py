"""T99: the time that independent starts need until 99 % of searches have met the best admissible optimum known."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from ...em import EMConfig, fit_em_restarts, inadmissible
from ...mixture import MixtureSpec, sample
from ...problems import datasets, generators
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
    """Both kinds of starts of one problem, because the best optimum known is that of all starts of all methods."""
    for case, (x, k) in list(t99_problems().items())[: 1 if book.smoke else None]:
        if book.lacks("t99", case):
            kinds = KINDS[:1] if book.smoke else KINDS
            book.put("t99", case, t99_rows(np.ascontiguousarray(x), MixtureSpec(k), starts, kinds, smoke=book.smoke))


def t99_rows(x, spec, n_starts, kinds, *, smoke, n_chunks=10, tol=TIGHT):
    """Chunks in turn: ours, then scikit-learn on the first tenth of the same starts, by the faster of its ways."""
    options = {"tol": tol, "max_iter": 200 if smoke else MAX_ITER, "reg_covar": RIDGE}
    found = {}
    for kind in kinds:
        key = derive_key(0, "t99", kind)
        ours, theirs = ([], []), ([], [])
        ways = sklearn_ways(smoke)
        for i in range(-1, n_chunks):  # -1: to warm up, and to choose
            begun = draw_starts(jax.random.fold_in(key, i + 1), x, spec, kind, max(1, n_starts // n_chunks))
            fewer = jax.tree.map(lambda leaf: leaf[: max(1, n_starts // (10 * n_chunks))], begun)
            works = {"gmm_jax": partial(our_lanes, key, x, spec, begun, options)}
            for way in ways:
                fit = partial(peers.sklearn_from_starts, x, fewer, way=way, **options)
                works[way] = lambda fit=fit: fit().gmms
            calls, answers = timed_calls(works)
            seconds = {name: call() for name, call in calls.items()}
            if i < 0:  # the second time: processes have started, programs are compiled
                ways = [min(ways, key=lambda way: calls[way]())]
                continue
            for side, name in ((ours, "gmm_jax"), (theirs, ways[0])):
                side[0].append(seconds[name])
                side[1].append(answers[name])
        found[kind] = {"gmm_jax": ours, ways[0]: theirs}
    return t99_table(x, spec, found, tol)


def our_lanes(key, x, spec, begun, options):
    """Where every lane ended."""
    n = begun.means.shape[0]
    return fit_em_restarts(key, x, spec, n_restarts=n, init=begun, config=EMConfig(**options)).lanes.gmm


def t99_table(x, spec, found, tol):
    """Rows: hits are judged by one rule for all, likelihoods computed in one way for all."""
    ends = {
        (kind, name): jax.tree.map(lambda *leaves: np.concatenate(leaves), *side[1])
        for kind, sides in found.items()
        for name, side in sides.items()
    }
    values = {place: np.asarray(log_likelihoods(gmms, x)) for place, gmms in ends.items()}
    best = max(best_admissible(x, gmms, spec, values[place]) for place, gmms in ends.items())
    rows = []
    for kind, sides in found.items():
        trials = {}
        for name, (seconds, _) in sides.items():
            value, gmms = values[kind, name], ends[kind, name]
            near = np.flatnonzero(value >= best - WITHIN)
            hits = sum(inadmissible(x, one_of(gmms, i), spec) == "" for i in near)
            trials[name] = Trials(np.array(seconds), value.size, hits)
        for name, trial in trials.items():
            share = trial.n_hits / trial.n_starts
            row = {"method": name, "start": kind, "seconds": trial.mean_seconds, "status": "ok", "k": spec.n_components}
            row |= {"n_starts": trial.n_starts, "n_hits": trial.n_hits, "share": share, "best_known": best, "tol": tol}
            row |= {"t99": float(t99(trial.mean_seconds, share)), "reg_covar": RIDGE, "stopping": RULE}
            row |= {"precision": "float64", "n": len(x), "d": x.shape[1]}
            if name != "gmm_jax":
                ratio, low = t99_ratio(trial, trials["gmm_jax"])
                row |= {"against": "gmm_jax", "ratio": ratio, "ratio_low": low, "threads": name}
            rows.append(row)
    return rows
