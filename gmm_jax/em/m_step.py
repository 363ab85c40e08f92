"""EM is a sum followed by a small solve: here is the solve.

With m the current means, s = first/mass and d = μ_new − m:
φ = mass / Σ mass, μ = m + s, Σ = second/mass − s dᵀ − d sᵀ + d dᵀ.
It never sees data, and known parts act inside it. With a prior it is the mode of the expected log posterior instead,
first in φ and μ, then in Σ given the new μ: each conditional step raises it (ECM, Meng & Rubin 1993). An
unknown scale in the prior is one more latent variable: given Σ it is Wishart (or gamma), and Σ's step needs its mean.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..mixture import GMM, Hyperparameters, Known, Moments, put, structure
from ..mixture.covariance import positive
from ..mixture.factor import cholesky, inverse_cholesky
from ..mixture.spec import share


def m_step(
    moments: Moments,
    gmm: GMM,
    *,
    known: Known = Known(),
    reg_covar: float | Float[Array, "D"] = 0.0,
    prior: Hyperparameters | None = None,
) -> GMM:
    """The mixture that maximises the expected complete-data log-likelihood, known parts held.

    Args:
        moments: sums about `gmm.means`, from e_step or from labels.
        gmm: the mixture whose means the moments are about.
        known: held as it is; free φ share 1 − Σ known φ; a known mean keeps its own d; known Σ are never regularised.
        reg_covar: added to the diagonals of free covariances, squared units of x; a number or (D,).
        prior: of the semi-conjugate family; a component without mass then takes the prior's mode.

    Returns:
        GMM with the dtype of `gmm`. A component without mass keeps its mean, and its Σ is not meaningful.

    Reference:
        Bishop (2006), Pattern Recognition and Machine Learning, eqs. 9.24 to 9.26.
    """
    dtype, n_features = gmm.means.dtype, gmm.means.shape[1]
    s = moments.first / positive(moments.mass)[:, None]  # (K, D): the mean's weighted residual about m
    kind = structure(gmm.covariance_type)
    count, means = moments.mass, gmm.means + s
    if prior is not None:
        prior = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), prior)
        count = jnp.maximum(moments.mass + prior.alpha - 1.0, 0.0)
        means = _mean_with_prior(moments.mass, means, gmm, prior)
    means = put(known.means, means)
    d = means - gmm.means  # = s where the mean is free and there is no prior
    covariances = kind.estimate(moments.mass, moments.second, s, d)
    if prior is not None and prior.size_dof is not None:
        shape, rate = law_of_size(gmm, known, prior)
        prior = prior._replace(size=shape * kind.inverse(rate))  # E[C | Σ]
    if prior is not None:
        covariances = kind.with_prior(covariances, moments.mass, prior.dof, prior.size, n_features)
    ridge = jnp.broadcast_to(jnp.asarray(reg_covar, dtype), (n_features,))
    covariances = put(known.covariances, kind.add_to_diagonal(covariances, ridge))
    return GMM(share(count, known.weights), means, covariances, gmm.covariance_type)


def law_of_size(
    gmm: GMM, known: Known, prior: Hyperparameters, counts: Bool[Array, "K"] | None = None
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(shape, rate) of the unknown scale C given the free Σ_k: C ~ Wishart(shape, rate⁻¹), or Gamma(shape, rate).

    Args:
        counts: which Σ_k there are; None for all.
    """
    kind, n_components = structure(gmm.covariance_type), gmm.weights.shape[0]
    precisions = kind.inverse(gmm.covariances)
    counts = jnp.ones(n_components, bool) if counts is None else counts
    if not kind.per_component:
        precisions, counts = precisions[None], jnp.any(counts, keepdims=True)
    if known.covariances is not None:
        counts = counts & jnp.isnan(jnp.asarray(known.covariances)).reshape(counts.size, -1)[:, 0]
    leading = counts.reshape(-1, *(1,) * (precisions.ndim - 1))
    total = jnp.sum(jnp.where(leading, precisions, jnp.zeros_like(precisions)), axis=0)
    n = jnp.sum(counts).astype(precisions.dtype)
    return prior.size_dof + n * prior.dof, prior.size_dof * kind.inverse(prior.size) + total


def log_prior(gmm: GMM, known: Known, whitener: Float[Array, "..."], prior: Hyperparameters) -> Float[Array, ""]:
    """log p(φ, μ, Σ) up to a constant, densities with respect to φ, μ and Σ themselves."""
    prior = jax.tree.map(lambda leaf: jnp.asarray(leaf, gmm.means.dtype), prior)
    off = gmm.means - prior.loc[None]
    # a component may lose its mass: α = 1 says nothing about φ_k = 0
    log_weights = jnp.where(prior.alpha == 1.0, jnp.zeros_like(gmm.weights), jnp.log(gmm.weights))
    kind, size = structure(gmm.covariance_type), prior.size
    if prior.size_dof is None:
        of_size = jnp.zeros_like(gmm.weights[0])
    else:  # integrated out
        shape, rate = law_of_size(gmm, known, prior)
        of_size, size = kind.log_power(rate, shape), jnp.zeros_like(size)
    covariances = kind.log_prior(whitener, prior.dof, size)
    quadratic = jnp.sum((off[:, :, None] * prior.precision[None]) * off[:, None, :])
    return jnp.sum((prior.alpha - 1.0) * log_weights) - 0.5 * quadratic + jnp.sum(covariances) + of_size


def _mean_with_prior(mass, means, gmm, prior):
    """The mode of μ_k given Σ_k = L Lᵀ: loc + (n + Σ Λ)⁻¹ n (x̄ − loc) = loc + L (n + Lᵀ Λ L)⁻¹ n L⁻¹ (x̄ − loc).

    Without LAPACK: see `mixture.factor`.
    """
    matrices = structure(gmm.covariance_type).dense(gmm.covariances, *means.shape)
    eye = jnp.eye(means.shape[-1], dtype=means.dtype)

    def one(each):
        n, mean, matrix = each
        root, whitener = cholesky(matrix), inverse_cholesky(matrix)
        solve = inverse_cholesky(n * eye + root.T @ prior.precision @ root)
        return prior.loc + root @ (solve.T @ (solve @ (whitener @ (n * (mean - prior.loc)))))

    return jax.vmap(one)((mass, means, matrices))
