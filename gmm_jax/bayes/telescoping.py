r"""The posterior of K itself: a mixture of finite mixtures, by the telescoping sampler.

K ~ p(K); φ | K ~ Dirichlet(γ_K, ..., γ_K); μ_k and Σ_k as in gibbs. Given labels, K₊ of which occur, n_k times each,

    p(K | z) ∝ p(K) K! / (K − K₊)! · Γ(K γ_K) / Γ(N + K γ_K) · Π_{n_k > 0} Γ(n_k + γ_K) / Γ(γ_K),  K ≥ K₊,

whatever μ and Σ are: K is drawn anew in every sweep, and components without samples are drawn from the prior. So no
move between dimensions is needed: mixtures have the largest K components, of which the last ones have no weight.

Reference:
    Frühwirth-Schnatter, Malsiner-Walli & Grün (2021), Generalized mixtures of finite mixtures and telescoping sampling,
    Bayesian Analysis 16(4), algorithm 1. Miller & Harrison (2018), JASA 113, for γ_K = γ.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, gammaln
from jaxtyping import Array, Float, Int, Key
from scipy import special

from ..mixture import GMM, ONE_AT_A_TIME, MixtureSpec, NotSupported, Status, permute
from ..mixture.checks import check_key
from ..mixture.cores import on_each
from ..mixture.moments import e_step, log_likelihood
from ..mixture.programs import jit
from .checks import check_spec
from .gibbs import CHUNK, draw_components, draw_weights
from .model import assemble
from .prior import conjugate
from .target import constrain, of_draws, prepare, run_chunks, unconstrained_starts
from .variates import draw_noise


class Telescoped(NamedTuple):
    """Draws of mixtures of different sizes, and of how many components they have."""

    draws: GMM  # (C, S, ...) with the largest K components, occupied ones first; those beyond a draw's K weigh 0
    log_likelihood: Float[np.ndarray, "C S"]  # Σ_n log p(x_n | θ), nats, units of the data
    n_components: Int[np.ndarray, "C S"]  # K, components of the model
    occupied: Int[np.ndarray, "C S"]  # K₊, components that hold a sample
    status: Status  # SAMPLED, or NON_FINITE where a log_likelihood is not finite

    def probabilities(
        self, counts: Int[np.ndarray, "C S"]
    ) -> tuple[Float[np.ndarray, "K+1"], Float[np.ndarray, "K+1"]]:
        """P(k | x) for k = 0, 1, ..., of n_components or of occupied; and its standard error by the chains' scatter."""
        by_chain = np.mean(counts[..., None] == np.arange(self.draws.n_components + 1), axis=1)
        n_chains = len(by_chain)
        error = by_chain.std(axis=0, ddof=1) / np.sqrt(n_chains) if n_chains > 1 else np.full(by_chain.shape[1], np.nan)
        return by_chain.mean(axis=0), error


def telescoping(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_chains: int = 4,
    n_warmup: int = 1000,
    n_draws: int = 2000,
    init: GMM | None = None,
    components: Float[np.ndarray, "K"] | None = None,
    concentration: float | Float[np.ndarray, "K"] = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Telescoped:
    """Posterior draws of the number of components K = 1, ..., spec.n_components and of the mixtures of each size.

    Args:
        spec: of the largest K. Its default prior over Σ is that for so many components: make it explicit, or all K are
            judged under clusters as small as the largest needs. It has no prior over φ.
        components: p(K) for K = 1, 2, ..., up to a factor; None for the beta-negative-binomial (1, 4, 3) over K − 1.
        concentration: γ_K: a number for all K (static), or one for each, such as α / K (dynamic).

    Returns:
        Telescoped; `found.probabilities(found.n_components)` is P(K | x) with its standard error.

    Raises:
        NotSupported: the prior is not semi-conjugate, or what is known distinguishes components.
    """
    log_prior, concentration = _check_prior(check_spec(spec), components, concentration)
    key_start, key = jax.random.split(check_key(key))
    problem, scaling = prepare(x, spec, n_chains, n_warmup, n_draws)
    first = unconstrained_starts(key_start, problem, scaling, init, n_chains)
    dtype = problem.z.dtype
    law = conjugate(problem, "telescoping"), log_prior.astype(dtype), concentration.astype(dtype)

    def advance(parts, _):
        return on_each(_advance, parts, problem, law, n_sweeps=CHUNK)

    chains = _begin(key, problem, first)
    draws, n_components, occupied = next(run_chunks(advance, chains, n_warmup, n_draws, CHUNK, progress))
    log_likelihood = np.asarray(_log_likelihood(problem, draws), float) - problem.n_samples * scaling.log_volume
    status = Status.SAMPLED if np.all(np.isfinite(log_likelihood)) else Status.NON_FINITE
    return Telescoped(scaling.outward(draws), log_likelihood, n_components, occupied, status)


def beta_negative_binomial(n: Int[np.ndarray, "n"], a: float = 4.0, b: float = 3.0) -> Float[np.ndarray, "n"]:
    """log p(n) of BNB(1, a, b): n = 0, 1, ... failures before one success whose chance is Beta(a, b).

    The mean of n is b / (a − 1), that is 1 by default.
    """
    return special.betaln(a + 1.0, b + n) - special.betaln(a, b)


def _check_prior(spec, components, concentration):
    """log p(K) and γ_K, (K,) each, or a ValueError with one sentence."""
    largest = spec.n_components
    if spec.prior.weights is not None:
        raise ValueError("spec.prior.weights has an event for one K: leave it out and give concentration.")
    _refuse_labels(spec)
    gamma = np.asarray(concentration, float)
    if gamma.shape not in ((), (largest,)) or not np.all(np.isfinite(gamma) & (gamma > 0.0)):
        raise ValueError(f"concentration must be positive, one number or one for each K to {largest}; got {gamma}.")
    if components is None:
        return beta_negative_binomial(np.arange(largest)), np.broadcast_to(gamma, (largest,))
    p = np.asarray(components, float)
    if p.shape != (largest,) or not np.all(np.isfinite(p) & (p >= 0.0)) or not p.sum() > 0.0:
        raise ValueError(f"components must be p(K) for K = 1 to {largest}, not negative and not all 0; got {p}.")
    with np.errstate(divide="ignore"):
        return np.log(p), np.broadcast_to(gamma, (largest,))


def _refuse_labels(spec):
    """Components come and go, so that what is known may not distinguish one from another."""
    known, shared = spec.known, spec.covariance_type == "tied"
    if known.weights is not None:
        raise NotSupported("telescoping draws the number of weights, so that none can be known: leave them free.")
    for name, leaf in (("means", known.means), ("covariances", None if shared else known.covariances)):
        if leaf is not None and not np.array_equal(leaf, np.broadcast_to(np.asarray(leaf)[:1], np.shape(leaf)), True):
            raise NotSupported(f"telescoping needs known {name} to be the same for every component: leave them free.")


@jit
def _begin(key, problem, starts):
    """What chains carry from sweep to sweep: keys (C,) and mixtures (C, ...)."""
    gmms = jax.vmap(lambda u: assemble(problem, constrain(problem, u)[0]))(starts)
    return jax.random.split(key, starts.shape[0]), gmms


@partial(jax.jit, static_argnames="n_sweeps", compiler_options=ONE_AT_A_TIME)
def _advance(chains, problem, law, n_sweeps):
    def step(gmm, key):
        gmm, k, occupied = _sweep(key, problem, *law, gmm)
        return gmm, (gmm, k, occupied)

    def run(key, gmm):
        keys = jax.random.split(key, n_sweeps + 1)
        gmm, output = jax.lax.scan(step, gmm, keys[1:])
        return (keys[0], gmm), output

    return jax.vmap(run)(*chains)


def _sweep(key, problem, hyper, log_prior, concentration, gmm):
    """Labels, components given labels, K given the counts, φ given K and the counts."""
    noise = draw_noise(key, problem.z.shape[0], *gmm.means.shape, problem.z.dtype)
    sums = e_step(gmm, problem.z, uniforms=noise.labels, n_rows=problem.annotations.n_rows, sums="exact")
    gmm, counts = draw_components(noise, problem, hyper, gmm, sums), sums.mass
    order = jnp.argsort(counts == 0.0, stable=True)  # occupied ones first
    gmm, counts = permute(gmm, order), counts[order]
    size = jax.random.categorical(noise.key, log_prior + log_sizes(counts, concentration))
    beyond = jnp.where(jnp.arange(counts.size) <= size, jnp.nan, 0.0)  # as known weights: free, or none
    weights = draw_weights(noise.weights, concentration[size] + counts, beyond)
    return replace(gmm, weights=weights), size + 1, jnp.sum(counts > 0.0)


def log_sizes(counts: Float[Array, "K"], concentration: Float[Array, "K"]) -> Float[Array, "K"]:
    """log p(partition with these counts | K) for K = 1, 2, ..., up to what they have in common; −∞ below K₊.

    Γ(a) / Γ(a + n) = B(a, n) / Γ(n): differences of large log Γ would lose float32's digits.
    """
    k = jnp.arange(1, counts.size + 1).astype(counts.dtype)
    empty = k - jnp.sum(counts > 0.0)
    filled = jnp.where(counts > 0.0, betaln(concentration[:, None], jnp.maximum(counts, 1.0)), 0.0)
    arrangements = gammaln(k + 1.0) - gammaln(jnp.maximum(empty, 0.0) + 1.0)
    log_p = arrangements + betaln(k * concentration, jnp.sum(counts)) - jnp.sum(filled, axis=1)
    return jnp.where(empty >= 0.0, log_p, -jnp.inf)


@jit
def _log_likelihood(problem, draws):
    return of_draws(lambda gmm: log_likelihood(gmm, problem.z, problem.annotations), draws, problem.z.size)
