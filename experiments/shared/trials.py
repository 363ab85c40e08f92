"""EM, ours and scikit-learn's, and the posterior on one data set of a known truth: how near each comes, and its cost.

All are used through scikit-learn's interface, EM with 20 starts and the posterior with its defaults. Components are
paired with the truth's, whole components at once, before an interval is looked at.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from statistics import NormalDist
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from gmm_jax import GMM, BayesianGaussianMixture, GaussianMixture, MixtureSpec, em
from gmm_jax.bayes.point import predictive_rows
from gmm_jax.bench.clock import Clock
from gmm_jax.bench.parameters import parameters
from gmm_jax.em import Bounds
from gmm_jax.judge.metrics import N_PREDICTIVE, few_draws
from gmm_jax.mixture import Status, ambiguous, assign, match_cost, permute
from gmm_jax.mixture.predictive import predictive

from .cells import Rows, groups
from .replications import LEVEL, entries, tails

N_TEST = 20_000  # draws of the truth, rounded up to a power of two, for divergences from it
CONVERGED = {"tol": 1e-8, "max_iter": 5000}
DEFAULT_TOL = "_default_tol"  # ends the names of those that stop at the estimators' own tolerance, 1e-3 nats a sample
METHODS = ("em", "em_default_tol", "bayes", "sklearn_em", "sklearn_em_default_tol")
NOTEWORTHY = 1.0  # seconds of compilation


def trials(methods: Iterable[str], key: Key[Array, ""], x: Float[np.ndarray, "N D"], truth: GMM, *, seed: int) -> Rows:
    """A row a method: its status, KL divergence from the truth in nats, seconds, and of ours what `intervals_of` says.

    kl_predictive is the divergence of the posterior predictive density, on the same draws of the truth. What a method
    raises is a row with status FAILED and the reason.

    Args:
        key: of the draws from the truth.
        seed: the methods' random_state.
    """
    divergence, rows = divergence_from(key, truth), []
    for name in methods:
        model, row = estimator(name, truth.n_components, random_state=seed), {"method": name}
        with Clock() as clock:
            try:
                _fit(model, x, one_thread=name.startswith("sklearn"))
            except Exception as error:  # a failed trial is a row
                row |= {"status": Status.FAILED.name, "reason": f"{type(error).__name__}: {error}"}
        if "status" not in row:
            row |= {"status": status_of(model).name, "kl": divergence(one(_mixture(model)))}
            row |= {} if name.startswith("sklearn") else intervals_of(model, x, truth)
            row |= _of_posterior(model, divergence) if name == "bayes" else {}
        rows.append(row | clock.seconds)
    return rows


def divergence_from(key: Key[Array, ""], truth: GMM) -> Callable[[GMM], float]:
    """KL(truth ‖ ·) of the mean density of mixtures (M, ...), in nats, on the same draws of the truth for all."""
    test = predictive_rows(key, one(truth), N_TEST)
    exact = predictive(one(truth), test).log_density
    return lambda gmms: float(np.mean(exact - predictive(gmms, test).log_density))


def one(gmm: GMM) -> GMM:
    """The mixture with a leading axis of one."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], gmm)


def estimator(name: str, n_components: int, **options: Any):
    """One of METHODS with scikit-learn's interface, not fitted."""
    from sklearn import mixture as sklearn_mixture

    if name == "bayes":
        return BayesianGaussianMixture(n_components, **options)
    kind = sklearn_mixture.GaussianMixture if name.startswith("sklearn") else GaussianMixture
    return kind(n_components, n_init=20, **({} if name.endswith(DEFAULT_TOL) else CONVERGED), **options)


def status_of(model) -> Status:
    """How the fit ended, scikit-learn's too."""
    return getattr(model, "status_", Status.CONVERGED if model.converged_ else Status.MAX_ITER)


def intervals_of(
    model: GaussianMixture | BayesianGaussianMixture, x: Float[np.ndarray, "N D"], truth: GMM
) -> dict[str, Any]:
    """How good the 95 % intervals of one fit to x are, over the free numbers of φ, μ and Σ.

    EM's are the transformed ones of `em.intervals`, the posterior's are equal-tailed.

    Returns:
        coverage: the share of intervals that hold the true number; 0 where there are no intervals.
        length: the geometric mean of their lengths, whose ratio for two fits has no units; NaN without intervals.
        z_square: the mean squared error in units of the squared standard error (of the posterior: sd).
        ambiguous: whether another pairing with the truth costs less than twice as much as the best.
    """
    spec, (_, upper) = MixtureSpec(truth.n_components), tails()
    if isinstance(model, BayesianGaussianMixture):
        draws = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), model.posterior_.draws)
        bounds = Bounds(*(jax.tree.map(lambda leaf, q=q: np.quantile(leaf, q, axis=0), draws) for q in tails()))
        middle, sd = model.mixture_, GMM(model.weights_sd_, model.means_sd_, model.covariances_sd_)
    else:
        found, z = em.intervals(x, model.restarts_, spec, level=LEVEL), NormalDist().inv_cdf(upper)
        bounds, (low, high) = found.transformed, found.raw
        middle = jax.tree.map(lambda a, b: (a + b) / 2.0, low, high)  # the maximum to which the fit leads
        sd = jax.tree.map(lambda a, b: (b - a) / (2.0 * z), low, high)
    cost = match_cost(one(truth), model.mixture_, spec)
    order = assign(cost)
    mixtures = middle, sd, *bounds, permute(truth, order[0])
    at, error, low, high, true = (entries(gmm, parameters(truth)) for gmm in mixtures)
    return {
        "coverage": float(np.mean((low <= true) & (true <= high))),
        "length": float(np.exp(np.mean(np.log(high - low)))),
        "z_square": float(np.mean(((at - true) / error) ** 2)),
        "ambiguous": bool(ambiguous(cost, order)[0]),
    }


def median_seconds(rows: Rows) -> str:
    """Of each method the median seconds of a fit without compilation, and of compilation where there was one."""
    said = []
    for method, mine in groups(rows, "method").items():
        compiling = [row["seconds_trace"] + row["seconds_compile"] for row in mine]
        compiling = [seconds for seconds in compiling if seconds > NOTEWORTHY]
        more = f" (and {np.median(compiling):.2g} s compiling in {len(compiling)} of {len(mine)})" if compiling else ""
        said.append(f"{method} {np.median([row['seconds_run'] for row in mine]):.2g} s{more}")
    return ", ".join(said)


def _fit(model, x, one_thread):
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1) if one_thread else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of stands in status and columns
        model.fit(x)


def _of_posterior(model, divergence):
    draws = few_draws(model.posterior_.draws, N_PREDICTIVE)
    row = {"kl_predictive": divergence(draws), "r_hat": model.rhat_, "ess": model.ess_}
    return row | {name: model.info_.get(name) for name in ("passes", "mixing")}


def _mixture(model):
    return GMM(model.weights_, model.means_, model.covariances_)
