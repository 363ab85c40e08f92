"""How well does a model of this size do? Information criteria of a fit, and leave-one-out prediction of a posterior.

ICL is that of Biernacki, Celeux & Govaert (2000) and of mclust: −2 log p(x, ẑ | θ̂) + p log n with ẑ_n the most probable
component of row n, which is BIC − 2 Σ_n log max_k r_nk. McLachlan & Peel (2000) have the expectation in place of the
most probable: BIC − 2 Σ_n Σ_k r_nk log r_nk, which is at least as large. Both are BIC where components do not overlap.

Reference:
    Schwarz (1978), Annals of Statistics 6 (BIC); Biernacki, Celeux & Govaert (2000), Assessing a mixture model for
    clustering with the integrated completed likelihood, IEEE PAMI 22 (ICL);
    Vehtari, Gelman & Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC,
    Statistics and Computing 27.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from ..bayes.checks import check_posterior, check_spec, check_width, host_mixture
from ..bayes.importance import K_HAT_LIMIT, tail_is_lost
from ..mixture import GMM, MixtureSpec, Posterior, check_data, check_sample_weight, n_parameters, validate_spec
from ..mixture.datatree import pointwise, refuse_labels
from ..mixture.predictive import predictive


def information_criteria(
    gmm: GMM,
    x: Float[np.ndarray, "N D"],
    spec: MixtureSpec,
    *,
    sample_weight: Float[np.ndarray, "N"] | None = None,
    missing: str | None = None,
) -> dict[str, float]:
    """log_likelihood (sum, nats), n_parameters (free ones), aic, bic and icl of a maximum-likelihood fit.

    The last three are in units of −2 nats: lower is better. icl asks for clusters that stand apart, where bic asks for
    a density. n is the number of rows, or the sum of their weights; `missing` as in em.fit_em_restarts. In place of the
    mixture a result that holds one may be given.
    """
    gmm, spec, x = host_mixture(gmm, "gmm"), check_spec(spec), check_data(x, missing=missing)
    spec = validate_spec(spec, x.shape[1])
    theirs, ours = ((m.n_components, m.covariance_type, d) for m, d in ((gmm, gmm.n_features), (spec, x.shape[1])))
    if theirs != ours:
        raise ValueError(
            "gmm has {} components of type {!r} in {} features, but ".format(*theirs)
            + "spec and x have {} of type {!r} in {}: use those fitted.".format(*ours)
        )
    found = predictive(jax.tree.map(lambda leaf: leaf[None], gmm), x, missing=missing)
    return criteria(*found, n_parameters(spec, x.shape[1]), check_sample_weight(sample_weight, len(x)))


def criteria(log_density, responsibilities, n_parameters: int, sample_weight=None) -> dict[str, float]:
    """Those of `information_criteria` from log p(x_n) and r_nk."""
    weight = np.ones(len(log_density)) if sample_weight is None else sample_weight
    counts = weight > 0.0
    scores = penalised(float(weight[counts] @ log_density[counts]), n_parameters, float(np.sum(weight)))
    return scores | {"icl": scores["bic"] - 2.0 * float(weight @ np.log(np.max(responsibilities, axis=1)))}


def penalised(log_likelihood: float, n_parameters: int, n_samples: float) -> dict[str, float]:
    """Information criteria that need no pass over the rows: those of `information_criteria` but ICL."""
    bic = -2.0 * log_likelihood + n_parameters * math.log(n_samples)
    aic = 2.0 * n_parameters - 2.0 * log_likelihood
    return {"log_likelihood": log_likelihood, "n_parameters": n_parameters, "aic": aic, "bic": bic}


class LeaveOneOut(NamedTuple):
    """Σ_n log p(x_n | all other rows), nats, and by point."""

    elpd: float
    standard_error: float  # of elpd as an estimate for new data: √N times the sd of its terms
    pointwise: Float[np.ndarray, "N"]
    pareto_k: Float[np.ndarray, "N"]
    refitted: Bool[np.ndarray, "N"]  # rows whose term comes from draws without them

    @property
    def unreliable(self) -> Bool[np.ndarray, "N"]:
        """Rows whose term is not to be trusted: k̂ above 0.7, and not refitted."""
        return ~(self.pareto_k <= K_HAT_LIMIT) & ~self.refitted


def leave_one_out(
    posterior: Posterior, x: Float[np.ndarray, "N D"], *, refit: Callable[[int], Posterior] | None = None
) -> LeaveOneOut:
    """Pareto-smoothed importance sampling of the likelihood that is marginalised over labels.

    Args:
        refit: n -> a posterior without row n, under the same prior; called for rows with k̂ above 0.7. Without it they
            are only flagged. With labels in the likelihood most rows would be: p(x_n | z_n, θ) has heavy weights.

    Raises:
        NotSupported: the draws were made with the labels of some rows.
    """
    from arviz_stats.base import array_stats

    refuse_labels(check_posterior(posterior))
    x = check_width(x, "x", posterior.draws)
    log_likelihood = np.moveaxis(pointwise(posterior.draws, x), -1, 0)  # (N, C, S)
    with np.errstate(divide="ignore", invalid="ignore"):  # where the tail is lost
        found = array_stats.loo(log_likelihood, chain_axis=1, draw_axis=2)
    terms, pareto_k = (np.array(values, float) for values in found[:2])
    pareto_k = np.where(tail_is_lost(-log_likelihood.reshape(len(terms), -1)), np.inf, pareto_k)
    flagged = ~(pareto_k <= K_HAT_LIMIT)
    refitted = flagged & (refit is not None)
    for n in np.flatnonzero(refitted):
        terms[n] = refit(int(n)).log_predictive(x[n : n + 1])[0]
    error = math.sqrt(terms.size) * float(np.std(terms, ddof=1))
    return LeaveOneOut(float(terms.sum()), error, terms, pareto_k, refitted)
