"""EM is a sum followed by a small solve: here is the sum.

Moments are sums over rows, about the current means m, so blocks, streams, devices and sampled labels (Gibbs) are only
ways of taking the same sum: m_step and the conjugate updates see nothing else of the data.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from .covariance import structure
from .gmm import GMM, deviations, log_joint_components_first

BLOCK_NUMBERS = 1 << 18  # K·D·rows in one block: 2 MiB of float64, so that a block stays in the cache


class Moments(NamedTuple):
    """Sums over rows, about the current means m; blocks add leaf by leaf."""

    mass: Float[Array, "K"]  # Σ_n r_nk
    first: Float[Array, "K D"]  # Σ_n r_nk (x_n − m_k)
    second: Float[Array, "..."]  # Σ_n r_nk (x_n − m_k)(x_n − m_k)ᵀ, or the part of it that the structure needs
    log_likelihood: Float[Array, ""]  # Σ_n log p(x_n), nats


def moments(gmm: GMM, d: Float[Array, "K D N"], r: Float[Array, "K N"], log_prob: Float[Array, "N"]) -> Moments:
    """The sums for given responsibilities r (soft from e_step, one-hot from labels), components first.

    Second moments are taken about m, not the origin: E[x²] − μ² cancels.
    """
    second = structure(gmm.covariance_type).scatter(r, d)
    return Moments(jnp.sum(r, axis=1), jnp.sum(r[:, None] * d, axis=-1), second, jnp.sum(log_prob))


def e_step(
    gmm: GMM,
    x: Float[Array, "N D"],
    sample_weight: Float[Array, "N"] | None = None,
    *,
    block_size: int | None = None,
    whitener: Float[Array, "..."] | None = None,
) -> Moments:
    """Responsibilities r_nk = p(k | x_n) under `gmm`, and their moments about gmm.means.

    Rows are taken in blocks of block_size (by default as many as stay in the cache), so memory beyond x is bounded.
    `sample_weight` multiplies each row's share in every sum, the log-likelihood included. `whitener` is the
    structure's whitener of gmm.covariances, for callers that have it.

    Reference:
        Dempster, Laird & Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm, JRSS B 39.
    """
    n_samples = x.shape[0]
    size = block_size or max(256, BLOCK_NUMBERS // max(gmm.means.size, 1))
    whitener = structure(gmm.covariance_type).whitener(gmm.covariances) if whitener is None else whitener
    if n_samples <= size:
        return _block(gmm, whitener, x, sample_weight)
    n_blocks = -(-n_samples // size)
    padding = n_blocks * size - n_samples
    weight = jnp.ones(n_samples, x.dtype) if sample_weight is None else sample_weight
    blocks = jnp.pad(x, ((0, padding), (0, 0)), mode="edge").reshape(n_blocks, size, -1)
    weights = jnp.pad(weight, (0, padding)).reshape(n_blocks, size)  # padded rows weigh nothing

    def add(total, block):
        return jax.tree.map(jnp.add, total, _block(gmm, whitener, *block)), None

    shapes = jax.eval_shape(_block, gmm, whitener, x[:1], weight[:1])
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zero, (blocks, weights))[0]


def _block(gmm, whitener, x, sample_weight):
    d = deviations(gmm, x)
    if sample_weight is not None:
        # a row of weight zero counts as absent, even where its density is not finite
        d = jnp.where((sample_weight > 0.0)[None, None], d, jnp.zeros_like(d))
    joint = log_joint_components_first(gmm, d, whitener)  # (K, N)
    log_prob = logsumexp(joint, axis=0)
    r = jnp.exp(joint - log_prob[None])
    if sample_weight is None:
        return moments(gmm, d, r, log_prob)
    return moments(gmm, d, r * sample_weight[None], log_prob * sample_weight)
