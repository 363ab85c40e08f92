"""A mixture as one vector without bounds, and the gradient of its likelihood there.

Coordinates are log φ (softmax back), μ, and the log-Cholesky factors of Σ (log variances where Σ is diagonal).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..mixture import GMM, Hyperparameters, Known, Moments, project, structure
from ..mixture.moments import expected_log_joint
from .m_step import log_prior


def to_coordinates(gmm: GMM) -> Float[Array, "n_coordinates"]:
    """Every part, known ones too: K + K·D + the structure's numbers. A weight of zero counts as the smallest float."""
    logs = structure(gmm.covariance_type).to_logs(gmm.covariances)
    return jnp.concatenate([_log(gmm.weights), gmm.means.ravel(), logs.ravel()])


def from_coordinates(vector: Float[Array, "n_coordinates"], like: GMM) -> GMM:
    """The mixture at these coordinates, in the shapes of `like`."""
    n_components, n_features = like.means.shape
    weights, means, logs = jnp.split(vector, [n_components, n_components * (1 + n_features)])
    covariances = structure(like.covariance_type).from_logs(logs, *like.means.shape)
    return GMM(jax.nn.softmax(weights), means.reshape(like.means.shape), covariances, like.covariance_type)


def gradient(
    gmm: GMM, moments: Moments, known: Known, reg_covar: Float[Array, "..."], prior: Hyperparameters | None = None
) -> Float[Array, "n_coordinates"]:
    """∇(ℓ + log prior) in coordinates, 0 for known parts, from the sums of e_step(gmm), by Fisher's identity.

    With a ridge it is ∇Q of the M-step that adds it: zero where that M-step changes nothing.
    """

    def objective(vector):
        there = project(from_coordinates(vector, gmm), known)
        expected = expected_log_joint(there, moments, gmm.means, reg_covar)
        if prior is None:
            return expected
        return expected + log_prior(there, structure(there.covariance_type).whitener(there.covariances), prior)

    return jax.grad(objective)(to_coordinates(gmm))


def _log(weights):
    return jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny))
