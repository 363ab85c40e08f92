r"""Covariances with a common unknown scale: Σ_k | C ~ IW(ν, C) for every component k, C ~ Wishart(g, M/g), E[C] = M.

C integrates out: with P = g M⁻¹ + Σ_k Σ_k⁻¹ and n covariances of D features,
p(Σ_1, ..., Σ_n) = Γ_D((g + nν)/2) / (Γ_D(g/2) Γ_D(ν/2)ⁿ) · |g M⁻¹|^(g/2) · Π_k |Σ_k|^(−(ν+D+1)/2) · |P|^(−(g+nν)/2),
and C | Σ ~ Wishart(g + nν, P⁻¹). Of variances each feature has such a law by itself, with D = 1.

The only module that imports NumPyro at once, as a distribution is a subclass: others import it inside functions.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import multigammaln
from numpyro.distributions import constraints

from ..mixture.factor import cholesky, inverse_cholesky


class HierarchicalInverseWishart(dist.Distribution):
    """The law of one covariance, or of several at once; made by `bayes.hierarchical_inverse_wishart`."""

    arg_constraints = {"dof": constraints.positive, "scale_dof": constraints.positive, "scale_mean": constraints.real}  # noqa: RUF012
    pytree_aux_fields = ("n_covariances",)

    def __init__(self, dof, scale_dof, scale_mean, n_covariances: int | None = None, *, validate_args=None):
        self.dof, self.scale_dof, self.scale_mean, self.n_covariances = dof, scale_dof, scale_mean, n_covariances
        leading = () if n_covariances is None else (n_covariances,)
        super().__init__((), (*leading, *jnp.shape(scale_mean)), validate_args=validate_args)

    def jointly(self, n: int) -> "HierarchicalInverseWishart":
        """The law of n covariances under one scale: event (n, ...)."""
        return type(self)(self.dof, self.scale_dof, self.scale_mean, n)

    @property
    def support(self):
        n_axes = jnp.ndim(self.scale_mean)
        leaf = constraints.positive_definite if n_axes == 2 else constraints.positive
        n_more = len(self.event_shape) - leaf.event_dim
        return constraints.independent(leaf, n_more) if n_more else leaf

    def log_prob(self, value):
        one = self.n_covariances is None
        each = value[None] if one else jnp.moveaxis(value, -1 - jnp.ndim(self.scale_mean), 0)
        each, mean = self._as_matrices(each), self._as_matrices(self.scale_mean)
        n, d = each.shape[0], mean.shape[-1]
        whitener, root = inverse_cholesky(each), inverse_cholesky(mean) * jnp.sqrt(self.scale_dof)  # g M⁻¹ = rootᵀ root
        total = _gram(root) + jnp.sum(_gram(whitener), axis=0)
        size = multigammaln(0.5 * (self.scale_dof + n * self.dof), d)
        size -= multigammaln(0.5 * self.scale_dof, d) + n * multigammaln(0.5 * self.dof, d)
        # half the log determinants of g M⁻¹, Σ_k⁻¹ and P⁻¹
        log_p = size + self.scale_dof * _half_log_det(root)
        log_p += (self.dof + d + 1.0) * jnp.sum(_half_log_det(whitener), axis=0)
        log_p += (self.scale_dof + n * self.dof) * _half_log_det(inverse_cholesky(total))
        return jnp.sum(log_p, axis=-1) if jnp.ndim(self.scale_mean) == 1 else log_p

    def sample(self, key, sample_shape=()):
        key_scale, key_each = jax.random.split(key)
        mean = self._as_matrices(self.scale_mean)
        n = 1 if self.n_covariances is None else self.n_covariances
        root = cholesky(mean) / jnp.sqrt(self.scale_dof)
        root = dist.WishartCholesky(self.scale_dof, scale_tril=root).sample(key_scale, (*sample_shape, 1))
        roots = jnp.broadcast_to(root, (*sample_shape, n, *mean.shape))
        tril = dist.InverseWishartCholesky(self.dof, scale_tril=roots).sample(key_each)
        return (tril @ jnp.swapaxes(tril, -1, -2)).reshape(*sample_shape, *self.event_shape)

    def _as_matrices(self, value):
        """Variances as 1 × 1 matrices."""
        return value if jnp.ndim(self.scale_mean) == 2 else jnp.asarray(value)[..., None, None]


def _gram(whitener):
    return jnp.swapaxes(whitener, -1, -2) @ whitener


def _half_log_det(triangle):
    """log |T| of a triangular matrix: half of that of Tᵀ T."""
    return jnp.sum(jnp.log(jnp.diagonal(triangle, axis1=-2, axis2=-1)), axis=-1)
