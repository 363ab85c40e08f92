r"""Which of several local maxima of the likelihood is the best estimate: the one of largest approximate evidence.

A mixture's likelihood is unbounded, and the highest of its local maxima is often one that follows noise. They are
ranked by Laplace's approximation of what each contributes to the evidence under the default prior,

    ℓ(θ) + log p(θ) − ½ log |I(θ)|,

in which the information I is that of labelled samples, n φ_k + ν in component k: blocks for φ, each μ_k and each Σ_k.
So a component costs more the less it resembles the others, without any threshold. It is free of the parametrisation,
since p/√|I| is a density with respect to the invariant measure, and of the units of the features.

The likelihood of rounded data is that of points in place of cells: a component much narrower than the spacing δ of a
feature's values gains from it without bound. Each Σ_k is therefore widened by δ²/12, the variance of rounding, and ℓ
falls by what that costs (the expected log-likelihood of the samples of component k).

References:
    Wallace & Freeman (1987), JRSS B 49, for √|I|; Figueiredo & Jain (2002), IEEE PAMI 24, for labelled samples in it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.special import multigammaln

from ..mixture.annotations import Annotations
from ..mixture.gmm import GMM
from ..mixture.moments import e_step
from ..mixture.programs import jit
from ..mixture.records import Status
from ..mixture.scaling import check_data, check_labels, check_sample_weight, standardise
from ..mixture.spec import MixtureSpec, free_parts, validate_spec
from .fit import EMResult, ended, result_of
from .inputs import Data
from .m_step import m_step
from .optima import eligible, reasons

CRITERIA = ("evidence", "likelihood")
SAME_WORTH = 1e-2  # nats
EXTRA = 1.0  # degrees of freedom ν of a covariance beyond its dimension, as in bayes.default_prior
REPEATS = 1e-6  # values of a feature that differ by less, in its sds, are one value
TINY = np.finfo(float).tiny


def criterion(
    x: Float[np.ndarray, "N D"],
    gmm: GMM,
    spec: MixtureSpec,
    *,
    sample_weight: Float[np.ndarray, "N"] | None = None,
    labels: Int[np.ndarray, "N"] | None = None,
) -> float:
    """What ranks this fit among others of x with the same spec, nats, up to a constant that x and spec decide.

    For fits of any program, in the units of x: larger is better, -inf where a covariance is singular. It is meant for
    local maxima of the likelihood (`em.spurious` says what is none) and for one number of components; for the choice
    of that see `judge.choose_components`. `labels` of rows as in fit_em_restarts.
    """
    x = check_data(x)
    spec, weight = validate_spec(spec, x.shape[1]), check_sample_weight(sample_weight, len(x))
    labels = check_labels(labels, len(x), spec.n_components)
    if gmm.covariance_type != spec.covariance_type or np.shape(gmm.means) != (spec.n_components, x.shape[1]):
        found = f"{gmm.covariance_type} covariances and means of shape {np.shape(gmm.means)}"
        raise ValueError(f"gmm has {found}, which does not fit spec and x: pass the spec that it was fitted with.")
    z, scaling = standardise(x, spec, weight)
    inner = jax.tree.map(lambda leaf: np.asarray(leaf)[None].astype(z.dtype), scaling.inward(gmm))
    value = _log_likelihood(jax.tree.map(lambda leaf: leaf[0], inner), z, weight, labels)
    n_samples = len(x) if weight is None else float(np.sum(weight))
    rows = z if weight is None else z[weight > 0.0]
    total = evidence_of(inner, np.asarray(value, float)[None], spec, n_samples, spacing_of(rows)[None])
    return float(total[0] - scaling.log_volume_of(n_samples, Annotations(weight, labels)))


@jit
def _log_likelihood(gmm, z, weight, labels):
    return e_step(gmm, z, weight, labels=labels, sums="exact").log_likelihood


def evidence_of(
    gmms: GMM,
    log_likelihood: Float[np.ndarray, "M"],
    spec: MixtureSpec,
    n_samples: float | Float[np.ndarray, "M 1"],
    spacing: Float[np.ndarray, "D"] | Float[np.ndarray, "M D"],
) -> Float[np.ndarray, "M"]:
    """The criterion (nats) of standardised mixtures with leading axis M, up to a constant that is the same for all.

    Args:
        spacing: δ of each standardised feature, see `spacing_of`; 0 where values are not rounded.

    -inf where a covariance is singular. What is known costs nothing.
    """
    free_weights, free_means, free_covariances = free_parts(spec)
    weights, means = np.maximum(np.asarray(gmms.weights, float), TINY), np.asarray(gmms.means, float)
    count, n_features = n_samples * weights, means.shape[-1]
    blocks, copies = _blocks(gmms)
    size = blocks.shape[-1]
    tied, nu = gmms.covariance_type == "tied", size + EXTRA
    free = free_covariances[:1] if tied else free_covariances
    with np.errstate(all="ignore"):
        log_det, precision = np.linalg.slogdet(blocks)[1], _inverse(blocks)
        rounding = copies * _cost_of_rounding(blocks, log_det, spacing)  # (M, K or 1) of one sample
        total = log_likelihood - np.sum(count * rounding, axis=-1)
        if free_weights.sum() > 1:
            total += 0.5 * np.log(weights) @ free_weights
        information = n_features * np.log(count + nu) - copies * log_det.sum(axis=-1)
        total -= (0.125 * np.sum(means * means, axis=-1) + 0.5 * information) @ free_means  # μ_k ~ N(0, 2²)
        information = -(size + 1.0) * log_det
        if not tied:
            information += 0.5 * size * (size + 1.0) * np.log(count + nu)[..., None]
        total -= 0.5 * information.sum(axis=-1) @ free
        scale = nu / size * gmms.n_components ** (-2.0 / n_features)
        total += _log_prior(log_det[:, free], precision[:, free], nu, scale).sum(axis=-1)
    return np.where(np.isfinite(total), total, -np.inf)


def spacing_of(z: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "D"]:
    """δ, the least difference between two values of each feature where some are repeated, else 0: they are not rounded.

    A feature whose values are all one has none.
    """
    spacing = np.zeros(z.shape[1])
    for d, column in enumerate(np.asarray(z, float).T):
        values = np.sort(column[np.isfinite(column)])
        steps = np.diff(values)
        apart = steps > REPEATS * max(1.0, *np.abs(values[[0, -1]])) if steps.size else np.zeros(0, bool)
        if apart.any() and not apart.all():
            spacing[d] = steps[apart].min()
    return spacing


class Ranking:
    """Which of the fits of data sets, equally many of each, may be called best, and which is."""

    def __init__(self, data: Sequence[Data], criterion: str):
        self.data, self.by_evidence = data, criterion == "evidence" and data[0].prior is None
        self.spacing = np.stack([spacing_of(d.for_starts) for d in data]) if self.by_evidence else None

    def reasons(self, gmms: GMM, after: GMM | None, *, settled=True) -> np.ndarray:
        """(M,) of str: why fits are spurious. With a prior none is: none is singular."""
        first = self.data[0]
        if first.prior is not None:
            return np.full(len(gmms.weights), "", object)
        spread, n_samples = first.spread, first.n_samples
        if len(self.data) > 1:
            each = self._each(gmms)
            spread, n_samples = np.stack([d.spread for d in self.data])[each], self._n_samples(each)
        return reasons(gmms, after, first.inner, spread, n_samples, settled=settled)

    def worth(self, gmms: GMM, value: Float[np.ndarray, "M"], status: Int[np.ndarray, "M"]) -> Float[np.ndarray, "M"]:
        """By what fits are ranked, -inf where not finite: by the likelihood where none of a data set CONVERGED."""
        worth = np.where(np.isfinite(value), value, -np.inf).astype(float)
        if self.by_evidence:
            each = self._each(gmms)
            evidence = evidence_of(gmms, worth, self.data[0].inner, self._n_samples(each), self.spacing[each])
            converged = (status == Status.CONVERGED).reshape(len(self.data), -1).any(axis=1)
            worth = np.where(converged[each], evidence, worth)
        return worth

    def _each(self, gmms):
        return np.repeat(np.arange(len(self.data)), len(gmms.weights) // len(self.data))

    def _n_samples(self, each):
        return np.array([d.n_samples for d in self.data])[each, None]


class Judged(NamedTuple):
    """Fits of data sets, equally many of each and in one row, with what decides among them; standardised."""

    results: EMResult
    n_iter: Int[np.ndarray, "M"]  # iterations that moved it, past the best one, too
    value: Float[np.ndarray, "M"]  # log-likelihood, with a prior the log posterior
    worth: Float[np.ndarray, "M"]  # by what fits are ranked
    reason: np.ndarray  # (M,) of str: why a fit is spurious, "" where it is not

    @property
    def sound(self) -> Float[np.ndarray, "M"]:
        """What fits are worth, -inf where spurious."""
        return np.where(self.reason == "", self.worth, -np.inf)


def judged_fits(fits, ranking: Ranking) -> Judged:
    """Fits, equally many of each data set, as far as they have come, and what decides among them."""
    data, (state, trace) = ranking.data, fits.final()
    each = np.repeat(np.arange(len(data)), state.n_iter.size // len(data))
    known = jax.tree.map(lambda *leaves: np.stack(leaves)[each], *[d.inner.known for d in data])
    results, after = jax.tree.map(np.asarray, _results(state, trace, known))
    results = results._replace(trace=np.asarray(ended(results.trace, results.n_iter)))
    reason = ranking.reasons(results.gmm, after, settled=results.status == Status.CONVERGED)
    worth = ranking.worth(results.gmm, state.best_value, results.status)
    return Judged(results, state.n_iter, state.best_value, worth, reason)


@jit
def _results(state, trace, known):
    def one(fit, trace, known):
        # one EM step on without a ridge: the sums are there, so it costs no pass over data
        return result_of(fit, trace), m_step(fit.best.moments, fit.best.gmm, known=known)

    return jax.vmap(one)(state, trace, known)


def best_of(fits, worth: Float[np.ndarray, "... R"]) -> Int[np.ndarray, "..."]:
    """Which fit (last axis) is worth most, else the highest of eligible ones, else of finite ones.

    Fits at one optimum are worth the same to SAME_WORTH: of them it is the highest.
    """
    usable, value = eligible(fits), np.where(np.isfinite(fits.log_likelihood), fits.log_likelihood, -np.inf)
    worth = np.where(usable, worth, -np.inf)
    most = np.isfinite(worth) & (worth >= worth.max(axis=-1, keepdims=True) - SAME_WORTH)
    # of equal ones the first: lexsort is stable, so they are sorted backwards
    order = np.lexsort((value[..., ::-1], usable[..., ::-1], most[..., ::-1]), axis=-1)
    return value.shape[-1] - 1 - order[..., -1]


def _blocks(gmms):
    """Σ as independent blocks (M, K or 1, B, b, b), each of which stands for so many features."""
    covariances = np.asarray(gmms.covariances, float)
    if gmms.covariance_type == "spherical":
        return covariances[..., None, None, None], gmms.means.shape[-1]
    if gmms.covariance_type == "diag":
        return covariances[..., None, None], 1
    return (covariances[:, None, None] if gmms.covariance_type == "tied" else covariances[:, :, None]), 1


def _inverse(blocks):
    """Inverses; NaN where there is none."""
    good = np.isfinite(blocks).all(axis=(-2, -1)) & (np.linalg.slogdet(blocks)[0] > 0.0)
    inverse = np.linalg.inv(np.where(good[..., None, None], blocks, np.eye(blocks.shape[-1])))
    return np.where(good[..., None, None], inverse, np.nan)


def _cost_of_rounding(blocks, log_det, spacing):
    """(M, K or 1): by how much ½ (log |Σ + R| + tr (Σ + R)⁻¹ Σ) exceeds its value at R = 0, with R = diag(δ²/12)."""
    variance = np.broadcast_to(spacing, (len(blocks), np.shape(spacing)[-1])) ** 2 / 12.0
    if not variance.any():
        return np.zeros(log_det.shape[:-1])
    size = blocks.shape[-1]
    if size > 1:
        ridge = (variance[..., None] * np.eye(size))[:, None, None]
    else:
        by_block = variance if blocks.shape[2] == variance.shape[1] else variance.mean(axis=-1, keepdims=True)
        ridge = by_block[:, None, :, None, None]
    wide = blocks + ridge
    trace = np.sum(_inverse(wide) * blocks, axis=(-2, -1))
    return 0.5 * (np.linalg.slogdet(wide)[1] - log_det + trace - size).sum(axis=-1)


def _log_prior(log_det, precision, nu, scale):
    """(M, B): log density of K' blocks (M, K', B, b, b), each IW(ν, C₀), C₀ ~ Wishart(b, scale·I) integrated out."""
    n_blocks, size = precision.shape[1], precision.shape[-1]
    after = size + n_blocks * nu
    mean = np.eye(size) / scale + precision.sum(axis=1)
    constant = multigammaln(0.5 * after, size) - n_blocks * multigammaln(0.5 * nu, size)
    constant -= multigammaln(0.5 * size, size) + 0.5 * size * size * np.log(scale)
    return constant - 0.5 * (nu + size + 1.0) * log_det.sum(axis=1) - 0.5 * after * np.linalg.slogdet(mean)[1]
