"""How sure EM is: standard errors from the observed information, −∂²ℓ/∂θ² at the maximum.

θ holds the free numbers only: K − 1 of K free φ, the free μ, the lower triangles of the free Σ.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..mixture import GMM, ONE_AT_A_TIME, MixtureSpec, check_data, free_parts, log_prob, standardise, validate_spec
from .fit import EMResult


def standard_errors(x: Float[Array, "N D"], result: EMResult, spec: MixtureSpec, *, method: str = "observed") -> GMM:
    """Standard errors of φ, μ and Σ at an EM optimum: a GMM of the same shapes, 0 where known, NaN where undefined.

    Args:
        result: an EMResult in the units of x, at a stationary point (CONVERGED).
        method: "observed", the inverse observed information by automatic differentiation.

    NaN everywhere means that the information is not positive definite: a boundary, a flat direction, or no maximum.

    Reference:
        McLachlan & Peel (2000), Finite Mixture Models, section 2.15; Efron & Hinkley (1978), Biometrika 65.
    """
    if method != "observed":
        raise ValueError(f"method must be 'observed'; got {method!r}.")
    x = check_data(x, n_components=spec.n_components)
    spec = validate_spec(spec, x.shape[1])
    z, scaling = standardise(x, spec)
    inner = scaling.inward(jax.tree.map(np.asarray, result.gmm))
    masks = tuple(tuple(bool(b) for b in mask) for mask in free_parts(spec))
    errors = _observed(z, jax.tree.map(lambda leaf: leaf.astype(z.dtype), inner), masks)
    return _outward(jax.tree.map(np.asarray, errors), scaling)


@partial(jax.jit, static_argnames="masks", compiler_options=ONE_AT_A_TIME)
def _observed(z, gmm, masks):
    theta, unpack = _free_coordinates(gmm, masks)
    score = jax.grad(lambda t: jnp.sum(log_prob(unpack(t), z)))
    # a few columns at a time: all at once hold p copies of every intermediate number
    basis = jnp.eye(theta.size, dtype=theta.dtype)
    columns = jax.lax.map(lambda v: jax.jvp(score, (theta,), (v,))[1], basis, batch_size=16)
    information = -0.5 * (columns + columns.T)
    cholesky = jnp.linalg.cholesky(information)  # NaN where not positive definite
    covariance = jax.scipy.linalg.cho_solve((cholesky, True), jnp.eye(theta.size, dtype=theta.dtype))
    jacobian = jax.jacobian(unpack)(theta)  # GMM of (..., p): the delta method for the last φ and for symmetry
    variance = jax.tree.map(lambda j: jnp.einsum("...p,pq,...q->...", j, covariance, j), jacobian)
    return jax.tree.map(lambda v: jnp.sqrt(jnp.where(v < 0.0, jnp.nan, v)), variance)


def _free_coordinates(gmm: GMM, masks):
    """θ (p,) and the function θ -> GMM; masks are static, so θ holds the free entries and nothing else."""
    free_weights, free_means, free_covariances = (np.array(mask) for mask in masks)
    weights_at = np.flatnonzero(free_weights)[:-1]
    last = np.flatnonzero(free_weights)[-1] if free_weights.any() else 0
    covariances = _triangle_index(gmm, free_covariances)
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


def _is_matrix(gmm):
    return gmm.covariance_type in ("full", "tied")


def _triangle_index(gmm, free):
    """Index arrays of the free entries of the covariances leaf; lower triangles of matrices."""
    mask = np.ones(gmm.covariances.shape, bool)
    if gmm.covariance_type == "tied":
        mask &= free.any()
    else:
        mask &= free.reshape(-1, *(1,) * (mask.ndim - 1))
    if _is_matrix(gmm):
        mask &= np.tri(gmm.n_features, dtype=bool)
    return np.nonzero(mask)


def _outward(errors, scaling):
    """Standard errors carry scale but no centre."""
    return scaling._replace(centre=np.zeros_like(scaling.centre)).outward(errors)
