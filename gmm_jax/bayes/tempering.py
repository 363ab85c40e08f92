"""Parallel tempering over rows, from the prior to the posterior, so that a chain stuck in one mode is let go.

Temperature l draws from p(θ) Π_n Σ_k φ_k N(z_n | μ_k, Σ_k)^w_n, where w is 1 for the first rows, a part for the next
one, and 0 for the rest: with no rows it is the prior, with all the posterior. Mixtures of neighbours are exchanged with
Metropolis' probability, which leaves the law at each temperature as it is. What comes from the prior to the posterior
is an independent start, and reaches each mode as often as its mass says. Were the hottest not the prior but a few rows,
fewer temperatures would do, but walls between modes stand there already.

Rows, and not a power of the likelihood: each temperature keeps the conjugate moves, as in smc.py.

Reference:
    Okabe et al. (2001), Chemical Physics Letters 335: even and odd pairs in turn. Syed, Bouchard-Côté, Deligiannidis &
    Doucet (2022), Non-reversible parallel tempering, JRSS B 84: why that is best, and temperatures of equal rejection.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from ..mixture import GMM, log_joint

LEAST_REJECTION = 1e-3  # of a pair, so that no two temperatures fall together


def in_line(z: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """The rows along their direction of largest spread."""
    direction = np.linalg.eigh(z.T @ z)[1][:, -1]
    return z[np.argsort(z @ direction, kind="stable")]


def spread_order(n_samples: int) -> Int[np.ndarray, "N"]:
    """Ranks by their binary digits read backwards (van der Corput): every beginning is spread evenly over all.

    So the first rows look like the whole and favour what all will; in random order the evidence of the galaxies
    scattered up to twice as much.
    """
    n_bits = max(1, int(n_samples - 1).bit_length())
    ranks = np.arange(n_samples)
    backwards = sum(((ranks >> bit) & 1) << (n_bits - 1 - bit) for bit in range(n_bits))
    return np.argsort(backwards)


def first_temperatures(n_temperatures: int, n_samples: int) -> Float[np.ndarray, "L"]:
    """The rows that take part at each temperature, not whole numbers, in about equal ratios; of one, all rows."""
    logs = np.linspace(0.0, np.log1p(n_samples), n_temperatures) if n_temperatures > 1 else np.log1p([n_samples])
    return np.append(np.expm1(logs[:-1]), n_samples)


def respaced(rows: Float[np.ndarray, "L"], acceptance: Float[np.ndarray, "L-1"]) -> Float[np.ndarray, "L"]:
    """Temperatures between which exchanges are refused equally often, as far as these acceptances tell."""
    if len(rows) < 3:
        return rows
    barrier = np.append(0.0, np.cumsum(np.maximum(1.0 - acceptance, LEAST_REJECTION)))
    logs = np.interp(np.linspace(0.0, barrier[-1], len(rows)), barrier, np.log1p(rows))
    return np.append(np.expm1(logs[:-1]), rows[-1])


def powers(rows: Float[Array, "L"], n_samples: int) -> Float[Array, "L N"]:
    """w_n at each temperature: 1 for rows that are in, a part of the one that is coming in, 0 for those to come."""
    return jnp.clip(rows[:, None] - jnp.arange(n_samples), 0.0, 1.0)


def exchange(
    key: Key[Array, ""], z: Float[Array, "N D"], rows: Float[Array, "L"], gmms: GMM, turn: Int[Array, ""]
) -> tuple[Int[Array, "L"], Float[Array, "L-1"]]:
    """The temperature that each one's next mixture comes from, and the acceptance of every pair of neighbours.

    gmms have a leading (L,). Pairs (0, 1), (2, 3), ... are tried in even turns, the others in odd ones.
    """
    lower = jnp.arange(rows.size - 1)
    gain = _gains(z, rows, gmms)
    log_ratio = gain[lower, lower] - gain[lower + 1, lower]
    chance = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
    swapped = (jax.random.uniform(key, chance.shape, chance.dtype) < chance) & (lower % 2 == turn % 2)
    edge = jnp.zeros(1, bool)
    up, down = jnp.concatenate([swapped, edge]), jnp.concatenate([edge, swapped])
    return jnp.arange(rows.size) + up.astype(int) - down.astype(int), chance


def _gains(z, rows, gmms):
    """(L, L − 1): what each mixture's log likelihood gains from each temperature to the next."""
    n_samples = z.shape[0]
    whole = jnp.floor(rows)
    row = jnp.minimum(whole.astype(int), n_samples - 1)  # the one that is coming in

    def one(gmm):
        density = log_joint(replace(gmm, weights=jnp.ones_like(gmm.weights)), z)  # (N, K)
        so_far = jnp.append(0.0, jnp.cumsum(logsumexp(jnp.log(gmm.weights) + density, axis=1)))
        partly = logsumexp(jnp.log(gmm.weights) + (rows - whole)[:, None] * density[row], axis=1)
        return jnp.diff(so_far[whole.astype(int)] + partly)

    return jax.vmap(one)(gmms)
