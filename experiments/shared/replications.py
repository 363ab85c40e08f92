"""A method on many data sets from one truth: its estimates, its intervals, and how good both are.

Components are paired with the truth's, whole components at once, before anything is averaged; a data set without an
answer is counted, and covers nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from gmm_jax import bayes, em, log_prob, sample
from gmm_jax.bench.parameters import Parameter, parameters
from gmm_jax.bench.runner import derive_key
from gmm_jax.em import Bounds
from gmm_jax.mixture import GMM, MixtureSpec, Status, align, ambiguous, assign, match_cost, permute
from gmm_jax.problems import Problem

from .bounds import CramerRao, cramer_rao, efficiency

LEVEL = 0.95
CONFIG = em.EMConfig(max_iter=5000, tol=1e-10, reg_covar=0.0, acceleration="lbfgs")
ENOUGH = 400  # effective draws, below which the ends of an interval are too vague
KINDS = {"em": "transformed", "gibbs": "equal-tailed"}  # of interval
BOUND_DRAWS = 400_000  # for the Cramér–Rao bound
LOT, LOT_ROWS = 250, 6_000_000  # data sets, and rows of all of them, at a time


def study_of(problem: Problem, n: int, replications: int, posteriors: int, **chain: int) -> list[dict[str, Any]]:
    """A row of EM over so many data sets of n samples, and one of gibbs over the first `posteriors` of them.

    `chain` are options of `bayes.gibbs_batch`; the columns are those of `summary`, and the problem, n and the method.
    """
    key_em, key_gibbs, key_judge = (derive_key(n, axis, problem.name) for axis in ("em", "gibbs", "judge"))
    size = {"n_samples": n, "n_draws": BOUND_DRAWS}
    bound = cramer_rao(derive_key(0, "bound", problem.name), problem.truth, problem.spec, **size)
    found: dict[str, list[Replications]] = {"em": [], "gibbs": []}
    lot = min(LOT, LOT_ROWS // n)
    for first in range(0, replications, lot):
        xs = data_sets(problem, range(first, min(first + lot, replications)), n)
        found["em"].append(by_em(jax.random.fold_in(key_em, first), xs, problem))
        some = min(lot, posteriors - first)
        if some > 0:
            start = jax.tree.map(lambda leaf, some=some: leaf[:some], found["em"][-1].points)
            draws = gibbs_draws(jax.random.fold_in(key_gibbs, first), xs[:some], problem, start, **chain)
            found["gibbs"].append(by_draws(draws, problem))
    return [
        {"problem": problem.name, "n_samples": n, "method": method, "interval": KINDS[method]}
        | summary(
            key_judge, jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), problem, bound, KINDS[method]
        )
        for method, parts in found.items()
        if parts
    ]


class Replications(NamedTuple):
    """One answer a data set, in the truth's order; leading axis R everywhere."""

    points: GMM
    failed: Bool[np.ndarray, "R"]  # no optimum that is not spurious, or a number that is not finite
    ambiguous: Bool[np.ndarray, "R"]  # whether the second best match with the truth costs less than twice the best
    intervals: Mapping[str, Bounds]  # kind -> ends of 95 % intervals, NaN where there are none
    effective: Float[np.ndarray, "R"] | None = None  # draws: the fewest of any free number


def data_sets(problem: Problem, seeds: Iterable[int], n: int | None = None) -> Float[np.ndarray, "R N D"]:
    """Samples whose labels are drawn too, as bounds and intervals presume."""
    keys = (derive_key(seed, "data", problem.name) for seed in seeds)
    return np.stack([problem.sample(key, n, counts="multinomial")[0] for key in keys])


def by_em(key: Key[Array, ""], xs: Float[Array, "R N D"], problem: Problem, *, n_restarts: int = 4) -> Replications:
    """The best of some starts, without regularisation; intervals raw and transformed, from the observed information."""
    found = em.fit_em_restarts(key, xs, problem.spec, n_restarts=n_restarts, config=CONFIG)
    best = found.best._replace(trace=None)
    cost = match_cost(best.gmm, problem.truth, problem.spec)
    order = assign(cost)
    best = best._replace(gmm=permute(best.gmm, order))
    failed = ~np.isin(best.status, (Status.CONVERGED, Status.MAX_ITER)) | (found.reason != "")
    ends = [_intervals(x, jax.tree.map(lambda leaf, i=i: leaf[i], best), problem.spec) for i, x in enumerate(xs)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *ends)
    return Replications(best.gmm, failed | ~_finite(best.gmm), ambiguous(cost, order), stacked)


def _intervals(x, result, spec):
    found = em.intervals(x, result, spec, level=LEVEL)
    return {"raw": found.raw, "transformed": found.transformed}


def gibbs_draws(key: Key[Array, ""], xs: Float[Array, "R N D"], problem: Problem, start: GMM, **options: Any) -> GMM:
    """Draws (R, S) from each posterior, chains from `start` (R), components in the order of the data set's start.

    The truth has no say in the labels of draws: where components overlap so much that labels switch, it would help.
    """
    return align(bayes.gibbs_batch(key, xs, problem.spec, init=start, **options), start, problem.spec)


def by_draws(draws: GMM, problem: Problem) -> Replications:
    """Posterior means and equal-tailed intervals."""
    points = jax.tree.map(lambda leaf: leaf.mean(axis=1), draws)
    cost = match_cost(points, problem.truth, problem.spec)
    order = assign(cost)
    ends = [jax.tree.map(lambda leaf, q=q: np.quantile(leaf, q, axis=1), draws) for q in tails()]
    points, *ends = (permute(gmm, order) for gmm in (points, *ends))
    effective = effective_draws(entries(draws, parameters(problem.truth, problem.spec.known)))
    kinds = {"equal-tailed": Bounds(*ends)}
    return Replications(points, ~_finite(points), ambiguous(cost, order), kinds, effective)


def tails() -> tuple[float, float]:
    """Probabilities at the ends of an equal-tailed interval."""
    return 0.5 - 0.5 * LEVEL, 0.5 + 0.5 * LEVEL


def entries(gmm: GMM, chosen: Iterable[Parameter]) -> Float[np.ndarray, "*batch Q"]:
    """The free ones of these numbers, last, of mixtures with leading axes."""
    leaves = [np.asarray(getattr(gmm, entry.field))[(..., *entry.index)] for entry in chosen if not entry.known]
    return np.stack(leaves, axis=-1)


def effective_draws(values: Float[np.ndarray, "R S Q"]) -> Float[np.ndarray, "R"]:
    """The fewest effective draws (bulk) of any of Q numbers, chain by chain."""
    from arviz_stats.base import array_stats

    found = array_stats.ess(values[:, None], chain_axis=1, draw_axis=2, method="bulk")
    return np.min(np.asarray(found, float), axis=-1)


def covered(found: Bounds, truth: GMM, spec: MixtureSpec) -> tuple[list[str], Bool[np.ndarray, "R Q"]]:
    """Names of the free numbers, and whether each interval holds the true one; what is NaN holds nothing."""
    chosen = [entry for entry in parameters(truth, spec.known) if not entry.known]
    low, true, high = (entries(gmm, chosen) for gmm in (found.lower, truth, found.upper))
    return [entry.label for entry in chosen], (low <= true) & (true <= high)


def without(found: Bounds) -> Bool[np.ndarray, "R"]:
    """Which data sets have no intervals."""
    return ~_finite(found.lower)


def summary(
    key: Key[Array, ""], found: Replications, problem: Problem, bound: CramerRao, kind: str
) -> dict[str, float]:
    """How good the answers are, every number with its Monte-Carlo standard error ..._se.

    Args:
        kind: of interval.

    Returns:
        failed, ambiguous, no_interval: proportions of all data sets; coverage, mean over the free numbers, of all too;
        and of those that did not fail: rmse_weights, rmse_means, rmse_covariances, units of φ, μ, Σ; kl, nats;
        efficiency with its parts variance and bias (see `bounds`); effective_draws, the median, and
        few_effective, the proportion with fewer than 400.
    """
    truth, good = problem.truth, ~found.failed
    hits = covered(found.intervals[kind], truth, problem.spec)[1].mean(axis=1)
    row = {"replications": good.size}
    for name, values in (
        ("failed", found.failed),
        ("ambiguous", found.ambiguous),
        ("no_interval", without(found.intervals[kind])),
    ):
        row |= mean_with_error(name, values.astype(float))
    row |= mean_with_error("coverage", hits)
    points = jax.tree.map(lambda leaf: leaf[good], found.points)
    for name in ("weights", "means", "covariances"):
        error = np.asarray(getattr(points, name)) - np.asarray(getattr(truth, name))
        row |= _root(f"rmse_{name}", np.mean(error.reshape(len(error), -1) ** 2, axis=1))
    row |= mean_with_error("kl", _divergences(key, truth, points))
    if good.sum() > 1:
        of = efficiency(points, truth, problem.spec, bound)
        row |= {"efficiency": of.value, "efficiency_se": of.error, "variance": of.variance, "bias": of.bias}
    if found.effective is not None:
        row |= {"effective_draws": np.median(found.effective), "few_effective": np.mean(found.effective < ENOUGH)}
    return row


def _divergences(key, truth, points):
    keys = jax.random.split(key, len(points.weights))
    return np.asarray(_kl(keys, jax.tree.map(np.asarray, truth), points))


@jax.jit
def _kl(keys, truth, points):
    def one(each):
        x, _ = sample(each[0], truth, 2000)
        return jnp.mean(log_prob(truth, x) - log_prob(each[1], x))

    return jax.lax.map(one, (keys, points))


def mean_with_error(name: str, values: Float[np.ndarray, "R"]) -> dict[str, float]:
    """name, the mean over replications, and name_se, its standard error."""
    n = len(values)
    error = np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return {name: np.mean(values) if n else np.nan, f"{name}_se": error}


def _root(name, squares):
    mean, error = mean_with_error("square", squares).values()
    return {name: np.sqrt(mean), f"{name}_se": 0.5 * error / np.sqrt(mean) if mean else 0.0}


def _finite(gmm):
    return np.all([np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in jax.tree.leaves(gmm)], axis=0)
