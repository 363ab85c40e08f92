"""The random numbers of one Gibbs sweep, from one call of the generator; gamma and Wishart variates made of them.

On CPU a call costs as much as hundreds of numbers, and jax.random.loggamma takes one element after another: together
they were two thirds of a sweep over 500 samples.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..mixture.factor import cholesky, inverse_cholesky

PROPOSALS = 3  # of a gamma variate: one is accepted more often than 19 times in 20, none of three once in 8000


class Proposals(NamedTuple):
    """What gamma variates of shape S are made of."""

    normal: Float[Array, "n *S"]
    exponential: Float[Array, "n *S"]
    shrink: Float[Array, "*S"]  # exponential
    key: Key[Array, ""]  # of further ones, where all are rejected

    def at(self, index) -> "Proposals":
        """Those of some elements."""
        some = (slice(None), *(index if isinstance(index, tuple) else (index,)))
        return self._replace(normal=self.normal[some], exponential=self.exponential[some], shrink=self.shrink[index])


class Noise(NamedTuple):
    """What one sweep takes: N uniform numbers for labels, the others for φ, μ and Σ of K components."""

    labels: Float[Array, "N"]
    weights: Proposals  # (K,)
    means: Float[Array, "K D"]  # normal
    below: Float[Array, "K D D"]  # normal
    scales: Proposals  # (K, D)
    scale_below: Float[Array, "D D"]  # normal, for the scale that covariances have in common
    scale: Proposals  # (D,)
    key: Key[Array, ""]  # of what else a sweep may need


def draw_noise(key: Key[Array, ""], n_samples: int, n_components: int, n_features: int, dtype) -> Noise:
    """Independent numbers for one sweep."""
    key, *keys = jax.random.split(key, 5)
    k, d, one = (n_components,), (n_components, n_features), (n_features,)
    normal = {"means": d, "below": (*d, n_features), "scale_below": one * 2}
    gammas = {"weights": k, "scales": d, "scale": one}
    normal |= {name: (PROPOSALS, *shape) for name, shape in gammas.items()}
    exponential = {name: (PROPOSALS + 1, *shape) for name, shape in gammas.items()}
    n_normal, n_exponential = (sum(map(math.prod, shapes.values())) for shapes in (normal, exponential))
    labels, u = _uniforms(key, n_samples, n_normal + n_exponential, dtype)
    a, b = jnp.split(u, [n_normal])
    a = _cut(jax.scipy.special.ndtri(a), normal)
    b = _cut(-jnp.log(b), exponential)
    weights, scales, scale = (
        Proposals(a[of], b[of][1:], b[of][0], key) for of, key in zip(gammas, keys[:3], strict=True)
    )
    return Noise(labels, weights, a["means"], a["below"], scales, a["scale_below"], scale, keys[3])


def _uniforms(key, n_coarse, n_fine, dtype):
    """Numbers between 0 and 1; in float64 the coarse ones have 32 random bits, two of a word, at half the cost.

    The coarse ones come last, one after another: they are the same for a row however many fill up.
    """
    if dtype != jnp.float64:
        u = jax.random.uniform(key, (n_fine + n_coarse,), dtype, minval=jnp.finfo(dtype).tiny)
        return u[n_fine:], u[:n_fine]
    words = jax.random.bits(key, (n_fine + -(-n_coarse // 2),), jnp.uint64)
    halves = jnp.stack([words[n_fine:] >> 32, words[n_fine:] & 0xFFFFFFFF], axis=1).reshape(-1)[:n_coarse]
    return (halves.astype(dtype) + 0.5) * 2.0**-32, ((words[:n_fine] >> 12).astype(dtype) + 0.5) * 2.0**-52


def _cut(numbers, shapes):
    """The numbers as arrays of these shapes, one after another."""
    pieces = jnp.split(numbers, np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
    return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def log_gamma(proposals: Proposals, shape: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """log g with g ~ Gamma(shape, 1), elementwise; NaN where the shape is.

    Reference:
        Marsaglia & Tsang (2000), ACM Transactions on Mathematical Software 26; shapes below 1 by their section 6.
    """
    is_small = shape < 1.0
    d = jnp.where(is_small, shape + 1.0, shape) - 1.0 / 3.0

    def first_accepted(x, e):
        v = (1.0 + x / jnp.sqrt(9.0 * d)) ** 3
        log_v = jnp.log(v)
        good = ~((v <= 0.0) | (-e >= 0.5 * x**2 + d * (1.0 - v + log_v)))  # also where the shape is NaN
        log_v = jnp.take_along_axis(log_v, jnp.argmax(good, axis=0)[None], axis=0)[0]
        return log_v, jnp.any(good, axis=0)

    def again(state):
        key, log_v, accepted = state
        key, key_normal, key_exponential = jax.random.split(key, 3)
        x = jax.random.normal(key_normal, (1, *d.shape), d.dtype)
        e = jax.random.exponential(key_exponential, (1, *d.shape), d.dtype)
        fresh, good = first_accepted(x, e)
        return key, jnp.where(accepted, log_v, fresh), accepted | good

    begin = (proposals.key, *first_accepted(proposals.normal, proposals.exponential))
    log_v = jax.lax.while_loop(lambda state: ~jnp.all(state[2]), again, begin)[1]
    return jnp.log(d) + log_v - jnp.where(is_small, proposals.shrink / shape, 0.0)


def inverse_wishart(
    below: Float[Array, "*batch D D"],
    noise: Proposals,
    dof: Float[Array, "*batch"],
    size: Float[Array, "*batch D D"],
) -> Float[Array, "*batch D D"]:
    """Σ ~ IW(dof, size): Σ = M Mᵀ, M = L A⁻ᵀ with size = L Lᵀ and A the Bartlett factor of a standard Wishart.

    A has the normal numbers below its diagonal, and on it chi, of dof, dof − 1, ... degrees of freedom.
    """
    inner = _bartlett(below, noise, dof)
    factor = cholesky(size) @ jnp.swapaxes(inverse_cholesky(inner @ jnp.swapaxes(inner, -1, -2)), -1, -2)
    return factor @ jnp.swapaxes(factor, -1, -2)


def wishart(
    below: Float[Array, "*batch D D"],
    noise: Proposals,
    dof: Float[Array, "*batch"],
    rate: Float[Array, "*batch D D"],
) -> Float[Array, "*batch D D"]:
    """C ~ Wishart(dof, rate⁻¹): C = M Mᵀ, M = L⁻ᵀ A with rate = L Lᵀ."""
    factor = jnp.swapaxes(inverse_cholesky(rate), -1, -2) @ _bartlett(below, noise, dof)
    return factor @ jnp.swapaxes(factor, -1, -2)


def _bartlett(below, noise, dof):
    n = below.shape[-1]
    chi = jnp.exp(0.5 * (jnp.log(2.0) + log_gamma(noise, (dof[..., None] - jnp.arange(n)) / 2.0)))
    return jnp.tril(below, -1) + chi[..., None] * jnp.eye(n)
