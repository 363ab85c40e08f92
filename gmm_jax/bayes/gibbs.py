"""Gibbs sampling by data augmentation: labels given θ, then φ, μ and Σ given labels, all conjugate, in one scan.

z_n | θ ~ Categorical(r_n); φ | z ~ Dirichlet(α + n_k); μ_k | Σ_k, z normal; Σ_k | μ_k, z inverse Wishart (or inverse
gamma). The sums are EM's, with sampled labels in place of responsibilities.

Reference:
    Diebolt & Robert (1994), JRSS B 56; Frühwirth-Schnatter (2006), Finite Mixture and Markov Switching Models, ch. 3.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from ..em.m_step import law_of_size
from ..mixture import GMM, ONE_AT_A_TIME, MixtureSpec, NotSupported, Posterior, Status, moments, put, share
from ..mixture.annotations import condition, groups_at_once, strike_out, there, ungroup
from ..mixture.checks import check_count
from ..mixture.cores import in_batches, on_each, together
from ..mixture.covariance import structure
from ..mixture.factor import cholesky, inverse_cholesky
from ..mixture.gmm import deviations, log_joint_components_first
from ..mixture.moments import Moments, Precision, chosen, e_step, ill_conditioned, work_of_step
from ..mixture.programs import jit
from .jumps import EVERY, check_modes, jump
from .model import MATRIX, Problem, assemble
from .prior import Hyperparameters, conjugate
from .target import begin, constrain, finish, first_that, prior_of, run_chunks
from .tempering import exchange, first_temperatures, in_line, powers, respaced, spread_order
from .variates import Noise, Proposals, draw_noise, inverse_wishart, log_gamma, wishart

LONG_WORK = 1 << 28  # multiplications of the sums, which take seconds where LLVM has not optimised them
CHUNK = 250  # sweeps between two looks from the host
PLACING = 50  # the same, where the host places the temperatures


def gibbs(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_chains: int = 4,
    n_warmup: int = 500,
    n_draws: int = 1000,
    init: GMM | None = None,
    n_temperatures: int = 1,
    modes: GMM | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    until: Callable[[Posterior], bool] | None = None,
) -> Posterior:
    """Posterior draws by Gibbs sampling, under a semi-conjugate prior (the default one is).

    Args:
        init: None for EM's optima in turn, one GMM to start around it, or a GMM with a leading axis of n_chains.
        n_temperatures: of parallel tempering, from the prior to the posterior (see tempering.py). With 1, which is
            none, a chain can stay in one mode for ever, which R-hat shows; with 12 to 20 it goes from mode to mode, at
            n_temperatures times the cost and memory. They are placed in the warm-up, which should then be longer.
        modes: mixtures, leading axis, between which chains also try to jump (see jumps.py), with nothing known;
            `bayes.jumps.modes_of` finds them. Component k of one is carried to component k of another.
        labels: the component of each row, -1 where unknown: component k is then class k, which relabelling leaves.
        missing: "marginalise" takes NaN in x as missing at random, and draws these entries with the labels.
        progress: called between chunks with (sweeps done, sweeps).
        until: called with the posterior; while it says False the chains go on until they have made twice as many
            sweeps, of which again n_draws are kept, evenly spread, after a warm-up in the same proportion.

    Returns:
        Posterior; stats: occupied (C, S), the number of components that hold a sample; with modes also jumps (C,), how
        many of a chain's were accepted; with tempering arrivals (C,), how many mixtures came all the way from the
        prior: as many independent starts, and with none a chain may as well be stuck; and exchange_rate
        (C, n_temperatures − 1), the acceptance between neighbours.

    Raises:
        NotSupported: the prior is not Dirichlet, normal, and inverse Wishart or inverse gamma; or tempering or jumps
            are asked for with labels or missing values, or jumps with tempering or known parts.
    """
    check_count(n_temperatures, "n_temperatures")
    tempered = n_temperatures > 1
    how = {"labels": labels, "missing": missing, "padded": not tempered}
    problem, scaling, first, key = begin(key, x, spec, init, n_chains, n_warmup, n_draws, **how)
    annotated = problem.annotations.labels is not None or problem.annotations.groups is not None
    if tempered and annotated:
        raise NotSupported(
            "tempering (n_temperatures > 1) has neither labels nor missing values: use n_temperatures=1, or nuts."
        )
    if modes is not None and (tempered or annotated):
        raise NotSupported("jumps between modes have no tempering, labels or missing values: leave modes out.")
    hyper = conjugate(problem, "gibbs")
    size = min(PLACING if tempered else CHUNK, 50 * -(-(n_warmup + n_draws) // 50))
    if tempered:  # else rows keep the order of their labels and gaps
        problem = replace(problem, z=in_line(problem.z)[spread_order(problem.z.shape[0])])

    def advance(parts, start):
        nonlocal rows
        sums = "fast" if fast and not any(np.any(chains.ill_conditioned) for chains in parts) else "exact"
        compiled_for = "long" if start * work > LONG_WORK else "speed"
        how = {"compiled_for": compiled_for, "n_sweeps": size, "sums": sums}
        done = on_each(_advance, parts, problem, hyper, rows, modes, **how)
        if tempered and start + size <= n_warmup:
            rates = together([output.exchange_rate for _, output in done], n_chains)
            rows = respaced(rows, np.mean(rates, axis=(0, 1)))
        return done

    work = work_of_step(n_chains * n_temperatures, *problem.z.shape[:1], spec.n_components, problem.z.shape[1])
    fast = not tempered and problem.annotations.groups is None
    rows = first_temperatures(n_temperatures, problem.z.shape[0]).astype(problem.z.dtype)
    chains = _begin(key, problem, first, n_temperatures)
    if modes is not None:
        check_modes(modes, spec, problem.z.shape[1])
        modes = jax.tree.map(lambda leaf: np.asarray(leaf, problem.z.dtype), scaling.inward(modes))

    def posterior_of(kept):
        stats = {"occupied": kept.occupied}
        if modes is not None:
            stats |= {"jumps": kept.jumps[:, -1]}
        if tempered:
            stats |= {"arrivals": kept.arrived.sum(axis=1), "exchange_rate": kept.exchange_rate.mean(axis=1)}
        log_density = kept.log_likelihood + np.asarray(prior_of(problem, kept.gmm))
        return finish(problem, scaling, kept.gmm, log_density, stats, Status.SAMPLED)

    return first_that(until, map(posterior_of, run_chunks(advance, chains, n_warmup, n_draws, size, progress)))


class Chain(NamedTuple):
    """What one chain carries from sweep to sweep."""

    key: Array
    gmms: GMM  # one for each temperature, (L, ...)
    climbs: Array  # (L,) whether the mixture was last at the prior, and not at the top
    jumps: Array  # () accepted so far
    ill_conditioned: Array  # () whether the next sums are to be taken from deviations, for some mixture


class Output(NamedTuple):
    """What one chain reports before each sweep, at the temperature of the posterior."""

    gmm: GMM
    log_likelihood: Array  # ()
    occupied: Array  # () its components that hold a sample, by the labels that the sweep draws
    arrived: Array  # () whether it has come all the way from the prior
    exchange_rate: Array  # (L − 1,)
    jumps: Array  # () accepted so far


@partial(jit, static_argnames="n_temperatures")
def _begin(key, problem, starts, n_temperatures):
    gmms = jax.vmap(lambda u: assemble(problem, constrain(problem, u)[0]))(starts)
    tiled = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], n_temperatures, axis=1), gmms)
    n_chains = starts.shape[0]
    keys, climbs = jax.random.split(key, n_chains), jnp.zeros((n_chains, n_temperatures), bool)
    return Chain(keys, tiled, climbs, jnp.zeros(n_chains, int), jax.vmap(_any_ill_conditioned)(tiled))


def _any_ill_conditioned(gmms):
    whitener = structure(gmms.covariance_type).whitener
    return jnp.any(jax.vmap(lambda gmm: ill_conditioned(gmm, whitener(gmm.covariances)))(gmms))


@partial(jax.jit, static_argnames=("n_sweeps", "sums"), compiler_options=ONE_AT_A_TIME)
def _advance(chains, problem, hyper, rows, modes, n_sweeps, sums):
    n_temperatures = rows.size
    power = powers(rows, problem.z.shape[0]) if n_temperatures > 1 else None  # multiplying by 1 cost 7 %

    def step(chain, numbered):
        turn, key_exchange, keys = numbered
        key_exchange, key_jump = jax.random.split(key_exchange) if modes is not None else (key_exchange, None)
        source, rate = exchange(key_exchange, problem.z, rows, chain.gmms, turn)
        gmms, climbs = jax.tree.map(lambda leaf: leaf[source], (chain.gmms, chain.climbs))
        arrived = climbs[-1]
        climbs = climbs.at[-1].set(False).at[0].set(n_temperatures > 1)
        swept = jax.vmap(partial(sweep, sums=sums), in_axes=(0, None, None, 0, 0))(keys, problem, hyper, gmms, power)
        before, top = jax.tree.map(lambda leaf: leaf[-1], (gmms, swept))
        gmms, jumped = swept.gmm, jnp.zeros(n_temperatures, bool)
        if modes is not None:
            each = jax.vmap(partial(jump, key_jump, problem, modes, sums))
            gmms, jumped = jax.lax.cond(turn % EVERY == 0, each, lambda gmms: (gmms, jumped), gmms)
        jumps = chain.jumps + jumped[-1]
        output = Output(before, top.log_likelihood, jnp.sum(top.counts > 0.0), arrived, rate, jumps)
        return chain._replace(gmms=gmms, climbs=climbs, jumps=jumps), output

    def run(chain):
        # an even number of sweeps, so that turns go on from one call to the next
        key, key_exchange, key_sweeps = jax.random.split(chain.key, 3)
        keys = jax.random.split(key_exchange, n_sweeps), jax.random.split(key_sweeps, (n_sweeps, n_temperatures))
        chain, output = jax.lax.scan(step, chain, (jnp.arange(n_sweeps), *keys))
        return chain._replace(key=key, ill_conditioned=_any_ill_conditioned(chain.gmms)), output

    return jax.vmap(run)(chains)


class Swept(NamedTuple):
    """What a sweep leaves behind."""

    gmm: GMM
    counts: Array  # (K,) n_k of the labels drawn
    log_likelihood: Array  # () of the mixture before the sweep, without powers


def sweep(
    key, problem, hyper: Hyperparameters, gmm: GMM, power: Float[Array, "N"] | None = None, sums: Precision = "exact"
) -> Swept:
    """One sweep over z, φ, μ, Σ.

    With powers w_n it leaves p(θ) Π_n Σ_k φ_k N(z_n | μ_k, Σ_k)^w_n invariant: μ and Σ count a sample w_n times, and φ
    once, or not at all where w_n = 0. `sums` is how the sums are taken where there are neither powers nor gaps.
    """
    noise = draw_noise(key, problem.z.shape[0], *gmm.means.shape, problem.z.dtype)
    if power is None and problem.annotations.groups is None:
        _, labels, _, n_rows = problem.annotations
        moments = e_step(gmm, problem.z, labels=labels, uniforms=noise.labels, n_rows=n_rows, sums=sums)
        counts = moments.mass
    else:
        moments, counts = _sums_of_powers(noise, problem, gmm, power)
    weights = draw_weights(noise.weights, hyper.alpha + counts, problem.spec.known.weights)
    new = draw_components(noise, problem, hyper, gmm, moments)
    return Swept(replace(new, weights=weights), counts, moments.log_likelihood)


def _sums_of_powers(noise, problem, gmm, power):
    """The sums of rows counted w_n times, unseen entries drawn, and the counts of labels where w_n > 0."""
    if problem.annotations.groups is None:
        d = deviations(gmm, problem.z)
        density = log_densities(gmm, d)
    else:
        d, density = _draw_gaps(noise.key, gmm, problem)
    real = there(d.shape[-1], problem.annotations.n_rows)
    power = real.astype(d.dtype) if power is None else power
    log_weights = jnp.log(gmm.weights)[:, None]
    joint = strike_out(log_weights + power[None] * density, problem.annotations.labels)
    labels = chosen(jax.nn.softmax(joint, axis=0), jnp.ones_like(noise.labels), noise.labels)  # (K, N) one-hot
    log_prob = logsumexp(strike_out(log_weights + density, problem.annotations.labels), axis=0)
    log_prob = jnp.where(real, log_prob, 0.0)
    return moments(gmm, d, labels * power[None], log_prob), jnp.sum(labels * (power > 0.0)[None], axis=1)


def log_densities(gmm: GMM, d: Float[Array, "K D N"]) -> Float[Array, "K N"]:
    """log N(z_n | μ_k, Σ_k) from the deviations d = z_n − μ_k."""
    return log_joint_components_first(replace(gmm, weights=jnp.ones_like(gmm.weights)), d)


def _draw_gaps(key, gmm, problem):
    """Deviations (K, D, N) with unseen entries drawn given the seen ones and each component, and log N of the seen.

    If e ~ N(0, Σ), then e_u − E[e_u | e_o] has the conditional covariance.
    """
    groups, kind = problem.annotations.groups, structure(gmm.covariance_type)
    even = replace(gmm, weights=jnp.ones_like(gmm.weights))
    root = cholesky(kind.dense(gmm.covariances, *gmm.means.shape))

    def one(group):
        key, members, seen = group
        density, d, _ = condition(even, problem.z[members], seen)
        e = root @ jax.random.normal(key, d.shape, d.dtype)
        expected = kind.condition(gmm.covariances, seen, jnp.where(seen[:, None], e, 0.0))[2]
        return (d + jnp.where(seen[:, None], 0.0, e - expected)).transpose(2, 0, 1), density.T

    keys = jax.random.split(key, groups.rows.shape[0])
    drawn = in_batches(one, (keys, *groups), groups_at_once(groups, gmm))
    d, density = (ungroup(groups, leaf, problem.z.shape[0]) for leaf in drawn)
    return d.transpose(1, 2, 0), density.T


def draw_weights(noise: Proposals, concentration: Float[Array, "K"], known=None) -> Float[Array, "K"]:
    """Dirichlet over the free φ, which share what the known ones leave."""
    gammas = log_gamma(noise, concentration)
    if known is None:
        return jax.nn.softmax(gammas)
    return share(jax.nn.softmax(jnp.where(jnp.isnan(known), gammas, -jnp.inf)), known)


def draw_components(noise: Noise, problem: Problem, hyper: Hyperparameters, gmm: GMM, sums: Moments) -> GMM:
    """The mixture with new μ and Σ given the sums of labelled rows about its means."""
    known, kind = problem.spec.known, structure(gmm.covariance_type)
    means = put(known.means, _draw_means(noise.means, hyper, gmm, sums))
    mass = jnp.maximum(sums.mass, jnp.finfo(sums.mass.dtype).tiny)  # an empty one adds nothing to a shared covariance
    residual = kind.estimate(mass, sums.second, sums.first / mass[:, None], means - gmm.means)
    hyper = _with_drawn_size(noise, hyper, gmm, known, sums.mass)
    covariances = _draw_covariances(noise, hyper, gmm.covariance_type, sums.mass, residual)
    return replace(gmm, means=means, covariances=put(known.covariances, covariances))


def _with_drawn_size(noise, hyper, gmm, known, mass):
    """The hyperparameters with an unknown scale drawn given Σ of the components that hold a sample.

    Those of the others are integrated out: their law is the prior's, from which they are drawn next.
    """
    if hyper.size_dof is None:
        return hyper
    shape, rate = law_of_size(gmm, known, hyper, counts=mass > 0.0)
    if gmm.covariance_type in MATRIX:
        return hyper._replace(size=wishart(noise.scale_below, noise.scale, shape, rate))
    noise = noise.scale if gmm.covariance_type == "diag" else noise.scale.at((0,))
    return hyper._replace(size=jnp.exp(log_gamma(noise, shape)) / rate)


def _draw_means(noise, hyper, gmm, sums):
    """μ_k | Σ_k, z ~ N(A⁻¹b, A⁻¹), A = Λ₀ + n_k Σ_k⁻¹, b = Λ₀ m₀ + Σ_k⁻¹ Σ_n x_n, about the current means."""
    dense = structure(gmm.covariance_type).dense(gmm.covariances, *gmm.means.shape)

    def one(mean, covariance, mass, first, noise):
        whitener = inverse_cholesky(covariance)
        precision = whitener.T @ whitener
        root = inverse_cholesky(hyper.precision + mass * precision)  # A⁻¹ = rootᵀ root
        pull = hyper.precision @ (hyper.loc - mean) + precision @ first
        return mean + root.T @ (root @ pull + noise)

    return jax.vmap(one)(gmm.means, dense, sums.mass, sums.first, noise)


def _draw_covariances(noise, hyper, covariance_type, mass, residual):
    """Σ | μ, z from residual covariances about the new means."""
    below, scales = noise.below, noise.scales
    if covariance_type == "tied":
        below, scales, mass = below[0], scales.at(0), jnp.sum(mass)
    if covariance_type in MATRIX:
        return inverse_wishart(below, scales, hyper.dof + mass, hyper.size + mass[..., None, None] * residual)
    if covariance_type == "diag":
        numbers = mass[:, None]  # that speak of each variance
    else:
        numbers, scales = hyper.loc.size * mass, scales.at((slice(None), 0))
    rate = hyper.size + numbers * residual / 2.0
    return rate * jnp.exp(-log_gamma(scales, jnp.broadcast_to(hyper.dof + numbers / 2.0, rate.shape)))
