"""EM is a sum followed by a small solve: here is the solve.

With m the current means, s = first/mass and d = μ_new − m:
φ = mass / Σ mass, μ = m + s, Σ = second/mass − s dᵀ − d sᵀ + d dᵀ.
It never sees data, and known parts act inside it.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..mixture import GMM, Known, Moments, put, share, structure


def m_step(moments: Moments, gmm: GMM, *, known: Known = Known(), reg_covar: float | Float[Array, "D"] = 0.0) -> GMM:
    """The mixture that maximises the expected complete-data log-likelihood, known parts held.

    Args:
        moments: sums about `gmm.means`, from e_step or from labels.
        gmm: the mixture whose means the moments are about.
        known: held as it is; free φ share 1 − Σ known φ; a known mean keeps its own d; known Σ are never regularised.
        reg_covar: added to the diagonals of free covariances, squared units of x; a number or (D,).

    Returns:
        GMM with the dtype of `gmm`. A component without mass keeps its mean, and its Σ is not meaningful.

    Reference:
        Bishop (2006), Pattern Recognition and Machine Learning, eqs. 9.24 to 9.26.
    """
    dtype, n_features = gmm.means.dtype, gmm.means.shape[1]
    mass = jnp.where(moments.mass > 0.0, moments.mass, jnp.ones_like(moments.mass))
    s = moments.first / mass[:, None]  # (K, D): the mean's weighted residual about m
    means = put(known.means, gmm.means + s)
    d = means - gmm.means  # = s where the mean is free
    kind = structure(gmm.covariance_type)
    ridge = jnp.broadcast_to(jnp.asarray(reg_covar, dtype), (n_features,))
    covariances = kind.add_to_diagonal(kind.estimate(mass, moments.second, s, d), ridge)
    return GMM(share(moments.mass, known.weights), means, put(known.covariances, covariances), gmm.covariance_type)
