"""Optima: which fits reached the same one, which may be called best, and what was not seen.

A mixture's likelihood is unbounded, so the highest value is not the best fit: `spurious` says what is no local maximum
or is degenerate, and among the others `criterion` ranks (see em/criterion.py).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ..mixture import Status, check_data, check_labels, check_sample_weight, e_step, structure
from ..mixture.gmm import GMM, variances_of
from ..mixture.match import distance
from ..mixture.programs import jit
from ..mixture.spec import MixtureSpec, free_parts, validate_spec
from ..problems.checks import dependent_columns
from .m_step import m_step

SAME_COST = 1e-3  # two optima are one where their matched components differ by less than this in total
SAME_COMPONENT = 1e-3  # two components are one where means and covariances differ by less, in units of their sds
REPEATED = 1e-5  # relative variance below which samples repeat one value
ONE_MORE = 0.9  # sample: of what belongs to a component wholly a little is shared
FEW = 10  # samples that repeat one value are a component of their own if they are so many times D + 1
LARGEST_SHIFT = 0.05  # at a stationary point an EM step without a ridge widens no Σ_k, and moves no μ_k, by more
LARGEST_HELD = 0.5  # share of a variance of Σ_k that a ridge may add: by so much Σ_k shrinks in an EM step without it


class Optima(NamedTuple):
    """The distinct optima up to permutation, highest likelihood first; only of fits that were run to their end."""

    gmm: GMM  # leading axis: optima
    log_likelihood: Float[np.ndarray, "M"]
    criterion: Float[np.ndarray, "M"]  # what ranks them, nats: the best is the largest of those that are not spurious
    count: Int[np.ndarray, "M"]  # fits that reached it from their starts: 0 where only swaps led to it
    spurious: Bool[np.ndarray, "M"]  # degenerate, or no local maximum of the likelihood
    reason: np.ndarray  # (M,) of str: why it is spurious, "" where it is not
    fit: Int[np.ndarray, "M"]  # the highest fit of it, -1 where only swaps led to it
    of_fit: Int[np.ndarray, "R"]  # which optimum each fit reached, -1 for none


class Unseen(NamedTuple):
    """The share of starts of this kind that would lead to an optimum not yet seen; no chance of a global optimum."""

    estimate: float
    upper: float  # 95 % bound
    n_starts: int  # that it rests on: run to their end, chosen without looking


def spurious(
    x: Float[np.ndarray, "N D"],
    gmm: GMM,
    spec: MixtureSpec,
    *,
    sample_weight: Float[np.ndarray, "N"] | None = None,
    labels: Int[np.ndarray, "N"] | None = None,
    largest_shift: float = LARGEST_SHIFT,
) -> str:
    """Why this fit cannot be called a maximum-likelihood optimum of x, or "" where it can.

    With m the fewest samples that determine a covariance of this structure (D + 1 if full, 2 if diagonal or spherical,
    1 if tied, or known) it cannot if

    - a free component has n·φ_k < m + 0.9, fewer than m + 1 samples ("tiny component");
    - it is not stationary without regularisation: one EM step moves a free μ_k by more than largest_shift standard
      deviations, or in some direction a free Σ_k grows by more than that share, or shrinks by more than half, so that
      regularisation made most of it. A Σ_k that shrinks is allowed where at least 10·m samples repeat one value (a
      variance below 1e-5 of the data's): zeros are a component of their own;
    - two components coincide that the data could tell apart: a saddle point.

    All are invariant under the maps that the structure allows. Made for fits of any program, in the units of x;
    `labels` of rows as in fit_em_restarts.
    """
    x = np.asarray(check_data(x), float)
    spec = validate_spec(spec, x.shape[1])
    weight = check_sample_weight(sample_weight, x.shape[0])
    gmm = jax.tree.map(lambda leaf: np.asarray(leaf, float), gmm)
    labels = check_labels(labels, x.shape[0], spec.n_components)
    after = jax.tree.map(np.asarray, _em_step(x, gmm, spec.known, weight, labels))
    n_samples = x.shape[0] if weight is None else float(np.sum(weight))
    spread = np.cov(x.T, bias=True, aweights=weight).reshape(x.shape[1], -1)
    one = jax.tree.map(lambda leaf: leaf[None], (gmm, after))
    return str(reasons(*one, spec, spread, n_samples, largest_shift)[0])


@jit
def _em_step(x, gmm, known, weight, labels):
    return m_step(e_step(gmm, x, weight, labels=labels, sums="exact"), gmm, known=known)


def reasons(gmms, after, spec, spread, n_samples, largest_shift=LARGEST_SHIFT, *, settled=True):
    """(M,) of str: see `spurious`. `after` are the mixtures after one EM step without a ridge, None: not asked.

    `spread` is S, (D, D) or one for each mixture, and n_samples a number or (M, 1). `settled`: which of them say that
    they are stationary.
    """
    _, free_means, free_covariances = free_parts(spec)
    # that determine a covariance of that structure together with a mean
    least = {"full": spread.shape[-1] + 1, "tied": 1}.get(gmms.covariance_type, 2)
    count = n_samples * np.asarray(gmms.weights, float)
    tiny = (count < np.where(free_covariances, least, 1) + ONE_MORE) & (free_means | free_covariances)
    reason = np.where(tiny.any(axis=1), "tiny component", "").astype(object)
    if not reason.size or not np.any(spread):
        return reason
    support = count if structure(gmms.covariance_type).per_component else np.broadcast_to(n_samples, count.shape)
    if after is not None:
        shrinks, grows, moved = _changes(gmms, after, spread)
        repeats = (support >= FEW * least) & (relative_variances(gmms, spread)[..., 0] < REPEATED)
        held = np.where(free_covariances & ~repeats, shrinks, 0.0)
        shift = np.maximum(np.where(free_covariances, grows, 0.0), np.where(free_means, moved, 0.0))
        still = ((shift <= largest_shift) & (held <= LARGEST_HELD)).all(axis=1)  # NaN is not still
        still |= ~np.asarray(settled)
        reason[~still & (reason == "")] = "not stationary"
        reason[_coincide(gmms, spec) & (reason == "")] = "coinciding components"
    return reason


def relative_variances(gmms: GMM, spread: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "M K d"]:
    """Variances of component k in those of the data, S = spread, smallest first: see `spurious`.

    Directions without spread count as 1, or as infinite if diagonal; d is 1 for spherical ones, else D.
    """
    if gmms.covariance_type in ("diag", "spherical"):
        own = np.diagonal(spread, axis1=-2, axis2=-1)
        if gmms.covariance_type == "spherical":
            return np.asarray(gmms.covariances, float)[..., None] / own.mean(axis=-1)[..., None, None]
        has = _varies(spread)
        ratio = np.asarray(gmms.covariances, float) / np.where(has, own, 1.0)[..., None, :]
        return np.sort(np.where(has[..., None, :], ratio, np.inf), axis=-1)
    return np.linalg.eigvalsh(_whitened(_dense(gmms), _root(spread)))


def _varies(spread):
    """(..., D): features with a spread; the others have a variance of reg_covar's, which says nothing."""
    own = np.diagonal(spread, axis1=-2, axis2=-1)
    return own > 1e-10 * own.max(axis=-1, keepdims=True)


def _changes(gmms, after, spread):
    """(M, K) each: by what share Σ_k shrinks and grows in some direction, and by how many sds μ_k moves."""
    step = np.asarray(after.means, float) - np.asarray(gmms.means, float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if gmms.covariance_type in ("diag", "spherical"):
            old, new = variances_of(gmms), variances_of(after)
            varies = _varies(spread)[..., None, :] | (gmms.covariance_type == "spherical")
            ratio, moved = np.where(varies, new / old, 1.0), np.sqrt(np.sum(step * step / old, axis=-1))
        else:
            root = _root(spread)
            values, vectors = np.linalg.eigh(_whitened(_dense(gmms), root))
            own = vectors / np.sqrt(np.maximum(values, np.finfo(float).tiny))[..., None, :]  # whitens component k
            ratio = np.linalg.eigvalsh(_whitened(_whitened(_dense(after), root), own))
            moved = np.linalg.norm((step[..., None, :] @ root @ own)[..., 0, :], axis=-1)
    return 1.0 - ratio.min(axis=-1), ratio.max(axis=-1) - 1.0, moved


def _coincide(gmms, spec):
    """(M,): whether two components are one and the same Gaussian although free means or covariances could differ."""
    kind = structure(gmms.covariance_type)
    _, free, free_covariances = free_parts(spec)
    free = free | free_covariances if kind.per_component else free
    means, covariances = np.asarray(gmms.means, float), np.asarray(gmms.covariances, float)
    variances = kind.variances(covariances)
    deviations = np.broadcast_to(np.sqrt(variances if kind.per_component else variances[:, None]), means.shape)
    found = np.zeros(len(means), bool)
    for i, j in np.argwhere(np.triu(free[:, None] | free[None], 1)):
        one = (np.abs(means[:, i] - means[:, j]) <= SAME_COMPONENT * deviations[:, i]).all(axis=-1)
        if kind.per_component and one.any():
            unit = deviations[:, i, :, None] * deviations[:, i, None, :] if covariances.ndim == 4 else covariances[:, i]
            alike = np.abs(covariances[:, i] - covariances[:, j]) <= SAME_COMPONENT * unit
            one &= alike.reshape(len(means), -1).all(axis=-1)
        found |= one
    return found


def _root(spread):
    """R with R Rᵀ = S⁻¹, (D, D) or of each mixture (M, 1, D, D); columns of zeros for directions without spread."""
    values, vectors = np.linalg.eigh(spread)
    has = values > 1e-10 * values.max(axis=-1, keepdims=True)
    root = vectors * (has / np.sqrt(np.where(has, values, 1.0)))[..., None, :]
    return root if spread.ndim == 2 else root[:, None]


def _whitened(matrices, root):
    """Rᵀ Σ R: as S⁻¹Σ, made symmetric; 1 in directions that R leaves out."""
    left_out = ~root.any(axis=-2)
    return np.swapaxes(root, -1, -2) @ matrices @ root + left_out[..., None] * np.eye(root.shape[-1])


def _dense(gmms):
    """(M, K, D, D) in NumPy; what is not finite becomes 0, which no rule lets pass."""
    dense = structure(gmms.covariance_type).dense(np.asarray(gmms.covariances, float), *gmms.means.shape[-2:])
    return np.where(np.isfinite(dense), dense, 0.0)


def eligible(fits) -> Bool[np.ndarray, "R"]:
    """Fits whose parameters may be used: CONVERGED or MAX_ITER (or interrupted), with a finite likelihood."""
    usable = np.isin(fits.status, (Status.CONVERGED, Status.MAX_ITER, Status.RUNNING))
    return usable & np.isfinite(fits.log_likelihood)


def same_mixture(gmms, references, among, spec) -> Bool[np.ndarray, "..."]:
    """Which of `among` equal their reference up to a permutation of components; see match_cost for the axes."""
    same, rows = np.zeros(among.shape, bool), np.nonzero(among)
    if not rows[0].size:
        return same
    lead = rows[: references.means.ndim - 2]
    same[rows] = distance(pick(gmms, rows), pick(references, lead) if lead else references, spec) < SAME_COST
    return same


def distinct(fits, spec, n_samples) -> tuple[Int[np.ndarray, "M"], Int[np.ndarray, "R"]]:
    """Walk down the likelihood, and give each eligible fit to the first optimum that it equals: (fit, of_fit)."""
    log_likelihood = np.asarray(fits.log_likelihood, float)
    left = eligible(fits)
    of_fit = np.full(left.shape, -1)
    found = []
    while left.any():
        fit = int(np.argmax(np.where(left, log_likelihood, -np.inf)))
        near = left & (np.abs(log_likelihood - log_likelihood[fit]) <= 1e-3 * n_samples)
        near[fit] = False
        same = same_mixture(fits.gmm, pick(fits.gmm, fit), near, spec)
        same[fit] = True
        of_fit[same] = len(found)
        found.append(fit)
        left &= ~same
    return np.array(found, int), of_fit


def unseen(of_fit: Int[np.ndarray, "R"]) -> Unseen:
    """Good–Turing: as many starts of 100 lead to something new as of the last 100 led to what was seen once.

    The bound is the larger of Esty's (normal) and of the exact one for a share that no start has hit.

    References:
        Good (1953), Biometrika 40; Esty (1983), Annals of Statistics 11.
    """
    seen = of_fit[of_fit >= 0]
    if not seen.size:
        return Unseen(1.0, 1.0, 0)
    times = np.bincount(np.unique(seen, return_counts=True)[1], minlength=3)
    n, once, twice = seen.size, float(times[1]), float(times[2])
    error = np.sqrt(once * (1.0 - once / n) + 2.0 * twice) / n
    upper = max(once / n + 1.645 * error, 1.0 - 0.05 ** (1.0 / n))
    return Unseen(once / n, min(upper, 1.0), n)


def pick(tree, index):
    """The same pytree, every leaf indexed."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def choose(which: Bool[np.ndarray, "M"], new, old):
    """The same pytree: rows of `new` where `which`, of `old` elsewhere."""

    def chosen(a, b):
        return np.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(chosen, new, old)


# ---- in words

REMEDIES = {
    "not stationary": "it is held only by regularisation: lower reg_covar",
    "tiny component": "lower n_components, or pass a prior",
    "coinciding components": "it is a saddle point: choose another init, or lower n_components",
}


def message_of(fits, status: Status, of_best: int, optima: Optima, remarks: Sequence[str]) -> str:
    """How a search ended, in sentences: the best fit's status, what was set aside and why, and the remarks."""
    sentences = [status.advice]
    failed = int(np.sum(~eligible(fits)))
    if failed and failed < fits.status.size:
        sentences.append(f"{failed} of {fits.status.size} fits failed")
    if of_best >= 0 and optima.spurious[of_best]:
        why = str(optima.reason[of_best])
        sentences.append(f"every optimum is spurious, this one because of: {why} ({REMEDIES[why]})")
    elif of_best > 0:
        why, gap = str(optima.reason[0]), float(optima.log_likelihood[0] - optima.log_likelihood[of_best])
        lost = float(optima.criterion[of_best] - optima.criterion[0])
        less = f"it is {lost:.3g} nats less probable by the criterion (criterion='likelihood' would return it)"
        aside = f"because of: {why} ({REMEDIES[why]})" if why else f"because {less}"
        sentences.append(f"a fit that is {gap:.4g} nats higher was set aside {aside}; it is the first of optima")
    return "; ".join([*sentences, *remarks]) + "."


def remarks_of(gmm: GMM, data) -> list[str]:
    """What should be known of the data and of the best mixture, standardised, besides its status."""
    return [*data.scaling.remarks, *(_dependence(data) or _as_narrow_as_the_ridge(gmm, data))]


def _dependence(data):
    """A sentence where features are linearly dependent and covariances are estimated that this makes singular."""
    with_correlations = data.spec.covariance_type in ("full", "tied") and free_parts(data.spec)[2].any()
    columns = dependent_columns(data.spread) if with_correlations and data.prior is None else ()
    depends = f"x is linearly dependent in columns {data.scaling.named(columns)}: covariances are singular, and the "
    return [depends + "log-likelihood is decided by reg_covar: drop one of them"] if columns else []


def _as_narrow_as_the_ridge(gmm, data):
    """A sentence where samples that repeat one value, or lie in a plane, are a component of their own."""
    if data.prior is not None or data.scaling.constant or not np.any(data.config.reg_covar):
        return []
    covariances = np.asarray(gmm.covariances, float)
    full = gmm.covariance_type in ("full", "tied")
    variances = np.linalg.eigvalsh(covariances) if full else covariances.reshape(len(covariances), -1)
    least = np.broadcast_to(variances.min(axis=-1), gmm.weights.shape)
    narrow = np.flatnonzero((least <= 2.0 * np.max(data.config.reg_covar)) & free_parts(data.spec)[2])
    if not narrow.size:
        return []
    where = f"in component(s) {', '.join(map(str, narrow))} (from 0) samples repeat one value or lie in a plane"
    return [f"{where}: only reg_covar bounds the log-likelihood there, so compare it only at the same reg_covar"]
