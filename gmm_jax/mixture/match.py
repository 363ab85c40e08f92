"""Pair the components of two mixtures, whole components at once.

The cost of a pair is the Bhattacharyya distance of the two Gaussians plus (√φ − √φ′)²: φ, μ and Σ are never sorted
apart, so a swapped answer cannot pass. In NumPy: a program compiled for each shape costs more than it saves.
"""

from dataclasses import replace
from itertools import permutations

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from .checks import check_type
from .covariance import structure
from .gmm import GMM, mixture_of, permute, variances_of
from .spec import MixtureSpec, free_parts

AMBIGUOUS = 2.0  # a second pairing that costs less than so many times the best could as well be it
MOST_LISTED = 4  # components, whose K! pairings are listed
COST_NUMBERS = 1 << 20  # K²·D²·mixtures at a time: 8 MiB of float64


def match(gmm: GMM, reference: GMM, spec: MixtureSpec | None = None) -> Int[np.ndarray, "*batch K"]:
    """The permutation for which `permute(gmm, match(gmm, reference))` lies in the reference's order.

    Leading axes of `gmm` are kept; `reference` is one mixture. Of equally good pairings one is returned. With a spec,
    only components with identical Known rows are exchanged.
    """
    return assign(match_cost(gmm, reference, spec))


def align(gmm: GMM, reference: GMM, spec: MixtureSpec | None = None) -> GMM:
    """The same mixture(s) with components in the reference's order."""
    host = jax.tree.map(np.asarray, mixture_of(gmm))
    return permute(host, match(host, reference, spec))


@np.errstate(all="ignore")  # fits that failed may hold anything
def match_cost(gmm: GMM, reference: GMM, spec: MixtureSpec | None = None) -> Float[np.ndarray, "*batch K K"]:
    """cost[..., i, j] of pairing component i of `gmm` with component j of `reference`, never inf or NaN.

    Leading axes of `reference` are the first of `gmm`'s. Pairs without a finite cost cost more than all others
    together, and pairs that the spec forbids more than those.

    Reference:
        Bhattacharyya (1943), Bull. Calcutta Math. Soc. 35; closed form in Fukunaga (1990), ch. 3.
    """
    gmm, reference = mixture_of(gmm), mixture_of(reference, "reference")
    sizes = [np.shape(mixture.means)[-2:] for mixture in (gmm, reference)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"match needs mixtures of the same size; got {sizes[0]} and {sizes[1]} (components, columns).")
    batch, (n_components, n_features) = np.shape(gmm.means)[:-2], sizes[0]
    wanted = n_components if spec is None else check_type(spec, MixtureSpec, "spec", "that of the fit").n_components
    if wanted != n_components:
        raise ValueError(f"spec has {spec.n_components} components, but gmm has {n_components}: pass that of the fit.")
    flat = [_flat(mixture, batch) for mixture in (gmm, reference)]
    pair = _in_units_of(flat[1], *flat)
    costs = _diagonal_costs if gmm.covariance_type in ("diag", "spherical") else _matrix_costs
    at_once = max(1, COST_NUMBERS // (n_components * n_features * max(1, pair[0].covariances[:1].size)))
    blocks = [slice(first, first + at_once) for first in range(0, len(pair[0].means), at_once)]
    cost = [costs(*jax.tree.map(lambda leaf, rows=rows: leaf[rows], pair)) for rows in blocks]
    cost = np.concatenate(cost) if cost else np.zeros(0)
    cost = cost.reshape(*batch, n_components, n_components)
    finite = np.isfinite(cost)
    limit = 1.0 + n_components * np.max(np.where(finite, cost, 0.0), axis=(-2, -1), keepdims=True)
    cost = np.where(finite, cost, limit)
    return cost if spec is None else cost + n_components * limit * ~exchangeable(spec)


def assign(cost: Float[np.ndarray, "*batch K K"]) -> Int[np.ndarray, "*batch K"]:
    """For each column j the row that is paired with it, at the least total cost."""
    n_components = cost.shape[-1]
    if n_components <= MOST_LISTED:  # all at once, where scipy would be asked one by one
        orders = np.array(list(permutations(range(n_components))))
        return orders[np.argmin(np.sum(cost[..., orders, np.arange(n_components)], axis=-1), axis=-1)]
    from scipy.optimize import linear_sum_assignment

    flat = cost.reshape(-1, n_components, n_components)
    order = np.array([linear_sum_assignment(c.T)[1] for c in flat], int)
    return order.reshape(cost.shape[:-1])


def ambiguous(cost: Float[np.ndarray, "B K K"], order: Int[np.ndarray, "B K"]) -> Bool[np.ndarray, "B"]:
    """Whether the best pairing that differs somewhere from `order` costs less than twice as much."""
    if cost.shape[-1] == 1:
        return np.zeros(len(cost), bool)
    second = np.full(len(cost), np.inf)
    for j in range(cost.shape[-1]):  # a pairing that differs pairs some j otherwise
        barred = np.array(cost)
        barred[np.arange(len(cost)), order[:, j], j] += 1.0 + np.sum(cost, axis=(-2, -1))
        second = np.minimum(second, _total(cost, assign(barred)))
    return second < AMBIGUOUS * _total(cost, order)


def distance(gmm: GMM, reference: GMM, spec: MixtureSpec | None = None) -> Float[np.ndarray, "*batch"]:
    """Total cost of the best pairing: 0 where only the order differs, at least 1 for what is not finite."""
    cost = match_cost(gmm, reference, spec)
    return _total(cost, assign(cost))


def _total(cost, order):
    return np.sum(np.take_along_axis(cost, order[..., None, :], axis=-2), axis=(-2, -1))


def exchangeable(spec: MixtureSpec) -> Bool[np.ndarray, "K K"]:
    """Whether two components have the same Known rows."""
    leaves = list(zip(jax.tree.leaves(spec.known, is_leaf=lambda leaf: leaf is None), free_parts(spec), strict=True))
    own = leaves if structure(spec.covariance_type).per_component else leaves[:2]
    rows = [np.where(free, np.inf, np.reshape(leaf, (free.size, -1)).T) for leaf, free in own if leaf is not None]
    table = np.concatenate([np.zeros((0, spec.n_components)), *rows]).T
    return (table[:, None, :] == table[None, :, :]).all(axis=-1)


def distinguished(spec: MixtureSpec, labels: Int[np.ndarray, "N"] | None) -> MixtureSpec:
    """The spec for `match` where labels name components: a named one is exchanged with none."""
    if labels is None:
        return spec
    known = np.full(spec.n_components, np.nan) if spec.known.weights is None else np.array(spec.known.weights, float)
    named = np.unique(labels[labels >= 0])
    known[named] = 2.0 + named  # no weight is: all differ from each other, and from all others
    return replace(spec, known=replace(spec.known, weights=known))


def _flat(gmm, batch):
    """float64 NumPy, one leading axis in place of `batch`, of which gmm has the first axes."""
    lead = np.ndim(gmm.means) - 2
    missing = (1,) * (len(batch) - lead)

    def fill(leaf):
        leaf = np.asarray(leaf, float)
        own = leaf.shape[lead:]
        return np.broadcast_to(leaf.reshape(leaf.shape[:lead] + missing + own), batch + own).reshape(-1, *own)

    return jax.tree.map(fill, gmm)


def _in_units_of(references, *many):
    """The mixtures about their reference's centre, in one common unit of its spread.

    The costs do not change with location and scale, but float32 (while x64 is off) cannot hold an offset of 1e8.
    """
    centre = np.mean(references.means, axis=1, keepdims=True)
    unit = 1.0 / np.sqrt(np.max(np.abs(variances_of(references)), axis=(1, 2)))

    def moved(gmms):
        square = (unit**2).reshape(-1, *[1] * (gmms.covariances.ndim - 1))
        means = (gmms.means - centre) * unit[:, None, None]
        return replace(gmms, means=means, covariances=gmms.covariances * square)

    return [moved(gmms) for gmms in many]


def _matrix_costs(gmms, references):
    """(B, K, K): ⅛ dᵀ Σ̄⁻¹ d + ½ log(|Σ̄| / √(|Σ_p| |Σ_q|)) with Σ̄ the mean of the two covariances, and the weights'."""
    a, b = (structure(g.covariance_type).dense(g.covariances, *g.means.shape[-2:]) for g in (gmms, references))
    roots = [_cholesky(each) for each in (0.5 * (a[:, :, None] + b[:, None]), a, b)]
    z = np.linalg.solve(roots[0], (gmms.means[:, :, None] - references.means[:, None])[..., None])
    halves = (np.sum(np.log(np.diagonal(each, axis1=-2, axis2=-1)), axis=-1) for each in roots)
    return _total_cost(gmms, references, np.sum(z**2, axis=(-2, -1)), *halves)


def _cholesky(matrices):
    """NaN where a matrix is not positive definite: which one it was, LAPACK does not say."""
    try:
        return np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        flat = matrices.reshape(-1, *matrices.shape[-2:])
        half = len(flat) // 2
        parts = [_cholesky(flat[:half]), _cholesky(flat[half:])] if half else [np.full_like(flat, np.nan)]
        return np.concatenate(parts).reshape(matrices.shape)


def _diagonal_costs(gmms, references):
    """Without the zeros off the diagonal, of which there may be millions."""
    a, b = variances_of(gmms), variances_of(references)
    middle = 0.5 * (a[:, :, None] + b[:, None])
    z = np.sum((gmms.means[:, :, None] - references.means[:, None]) ** 2 / middle, axis=-1)
    return _total_cost(gmms, references, z, *(0.5 * np.sum(np.log(each), axis=-1) for each in (middle, a, b)))


def _total_cost(gmms, references, squared_distance, half, half_a, half_b):
    """(B, K, K) from dᵀ Σ̄⁻¹ d and ½ log |Σ| of Σ̄ and of each mixture's own."""
    weights = (np.sqrt(gmms.weights)[:, :, None] - np.sqrt(references.weights)[:, None]) ** 2
    return 0.125 * squared_distance + half - 0.5 * (half_a[:, :, None] + half_b[:, None]) + weights
