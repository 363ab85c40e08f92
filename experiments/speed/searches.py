"""Whole searches: the same work, the same answer, and many data sets; every program's fits are judged by one rule."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from gmm_jax import problems
from gmm_jax.bench.runner import derive_key
from gmm_jax.em import EMConfig, fit_em_restarts, spurious
from gmm_jax.mixture import log_prob
from gmm_jax.mixture.starts import start_function

from .programs import N_WORKERS, sklearn_fit, sklearn_from_starts, sklearn_restarts
from .ratios import WITHIN, compare, interleave, timed_calls
from .table import MAX_ITER, RIDGE, RULE, TIGHT, TOL, about_fits, sklearn_ways


def course():
    """(x, spec) of the course's plane."""
    problem = problems.load("course_2d")
    return np.asarray(problem.sample(derive_key(0, "data", problem.name))[0]), problem.spec


@partial(jax.jit, static_argnames=("start", "n"))
def _draw(key, x, spec, start, n):
    return jax.vmap(start, in_axes=(0, None, None))(jax.random.split(key, n), x, spec)


def draw_starts(key, x, spec, kind, n):
    """n starts in the units of x, NumPy leaves with leading axis n."""
    return jax.tree.map(np.asarray, _draw(key, x, spec, start_function(kind), n))


@jax.jit
def log_likelihoods(gmms, x):
    """Of x under each mixture, nats."""
    return jax.lax.map(lambda gmm: jax.numpy.sum(log_prob(gmm, x)), gmms)


@jax.jit
def _log_likelihood_each(gmms, xs):
    return jax.lax.map(lambda pair: jax.numpy.sum(log_prob(*pair)), (gmms, xs))


def best_sound(x, gmms, spec, values):
    """The highest log-likelihood of a fit that is not spurious, -inf where all are: one rule for every program."""
    for i in np.argsort(-np.where(np.isfinite(values), values, -np.inf), kind="stable"):
        if np.isfinite(values[i]) and spurious(x, one_of(gmms, i), spec) == "":
            return float(values[i])
    return -np.inf


def one_of(gmms, i):
    """Mixture i of many."""
    return jax.tree.map(lambda leaf: leaf[i], gmms)


def same_work(table, *, pairs, **_):
    """Fits of course_2d to TOL from the same starts, warm."""
    if not table.lacks("same_work", "course_2d"):
        return
    x, spec = course()
    n = 4 if table.smoke else 100
    key = derive_key(0, "method", "speed_em")
    begun = draw_starts(key, x, spec, "kmeans++", n)
    options = {"tol": TOL, "max_iter": MAX_ITER, "reg_covar": RIDGE}
    config = EMConfig(**options)
    works = {"gmm_jax": lambda: fit_em_restarts(key, x, spec, n_restarts=n, init=begun, config=config)}
    for way in sklearn_ways(table.smoke):
        works[way] = partial(sklearn_from_starts, x, begun, way=way, **options)
    calls, answers = timed_calls(works)
    about = about_fits(table.smoke, start=f"the same {n} k-means++", tol=TOL, n_restarts=n)
    for name, seconds in interleave(calls, 1).items():  # warm
        about[name]["seconds_first"] = seconds[0]
    seconds = interleave(calls, pairs)
    for name, answer in answers.items():
        gmms, n_iter = (answer.fits.gmm, answer.fits.n_iter) if name == "gmm_jax" else answer
        values = np.asarray(log_likelihoods(gmms, x))
        about[name] |= {"log_likelihood": best_sound(x, gmms, spec, values), "mean_n_iter": np.mean(n_iter)}
    table.put("same_work", "course_2d", compare(seconds, ["gmm_jax"], about))


def same_answer(table, *, seeds, **_):
    """Restarts against n_init=100: seconds, and the best log-likelihood of a fit that is not spurious, seed by seed."""
    x, spec = course()
    n = 4 if table.smoke else 100
    options = {"max_iter": MAX_ITER, "reg_covar": RIDGE}
    block = min(seeds, 25)

    def calls_of(seed, ways):
        works = {"gmm_jax": partial(our_best, derive_key(seed, "method", "speed_em"), x, spec, n, options)}
        for way in ways:
            fit = partial(sklearn_restarts, x, spec.n_components, n_restarts=n, seed=seed, tol=TOL, **options)
            works[way] = partial(fit, way=way)
        return timed_calls(works)

    lacking = [first for first in range(0, seeds, block) if table.lacks("same_answer", seeds_from(first, block))]
    for first in lacking:
        warm = interleave(calls_of(first, sklearn_ways(table.smoke))[0], 2)
        best_way = min(sklearn_ways(table.smoke), key=lambda way: warm[way][1])
        about, rows = about_fits(table.smoke, n_restarts=n), []
        about["gmm_jax"] |= {"start": "kmeans++", "tol": TIGHT}
        about[best_way] |= {"start": "kmeans", "tol": TOL}
        for seed in range(first, first + block):
            calls, answers = calls_of(seed, [best_way])
            seconds = {name: call() for name, call in list(calls.items())[:: 1 if seed % 2 else -1]}
            for name, gmm in answers.items():
                gmms = jax.tree.map(lambda leaf: np.asarray(leaf)[None], gmm)
                value = best_sound(x, gmms, spec, np.asarray(log_likelihoods(gmms, x)))
                row = {"method": name, "seed": seed, "seconds": seconds[name], "log_likelihood": value, "status": "ok"}
                rows.append(row | about[name])
        table.put("same_answer", seeds_from(first, block), rows)
    if lacking:
        table.put("same_answer", "all", answers_together(table.rows))


def seeds_from(first, block):
    """The case of so many seeds."""
    return f"seeds {first} to {first + block - 1}"


def answers_together(rows):
    """All seeds: the ratio of seconds, and how often each side was within 1e-4 nats of the best of both."""
    rows = sorted((r for r in rows if r["part"] == "same_answer" and r["case"] != "all"), key=lambda r: r["seed"])
    sides = [[r for r in rows if (r["method"] == "gmm_jax") == mine] for mine in (True, False)]
    values = np.array([[r["log_likelihood"] for r in side] for side in sides], float)  # nothing: every fit was spurious
    values = np.where(np.isnan(values), -np.inf, values)
    reached = np.isfinite(values) & (values >= values.max(axis=0) - WITHIN)
    names = ["gmm_jax", "scikit-learn, faster way"]
    often = zip(names, reached.mean(axis=1), strict=True)
    about = {name: {"share_within": share, "n_seeds": values.shape[1]} for name, share in often}
    seconds = {name: np.array([r["seconds"] for r in side]) for name, side in zip(names, sides, strict=True)}
    return compare(seconds, names[:1], about)


def our_best(key, x, spec, n_restarts, options):
    """The best mixture of independent starts, as scikit-learn's are."""
    config = EMConfig(tol=TIGHT, **options)
    return fit_em_restarts(key, x, spec, n_restarts=n_restarts, config=config, swaps=False).best.gmm


def many(table, *, pairs, **_):
    """Data sets × 10 restarts; scikit-learn on the first few, scaled up."""
    case = "course_2d"
    if not table.lacks("many", case):
        return
    problem = problems.load("course_2d")
    n_sets, n_few, n = (3, 2, 2) if table.smoke else (1000, 50, 10)
    xs = np.stack([np.asarray(problem.sample(derive_key(i, "data", "many"))[0]) for i in range(n_sets)])
    key, spec = derive_key(0, "method", "many"), problem.spec
    options = {"max_iter": MAX_ITER, "reg_covar": RIDGE}
    config = EMConfig(tol=TIGHT, **options)
    works = {"gmm_jax": lambda: fit_em_restarts(key, xs, spec, n_restarts=n, config=config, swaps=False).best.gmm}
    works["scikit-learn workers"] = partial(sklearn_sets, xs[:n_few], spec.n_components, n, options, table.smoke)
    calls, answers = timed_calls(works)
    interleave(calls, 1)
    seconds = interleave(calls, pairs)
    seconds["scikit-learn workers"] = seconds["scikit-learn workers"] * (n_sets / n_few)
    few = {name: jax.tree.map(lambda leaf: np.asarray(leaf)[:n_few], gmms) for name, gmms in answers.items()}
    values = {name: np.asarray(_log_likelihood_each(gmms, xs[:n_few])) for name, gmms in few.items()}
    best = np.maximum(*values.values())
    common = {"n_restarts": n, "n_sets": n_sets, "reg_covar": RIDGE, "stopping": RULE, "precision": "float64"}
    about = {name: {"share_within": float(np.mean(v >= best - WITHIN))} for name, v in values.items()}
    about["gmm_jax"] |= {"start": "kmeans++", "tol": TIGHT, "threads": "XLA's own"}
    counted = f"{n_few} data sets, times {n_sets / n_few:g}"
    about["scikit-learn workers"] |= {"start": "kmeans", "tol": TOL, "threads": "2 processes of 1", "counted": counted}
    table.put("many", case, compare(seconds, ["gmm_jax"], about, **common))


def sklearn_sets(xs, n_components, n_restarts, options, smoke):
    """The best of n_init fits of each data set, one BLAS thread each, over all cores."""
    from joblib import Parallel, delayed

    options = {"n_init": n_restarts, "random_state": 0, "tol": TOL, **options}
    each = (delayed(sklearn_fit)(x, n_components, options, 1) for x in xs)
    found = [gmm for gmm, _ in Parallel(n_jobs=1 if smoke else N_WORKERS)(each)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)
