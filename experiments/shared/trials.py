"""EM and the posterior, ours and scikit-learn's, on one data set whose truth is known: how near each comes, at what cost.

All are used as a person would use them, through scikit-learn's interface, with 20 starts of EM (the posterior: its
defaults). Components are paired with the truth's, whole components at once, before an interval is looked at.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
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
from gmm_jax.judge.metrics import few_draws
from gmm_jax.mixture import Status, ambiguous, assign, match_cost, permute
from gmm_jax.mixture.predictive import predictive

from . import replications as many
from .cells import Rows, groups

N_TEST = 20_000  # draws of the truth, rounded up to a power of two, for divergences from it
CONVERGED = {"tol": 1e-8, "max_iter": 5000}
DEFAULT_TOL = "_default_tol"  # ends the names of methods that stop at the default tolerance, 1e-3 nats a sample
METHODS = ("em", "em_default_tol", "bayes", "sklearn_em", "sklearn_em_default_tol")


def trials(
    methods: Iterable[str], key: Key[Array, ""], x: Float[np.ndarray, "N D"], truth: GMM, seed: int, **options: Any
) -> list[dict[str, Any]]:
    """A row a method: status, KL divergence from the truth in nats, seconds, and for ours what `intervals_of` says.

    kl_predictive is the posterior predictive density's divergence, on the same draws of the truth. What a method raises
    is a row with status FAILED and the reason.

    Args:
        key: for draws of the truth; those of one key are the same for all methods.
        seed: the methods' random_state.
        options: by method, further arguments of its estimator.
    """
    from threadpoolctl import threadpool_limits

    test = predictive_rows(key, _one(truth), N_TEST)
    exact = predictive(_one(truth), test).log_density

    def divergence(gmms):
        return float(np.mean(exact - predictive(gmms, test).log_density))

    rows = []
    for name in methods:
        model, row = estimator(name, truth.n_components, random_state=seed, **options.get(name, {})), {"method": name}
        with Clock() as clock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of stands in status and columns
            try:
                with threadpool_limits(1) if name.startswith("sklearn") else nullcontext():
                    model.fit(x)
            except Exception as error:  # a failed trial is a row
                row |= {"status": Status.FAILED.name, "reason": f"{type(error).__name__}: {error}"}
        row |= clock.seconds
        if "status" not in row:
            row |= {"status": status_of(model).name, "kl": divergence(_one(_point(model)))}
            row |= {} if name.startswith("sklearn") else intervals_of(model, x, truth)
        if hasattr(model, "posterior_"):
            row |= {"kl_predictive": divergence(few_draws(model.posterior_)), "r_hat": model.rhat_, "ess": model.ess_}
            row |= {"passes": model.info_.get("passes"), "mixing": model.info_.get("mixing")}
        rows.append(row)
    return rows


def estimator(name: str, n_components: int, **options: Any):
    """An estimator with scikit-learn's interface, not fitted."""
    from sklearn import mixture as sklearn_mixture

    if name == "bayes":
        return BayesianGaussianMixture(n_components, **options)
    kind = sklearn_mixture.GaussianMixture if name.startswith("sklearn") else GaussianMixture
    return kind(n_components, **{"n_init": 20} | ({} if name.endswith(DEFAULT_TOL) else CONVERGED) | options)


def status_of(model) -> Status:
    """How the fit ended, scikit-learn's too."""
    return getattr(model, "status_", Status.CONVERGED if model.converged_ else Status.MAX_ITER)


def intervals_of(model: GaussianMixture | BayesianGaussianMixture, x: Float[np.ndarray, "N D"], truth: GMM):
    """How good the 95 % intervals are of one fit to x, over the free numbers of φ, μ and Σ.

    Those of EM are transformed ones of `em.intervals`, those of the posterior equal-tailed.

    Returns:
        coverage: the share of intervals that hold the true number; of none where there are no intervals.
        length: geometric mean of their lengths, so that the ratio of two methods has no units; NaN without intervals.
        z_square: mean square error in units of the squared standard error (of the posterior: sd), 1 where it is honest.
        ambiguous: whether another pairing with the truth costs less than twice as much.
    """
    spec = MixtureSpec(truth.n_components)
    if hasattr(model, "posterior_"):
        draws = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), model.posterior_.draws)
        bounds = Bounds(*(jax.tree.map(lambda leaf, q=q: np.quantile(leaf, q, axis=0), draws) for q in many.tails()))
        middle, sd = model.mixture_, GMM(model.weights_sd_, model.means_sd_, model.covariances_sd_)
    else:
        found, z = em.intervals(x, model.restarts_, spec, level=many.LEVEL), NormalDist().inv_cdf(many.tails()[1])
        bounds, (low, high) = found.transformed, found.raw
        middle = jax.tree.map(lambda a, b: (a + b) / 2.0, low, high)  # the maximum to which the fit leads
        sd = jax.tree.map(lambda a, b: (b - a) / (2.0 * z), low, high)
    cost = match_cost(_one(truth), model.mixture_, spec)
    order = assign(cost)
    true = permute(truth, order[0])
    chosen = parameters(truth)
    at, error, low, high, exact = (many.entries(gmm, chosen) for gmm in (middle, sd, *bounds, true))
    return {
        "coverage": float(np.mean((low <= exact) & (exact <= high))),
        "length": float(np.exp(np.mean(np.log(high - low)))),
        "z_square": float(np.mean(((at - exact) / error) ** 2)),
        "ambiguous": bool(ambiguous(cost, order)[0]),
    }


def median_seconds(rows: Rows) -> str:
    """Of each method the median seconds of a fit without compilation, and of all that compiled the median of that."""
    said = []
    for method, mine in groups(rows, "method").items():
        seconds = np.median([row["seconds_run"] for row in mine])
        spent = [row["seconds_trace"] + row["seconds_compile"] for row in mine]
        compiling = [one for one in spent if one > 1.0]
        more = f" (and {np.median(compiling):.2g} s compiling in {len(compiling)} of {len(mine)})" if compiling else ""
        said.append(f"{method} {seconds:.2g} s{more}")
    return ", ".join(said)


def _point(model):
    return GMM(model.weights_, model.means_, model.covariances_)


def _one(gmm):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], gmm)
