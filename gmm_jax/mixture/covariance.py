"""Covariance structures: one small class each, called by the verbs of the maths.

Σ_k = L_k L_kᵀ enters densities only through the whitener W_k = L_k⁻¹: z = W_k (x − μ_k) is standard normal.
Deviations are components first, (K, D, N): the sums over n are then plain matrix products.

A new structure is one class with these verbs and one entry in STRUCTURES.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def outer(a, b):
    """a bᵀ over the last axis, leading axes kept."""
    return a[..., :, None] * b[..., None, :]


def last_axes(array, ndim):
    """The same array with ones in front of its shape: broadcasting that is seen."""
    return array.reshape((1,) * (ndim - array.ndim) + array.shape)


def inverse_cholesky(covariances):
    """L⁻¹ with Σ = L Lᵀ, leading axes kept; NaN where Σ is not positive definite."""
    cholesky = jnp.linalg.cholesky(covariances)
    eye = jnp.broadcast_to(jnp.eye(covariances.shape[-1], dtype=covariances.dtype), covariances.shape)
    return jax.scipy.linalg.solve_triangular(cholesky, eye, lower=True)


def _matrix_rcond(covariances, whitener):
    """1 / (max_j Σ_jj · max_j (Σ⁻¹)_jj), leading axes kept: 1/cond where Σ is diagonal, at most D² times it else.

    Without a matrix product: on the CPU one that runs beside the E-step's can starve it for ever.
    """
    variances = jnp.diagonal(covariances, axis1=-2, axis2=-1)
    precisions = jnp.sum(whitener * whitener, axis=-2)  # the diagonal of Wᵀ W
    return 1.0 / (jnp.max(variances, axis=-1) * jnp.max(precisions, axis=-1))


class Full:
    """One covariance matrix a component: (K, D, D)."""

    per_component = True

    def shape(self, n_components, n_features):
        """Shape of the whole covariances leaf."""
        return (n_components, n_features, n_features)

    def n_parameters(self, n_features):
        """Free numbers in one component's covariance (in the shared one where it is shared)."""
        return n_features * (n_features + 1) // 2

    def whitener(self, covariances):
        """W with W Σ Wᵀ = I; NaN where Σ is not positive definite."""
        return inverse_cholesky(covariances)

    def whiten(self, whitener, deviations):
        """z = W (x − μ): (K, D, N)."""
        return jnp.matmul(whitener, deviations)

    def half_log_precision(self, whitener, n_features):
        """−½ log |Σ_k|, broadcastable to (K,)."""
        return jnp.sum(jnp.log(jnp.diagonal(whitener, axis1=-2, axis2=-1)), axis=-1)

    def scatter(self, responsibilities, deviations):
        """Σ_n r_kn (x_n − m_k)(x_n − m_k)ᵀ: (K, D, D)."""
        return jnp.einsum("kin,kjn->kij", responsibilities[:, None, :] * deviations, deviations)

    def estimate(self, mass, second, s, d):
        """Σ = second/mass − s dᵀ − d sᵀ + d dᵀ; `mass` is positive, d = μ_new − m."""
        return second / mass[:, None, None] - outer(s, d) - outer(d, s) + outer(d, d)

    def add_to_diagonal(self, covariances, ridge):
        """Σ + diag(ridge), ridge (D,)."""
        return covariances + jnp.broadcast_to(jnp.diag(ridge), covariances.shape)

    def rescale(self, covariances, scale):
        """Covariances of scale · x, scale (D,); leading axes kept, NumPy in is NumPy out."""
        return covariances * last_axes(outer(scale, scale), covariances.ndim)

    def rcond(self, covariances, whitener):
        """Reciprocal condition number, (K,) or ()."""
        return _matrix_rcond(covariances, whitener)

    def dense(self, covariances, n_components, n_features):
        """The same covariances as (K, D, D) matrices."""
        return covariances

    def from_dense(self, matrices, weights):
        """The structure's covariances nearest to (K, D, D) matrices, pooled by weights where shared."""
        return matrices


class Tied(Full):
    """One covariance matrix for all components: (D, D)."""

    per_component = False

    def shape(self, n_components, n_features):
        return (n_features, n_features)

    def whiten(self, whitener, deviations):
        return jnp.einsum("ij,kjn->kin", whitener, deviations)

    def scatter(self, responsibilities, deviations):
        return jnp.einsum("kin,kjn->ij", responsibilities[:, None, :] * deviations, deviations)

    def estimate(self, mass, second, s, d):
        shift = outer(s, d) + outer(d, s) - outer(d, d)
        return (second - jnp.einsum("k,kij->ij", mass, shift)) / jnp.sum(mass)

    def dense(self, covariances, n_components, n_features):
        return jnp.broadcast_to(covariances, (n_components, n_features, n_features))

    def from_dense(self, matrices, weights):
        return jnp.einsum("k,kij->ij", weights / jnp.sum(weights), matrices)


class Diag:
    """One variance a feature and component: (K, D)."""

    per_component = True

    def shape(self, n_components, n_features):
        return (n_components, n_features)

    def n_parameters(self, n_features):
        return n_features

    def whitener(self, covariances):
        return 1.0 / jnp.sqrt(covariances)

    def whiten(self, whitener, deviations):
        return whitener[:, :, None] * deviations

    def half_log_precision(self, whitener, n_features):
        return jnp.sum(jnp.log(whitener), axis=-1)

    def scatter(self, responsibilities, deviations):
        return jnp.einsum("kn,kin->ki", responsibilities, deviations * deviations)

    def estimate(self, mass, second, s, d):
        return second / mass[:, None] - 2.0 * s * d + d * d

    def add_to_diagonal(self, covariances, ridge):
        return covariances + ridge[None]

    def rescale(self, covariances, scale):
        return covariances * last_axes(scale * scale, covariances.ndim)

    def rcond(self, covariances, whitener):
        return jnp.min(covariances, axis=-1) / jnp.max(covariances, axis=-1)

    def dense(self, covariances, n_components, n_features):
        return jax.vmap(jnp.diag)(covariances)

    def from_dense(self, matrices, weights):
        return jnp.diagonal(matrices, axis1=-2, axis2=-1)


class Spherical:
    """One variance a component: (K,)."""

    per_component = True

    def shape(self, n_components, n_features):
        return (n_components,)

    def n_parameters(self, n_features):
        return 1

    def whitener(self, covariances):
        return 1.0 / jnp.sqrt(covariances)

    def whiten(self, whitener, deviations):
        return whitener[:, None, None] * deviations

    def half_log_precision(self, whitener, n_features):
        return n_features * jnp.log(whitener)

    def scatter(self, responsibilities, deviations):
        return jnp.einsum("kn,kn->k", responsibilities, jnp.mean(deviations * deviations, axis=1))

    def estimate(self, mass, second, s, d):
        return second / mass + jnp.mean(d * d - 2.0 * s * d, axis=-1)

    def add_to_diagonal(self, covariances, ridge):
        return covariances + jnp.mean(ridge)

    def rescale(self, covariances, scale):
        return covariances * scale[0] ** 2  # one common scale: see Scaling

    def rcond(self, covariances, whitener):
        return jnp.where(covariances > 0.0, jnp.ones_like(covariances), jnp.zeros_like(covariances))

    def dense(self, covariances, n_components, n_features):
        return covariances[:, None, None] * jnp.eye(n_features, dtype=covariances.dtype)[None]

    def from_dense(self, matrices, weights):
        return jnp.mean(jnp.diagonal(matrices, axis1=-2, axis2=-1), axis=-1)


STRUCTURES = {"full": Full(), "tied": Tied(), "diag": Diag(), "spherical": Spherical()}


def structure(covariance_type):
    """The structure of that name; a ValueError lists the names there are."""
    if covariance_type not in STRUCTURES:
        raise ValueError(f"covariance_type must be one of {', '.join(STRUCTURES)}; got {covariance_type!r}.")
    return STRUCTURES[covariance_type]
