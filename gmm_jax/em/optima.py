"""Optima: which lanes reached the same one, which may be called best, and what was not seen.

A mixture's likelihood is unbounded, so the highest value is not the best fit: see `spurious`, the one rule that
every ranking uses.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ..mixture import (
    GMM,
    MixtureSpec,
    Status,
    assign,
    check_data,
    check_labels,
    check_sample_weight,
    e_step,
    free_parts,
    match_cost,
    structure,
    validate_spec,
)
from .m_step import m_step

SAME_COST = 1e-3  # two optima are one where their matched components differ by less than this in total
NARROWEST = 1e-3  # least eigenvalue of S⁻¹Σ_k where few samples support component k
COMPARED = 1024  # mixtures at a time
FEW = 10  # "few" are fewer than so many times D + 1
LARGEST_SHIFT = 0.05  # at a stationary point an EM step without a ridge changes no Σ_k and no μ_k by more, relatively


class Optima(NamedTuple):
    """The distinct optima up to permutation, highest likelihood first; only of lanes that were run to their end."""

    gmm: GMM  # leading axis: optima
    log_likelihood: Float[np.ndarray, "M"]
    count: Int[np.ndarray, "M"]  # lanes that reached it
    spurious: Bool[np.ndarray, "M"]  # spurious: an artefact of the unbounded likelihood
    reason: np.ndarray  # (M,) of str: why it is spurious, "" where it is not
    fit: Int[np.ndarray, "M"]  # the highest fit of it
    of_fit: Int[np.ndarray, "R"]  # which optimum each lane reached, -1 for none


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
    narrowest: float = NARROWEST,
    few: float = FEW,
    largest_shift: float = LARGEST_SHIFT,
) -> str:
    """Why this fit cannot be called a maximum-likelihood optimum of x, or "" where it can.

    It cannot if it is not stationary without regularisation (one EM step moves a free μ_k by more than largest_shift
    standard deviations, or changes a free Σ_k by more than that share in some direction), if a free component has
    n·φ_k ≤ D + 1, or if some eigenvalue of S⁻¹Σ_k, with S the covariance of x, is below `narrowest` while
    n·φ_k < few·(D + 1). All three are affine invariant. A tight component that many samples support is real. Made for
    fits of any program, in the units of x; `labels` of rows as in fit_em_restarts.

    Reference:
        Hathaway (1985), Annals of Statistics 13, for the constraint on relative eigenvalues.
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
    return str(reasons(*one, spec, spread, n_samples, narrowest, few, largest_shift)[0])


@jax.jit
def _em_step(x, gmm, known, weight, labels):
    return m_step(e_step(gmm, x, weight, labels=labels, sums="exact"), gmm, known=known)


def reasons(gmms, after, spec, spread, n_samples, narrowest=NARROWEST, few=FEW, largest_shift=LARGEST_SHIFT):
    """(M,) of str: see `spurious`. `after` are the mixtures after one EM step without a ridge, None: not asked.

    `spread` is S, (D, D) or one for each mixture, and n_samples a number or (M, 1).
    """
    n_features = spread.shape[-1]
    _, free_means, free_covariances = free_parts(spec)
    count = n_samples * np.asarray(gmms.weights, float)
    tiny = (count <= n_features + 1) & (free_means | free_covariances)
    reason = np.where(tiny.any(axis=1), "tiny component", "").astype(object)
    if not reason.size or not np.any(spread):
        return reason
    root = _root(spread)
    found = _whitened(_dense(gmms), root)
    narrow = (np.linalg.eigvalsh(found)[..., 0] < narrowest) & (count < few * (n_features + 1)) & free_covariances
    reason[narrow.any(axis=1) & (reason == "")] = "near-singular component"
    if after is not None:
        values, vectors = np.linalg.eigh(found)
        own = vectors / np.sqrt(np.maximum(values, np.finfo(float).tiny))[..., None, :]  # whitens component k
        ratio = np.linalg.eigvalsh(_whitened(_whitened(_dense(after), root), own))
        step = (np.asarray(after.means, float) - np.asarray(gmms.means, float))[..., None, :] @ root @ own
        moved = np.linalg.norm(step[..., 0, :], axis=-1)
        shift = np.maximum(
            np.where(free_covariances, np.abs(ratio - 1.0).max(axis=-1), 0.0), np.where(free_means, moved, 0.0)
        )
        still = (shift <= largest_shift).all(axis=1)  # NaN is not still
        reason[~still & (reason == "")] = "not stationary"
    return reason


def relative_eigenvalues(gmms: GMM, spread: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "M K d"]:
    """Eigenvalues of S⁻¹Σ_k, S = spread, smallest first: variances of component k in those of the data.

    Directions without spread are left out; d is how many there are else.
    """
    return np.linalg.eigvalsh(_whitened(_dense(gmms), _root(spread)))


def _root(spread):
    """R with R Rᵀ = S⁻¹, (D, d) without the directions of no spread, or of each mixture (M, 1, D, D)."""
    values, vectors = np.linalg.eigh(spread)
    root = vectors / np.sqrt(np.maximum(values, np.finfo(float).tiny))[..., None, :]
    return root[:, values > 1e-10 * values.max()] if spread.ndim == 2 else root[:, None]


def _whitened(matrices, root):
    """Rᵀ Σ R: as S⁻¹Σ, made symmetric."""
    return np.swapaxes(root, -1, -2) @ matrices @ root


def _dense(gmms):
    """(M, K, D, D) in NumPy; what is not finite becomes 0, which no rule lets pass."""
    dense = structure(gmms.covariance_type).dense(np.asarray(gmms.covariances, float), *gmms.means.shape[-2:])
    return np.where(np.isfinite(dense), dense, 0.0)


def eligible(lanes) -> Bool[np.ndarray, "R"]:
    """Lanes whose parameters may be used: CONVERGED or MAX_ITER (or interrupted), with a finite likelihood."""
    usable = np.isin(lanes.status, (Status.CONVERGED, Status.MAX_ITER, Status.RUNNING))
    return usable & np.isfinite(lanes.log_likelihood)


def same_mixture(gmms, references, among, spec) -> Bool[np.ndarray, "..."]:
    """Which of `among` equal their reference up to a permutation of components; see match_cost for the axes."""
    same, where = np.zeros(among.shape, bool), np.argwhere(among)
    lead, size = references.means.ndim - 2, min(among.size, COMPARED)  # always so many: one program serves
    for first in range(0, len(where), size):
        rows = tuple(np.resize(where[first : first + size], (size, among.ndim)).T)
        cost = match_cost(pick(gmms, rows), pick(references, rows[:lead]) if lead else references, spec)
        total = np.take_along_axis(cost, assign(cost)[:, None, :], axis=1).sum(axis=(1, 2))
        same[rows] = total < SAME_COST
    return same


def distinct(lanes, spec, n_samples) -> tuple[Int[np.ndarray, "M"], Int[np.ndarray, "R"]]:
    """Walk down the likelihood, and give each eligible lane to the first optimum that it equals: (lane, of_fit)."""
    log_likelihood = np.asarray(lanes.log_likelihood, float)
    left = eligible(lanes)
    of_fit = np.full(left.shape, -1)
    found = []
    while left.any():
        lane = int(np.argmax(np.where(left, log_likelihood, -np.inf)))
        near = left & (np.abs(log_likelihood - log_likelihood[lane]) <= 1e-3 * n_samples)
        near[lane] = False
        same = same_mixture(lanes.gmm, pick(lanes.gmm, lane), near, spec)
        same[lane] = True
        of_fit[same] = len(found)
        found.append(lane)
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
