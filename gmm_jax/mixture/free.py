"""The free numbers of a mixture as one vector θ: K − 1 of K free φ, the free μ, the lower triangles of the free Σ.

In their own units, not transformed: a mixture's leaves are linear in θ, and what is known is no part of it.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .annotations import Annotations, counts
from .cores import in_batches
from .covariance import structure
from .gmm import GMM, log_prob_of_rows
from .spec import MixtureSpec, free_parts

COLUMNS = 16  # directions at a time in which a density is differentiated


def static_masks(spec: MixtureSpec) -> tuple[tuple[bool, ...], ...]:
    """`free_parts` as tuples, which can be a static argument."""
    return tuple(tuple(bool(b) for b in mask) for mask in free_parts(spec))


def free_coordinates(gmm: GMM, masks):
    """(θ (p,), the function θ -> GMM); masks are static, so θ holds the free entries and nothing else."""
    free_weights, free_means, free_covariances = (np.array(mask) for mask in masks)
    weights_at = np.flatnonzero(free_weights)[:-1]
    last = np.flatnonzero(free_weights)[-1] if free_weights.any() else 0
    covariances = free_entries(gmm, free_covariances)
    parts = [gmm.weights[weights_at], gmm.means[free_means].reshape(-1), gmm.covariances[covariances]]
    cuts = np.cumsum([part.size for part in parts])

    def unpack(theta):
        weights = gmm.weights.at[weights_at].set(theta[: cuts[0]])
        others = jnp.sum(weights) - weights[last]
        if free_weights.any():
            weights = weights.at[last].set(1.0 - others)
        means = gmm.means.at[free_means].set(theta[cuts[0] : cuts[1]].reshape(-1, gmm.n_features))
        values = gmm.covariances.at[covariances].set(theta[cuts[1] :])
        if _is_matrix(gmm):
            swapped = (*covariances[:-2], covariances[-1], covariances[-2])
            values = values.at[swapped].set(theta[cuts[1] :])
        return replace(gmm, weights=weights, means=means, covariances=values)

    return jnp.concatenate(parts), unpack


def score_products(x: Float[Array, "N D"], gmm: GMM, masks, rows: Annotations | None = None) -> Float[Array, "p p"]:
    """Σ_n w_n s_n s_nᵀ with s_n = ∂ log p(x_n)/∂θ and w_n the rows' weights."""
    rows = Annotations() if rows is None else rows
    theta, unpack = free_coordinates(gmm, masks)

    def along(direction):
        return jax.jvp(lambda t: log_prob_of_rows(unpack(t), x, rows), (theta,), (direction,))[1]

    scores = each_direction(along, theta)
    weight = counts(rows, x.shape[0], x.dtype)
    return (scores if weight is None else scores * weight[None]) @ scores.T


def each_direction(along, theta: Float[Array, "P"]):
    """along(e_i) of the P unit vectors, with leading axis P.

    A few at a time: all at once hold p copies of every intermediate number.
    """
    return in_batches(along, jnp.eye(theta.size, dtype=theta.dtype), COLUMNS)


def inverse_root(information: Float[np.ndarray, "p p"], margin: float) -> Float[np.ndarray, "p p"] | None:
    """R with R Rᵀ = information⁻¹, in NumPy; None where it is not positive definite by this margin, its rows scaled."""
    diagonal = np.diag(information)
    if not (np.isfinite(information).all() and np.all(diagonal > 0.0)):
        return None
    unit = 1.0 / np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(unit[:, None] * information * unit[None, :])
    return unit[:, None] * vectors / np.sqrt(values) if values[0] > margin else None


def free_entries(gmm: GMM, free):
    """Index arrays of the free entries of the covariances leaf, row by row; lower triangles of matrices."""
    mask = np.ones(gmm.covariances.shape, bool)
    if structure(gmm.covariance_type).per_component:
        mask &= np.asarray(free).reshape(-1, *(1,) * (mask.ndim - 1))
    else:
        mask &= np.any(free)
    if _is_matrix(gmm):
        mask &= np.tri(gmm.n_features, dtype=bool)
    return np.nonzero(mask)


def _is_matrix(gmm):
    return gmm.covariance_type in ("full", "tied")
