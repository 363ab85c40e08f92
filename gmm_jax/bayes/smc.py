"""Sequential Monte Carlo: particles go from the prior to the posterior, and the evidence is what they gather.

The data come in row by row, the first ones spread over all, and a row that would change too much in parts: with w = 1
for rows that are in, p_w(θ) ∝ p(θ) Π_n Σ_k φ_k N(z_n | μ_k, Σ_k)^w_n is the prior at w = 0, with constant 1, and the
posterior at w = 1, with the evidence as its constant. A step takes as many rows, or as much of one, as the effective
sample size allows; a share of the particles is resampled, and all states of the Markov chains from there are the new
particles ("waste-free"). With few rows the modes are one, so that the K! labellings, and other modes, fill as their
mass demands.

Why not one power for all rows: a power of the mixture's likelihood has no conjugate moves; a power inside the sum over
components has, but then all labels freeze at one temperature (errors of 1 to 9 nats on the galaxies).

Reference:
    Chopin (2002), A sequential particle filter method for static models, Biometrika 89; Del Moral, Doucet & Jasra
    (2006), Sequential Monte Carlo samplers, JRSS B 68; Dau & Chopin (2022), Waste-free SMC, JRSS B 84.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from ..mixture import GMM, ONE_AT_A_TIME, MixtureSpec, NotSupported, Posterior, Status
from ..mixture.checks import check_count, check_key
from ..mixture.cores import divide, on_each, together
from ..mixture.gmm import deviations
from ..mixture.programs import jit
from .gibbs import log_densities, sweep
from .model import assemble, site_values
from .prior import Hyperparameters, conjugate
from .target import any_mixture, density_of, finish, prepare
from .tempering import in_line, spread_order

KEPT = 0.5  # effective share of the particles that a step leaves
GROWTH = 1.1  # ratio of the numbers of rows that a step may take
PARTICLE_NUMBERS = 1 << 17  # K·N·D·particles at a time, so that the deviations stay in the cache
SMALLEST = 1e-30  # part of a row
MOST_PARTS = 1000  # of a row: under a normal law it takes 34 in one dimension and 620 in 100, from 1e-30 to 1


def smc(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_chains: int = 4,
    n_warmup: int = 10,
    n_draws: int = 1000,
    init: None = None,
    labels: None = None,
    missing: None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Posterior:
    """Posterior draws in all labellings, and the evidence, by independent runs of sequential Monte Carlo.

    Moves are Gibbs sweeps, under a semi-conjugate prior (the default one is).

    Args:
        n_chains: independent runs; their scatter is the honest error of everything (see `evidence`).
        n_warmup: moves of each chain in every step.
        n_draws: particles of a run, and draws that it returns: n_draws / n_warmup chains, one after the other.
        init: must be None: particles start at draws of the prior, or there would be no evidence.
        labels, missing: must be None: rows come in one by one, each with its whole density.
        progress: called after each step with (rows that the slowest run has taken, rows).

    Returns:
        Posterior; stats: log_evidence (C,), log p(x) of the unordered model in the units of the data, nats, and
        log_evidence_error (C,), its standard error as one run sees it, too small where moves hardly mix;
        n_stages (C,), the distributions between prior and posterior. Status UNRELIABLE, without evidence, where one row
        was not in after 1000 steps: the rows before it, what is known and the prior leave no place for it.

    Raises:
        NotSupported: the prior is not semi-conjugate; there is an init, labels or missing values.
    """
    check_key(key)
    check_count(n_warmup, "n_warmup")
    if init is not None:
        raise NotSupported("smc starts from draws of the prior, so that init has no place: leave it out.")
    if labels is not None or missing is not None:
        raise NotSupported("smc has neither labels nor missing values: use nuts or gibbs, and bridge for evidence.")
    problem, scaling = prepare(x, spec, n_chains, n_warmup, n_draws)
    problem = replace(problem, z=in_line(problem.z))
    hyper = conjugate(problem, "smc")
    n_starts = max(2, -(-n_draws // n_warmup))
    parts = divide(_begin(key, problem, n_chains, n_starts))
    parts = on_each(_move, parts, problem, hyper, n_moves=n_warmup)  # a sweep over no rows draws from the prior
    parts, n_stages, status = _climb(parts, problem, hyper, n_warmup, n_chains, progress)
    runs = together([runs._replace(key=None) for runs in parts], n_chains)
    draws = jax.tree.map(lambda leaf: leaf[:, :n_draws], runs.particles)
    log_evidence = runs.log_evidence.astype(float) - problem.z.shape[0] * scaling.log_volume
    stats = {
        "log_evidence": log_evidence if status.ok else np.full(n_chains, np.nan),
        "log_evidence_error": np.sqrt(runs.variance.astype(float)),
        "n_stages": n_stages,
    }
    return finish(problem, scaling, draws, density_of(problem, draws), stats, status)


def _climb(parts, problem, hyper, n_moves, n_chains, progress):
    """The runs where they ended, how many distributions each went through, and why they ended."""
    n_samples, status = problem.z.shape[0], Status.RUNNING
    n_taken, n_parts, n_stages = np.zeros((3, n_chains), int)
    while status == Status.RUNNING:
        before = n_taken
        parts = on_each(_weigh, parts, problem, n_moves=n_moves)
        parts = on_each(_move, parts, problem, hyper, n_moves=n_moves)
        found = [(runs.n_taken, runs.part, runs.log_evidence) for runs in parts]
        n_taken, part, log_evidence = together(found, n_chains)
        n_stages += before < n_samples
        n_parts = np.where(n_taken > before, 0, n_parts + (n_taken < n_samples))
        if progress is not None:
            progress(int(np.min(n_taken + part)), n_samples)
        if not np.all(np.isfinite(log_evidence)):
            status = Status.NON_FINITE
        elif np.any(n_parts == MOST_PARTS):
            status = Status.UNRELIABLE
        elif np.all(n_taken == n_samples):
            status = Status.SAMPLED
    return parts, n_stages, status


class Runs(NamedTuple):
    """What runs carry from one distribution to the next; every leaf has a leading (C,)."""

    key: Array
    rows: Array  # (C, N, D): the data in each run's order
    n_taken: Array  # rows that are in
    part: Array  # w of the next row
    particles: GMM  # (C, S, ...): chains one after the other
    log_evidence: Array  # so far, standardised
    variance: Array  # of log_evidence


@partial(jit, static_argnames=("n_chains", "n_starts"), compiler_options=ONE_AT_A_TIME)
def _begin(key, problem, n_chains, n_starts):
    key_turn, key_run = jax.random.split(key)
    n_samples = problem.z.shape[0]
    turns = jax.random.randint(key_turn, (n_chains, 1), 0, n_samples)
    rows = problem.z[(spread_order(n_samples)[None] + turns) % n_samples]
    zeros = jnp.zeros(n_chains, problem.z.dtype)
    any_one = assemble(problem, site_values(problem, any_mixture(problem)))
    particles = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n_chains, n_starts, *leaf.shape)), any_one)
    return Runs(jax.random.split(key_run, n_chains), rows, jnp.zeros(n_chains, int), zeros, particles, zeros, zeros)


@partial(jax.jit, static_argnames="n_moves", compiler_options=ONE_AT_A_TIME)
def _weigh(runs, problem, n_moves):
    """Every run reaches for its next distribution; its particles become the starts of chains (C, M, ...)."""
    key, key_resample = jnp.moveaxis(jax.vmap(jax.random.split)(runs.key), 1, 0)
    reach = jax.vmap(partial(_reach, problem.z.shape[0]))
    n_taken, part, log_weights = reach(runs.n_taken, runs.part, *_look_ahead(problem, runs))
    log_mean, variance, ancestors = jax.vmap(partial(_reweigh, n_moves))(key_resample, log_weights)
    gained = {"log_evidence": runs.log_evidence + log_mean, "variance": runs.variance + variance}
    particles = jax.vmap(_at)(runs.particles, ancestors)
    return runs._replace(key=key, n_taken=n_taken, part=part, particles=particles, **gained)


@partial(jax.jit, static_argnames="n_moves", compiler_options=ONE_AT_A_TIME)
def _move(runs, problem, hyper: Hyperparameters, n_moves):
    """The chains' states: particles (C, M·n_moves, ...)."""
    n_runs, n_starts = _shape(runs.particles)
    keys = jax.vmap(lambda key: jax.random.split(key, n_starts + 1))(runs.key)
    power = jax.vmap(partial(_power, problem.z.shape[0]))(runs.n_taken, runs.part)

    def chain(begun, run):
        (key, start), (rows, power) = begun, run

        def move(gmm, key):
            new = sweep(key, replace(problem, z=rows), hyper, gmm, power)[0]
            return new, new

        return jax.lax.scan(move, start, jax.random.split(key, n_moves))[1]

    states = _over_particles(problem, chain, (keys[:, 1:], runs.particles), (runs.rows, power))
    particles = jax.tree.map(lambda leaf: leaf.reshape(n_runs, -1, *leaf.shape[3:]), states)
    return runs._replace(key=keys[:, 0], particles=particles)


def _look_ahead(problem, runs):
    """Log weights if so many more rows came in, (C, S, E); log φ and log N of the next row, (C, S, K)."""
    n_samples = problem.z.shape[0]
    strides = _strides(n_samples)

    def one(gmm, runs):
        log_phi, density = jnp.log(gmm.weights), log_densities(gmm, deviations(gmm, runs.rows))
        coming = density[:, jnp.minimum(runs.n_taken, n_samples - 1)]
        gain = jnp.where(jnp.arange(n_samples) >= runs.n_taken, logsumexp(log_phi[:, None] + density, axis=0), 0.0)
        done = jnp.where(runs.n_taken < n_samples, logsumexp(log_phi + runs.part * coming), 0.0)
        return jnp.cumsum(gain)[jnp.minimum(runs.n_taken + strides, n_samples) - 1] - done, log_phi, coming

    return _over_particles(problem, one, runs.particles, runs)


def _strides(n_samples):
    """Numbers of rows in about equal ratios, from 1 to all."""
    sizes = GROWTH ** np.arange(np.log(n_samples) / np.log(GROWTH))
    return np.unique(np.append(np.round(sizes), n_samples)).astype(int)


def _reach(n_samples, n_taken, part, log_weights, log_phi, coming):
    """As many more rows as leave the effective share KEPT, or as much of the next one; and the log weights (S,)."""
    enough = jnp.cumprod(jax.vmap(_share, in_axes=1)(log_weights) >= KEPT)
    last = jnp.maximum(jnp.sum(enough) - 1, 0)

    def partly(part):
        return logsumexp(log_phi + part * coming, axis=1)

    def halve(_, bounds):
        middle = 0.5 * (bounds[0] + bounds[1])
        keeps = _share(partly(part + jnp.exp(middle)) - partly(part)) >= KEPT
        return jnp.where(keeps, middle, bounds[0]), jnp.where(keeps, bounds[1], middle)

    bounds = jnp.asarray(np.log(SMALLEST), part.dtype), jnp.log1p(-part)
    more = part + jnp.exp(jax.lax.fori_loop(0, 40, halve, bounds)[0])
    whole = enough[0] > 0
    rows = jnp.minimum(n_taken + jnp.asarray(_strides(n_samples), n_taken.dtype)[last], n_samples)
    return (
        jnp.where(whole, rows, n_taken),
        jnp.where(whole, 0.0, more),
        jnp.where(whole, log_weights[:, last], partly(more) - partly(part)),
    )


def _share(log_weights):
    """Effective sample size, (Σ w)² / Σ w², over the number of particles; NaN weighs nothing."""
    log_weights = jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)
    return jnp.exp(2.0 * logsumexp(log_weights) - logsumexp(2.0 * log_weights)) / log_weights.size


def _reweigh(n_moves, key, log_weights):
    """log of the mean weight, its variance from that between chains, and the ancestors by systematic resampling."""
    n_particles, n_starts = log_weights.size, log_weights.size // n_moves
    log_weights = jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)
    log_mean = logsumexp(log_weights) - np.log(n_particles)
    weights = jnp.exp(log_weights - log_mean)
    variance = jnp.var(jnp.mean(weights.reshape(n_starts, n_moves), axis=1), ddof=1) / n_starts
    steps = jnp.cumsum(weights)
    places = (jnp.arange(n_starts) + jax.random.uniform(key, (), weights.dtype)) / n_starts * steps[-1]
    ancestors = jnp.minimum(jnp.searchsorted(steps, places, side="right"), n_particles - 1)
    return log_mean, variance, ancestors


def _power(n_samples, n_taken, part):
    """w_n: 1 for rows that are in, a part of the one that is coming in, 0 for those to come: (N,)."""
    place = jnp.arange(n_samples)
    return jnp.where(place < n_taken, 1.0, jnp.where(place == n_taken, part, 0.0))


def _over_particles(problem, function, particles, runs):
    """function(particle, run) for particles (C, L, ...) and what belongs to their runs (C, ...), some at a time."""
    n_runs, n_each = _shape(particles)
    total = n_runs * n_each
    n_rounds = -(-total * problem.z.size * problem.spec.n_components // PARTICLE_NUMBERS)
    at_once = -(-total // min(n_rounds, total))
    index = np.minimum(np.arange(-(-total // at_once) * at_once), total - 1)  # the last one fills up

    def at(run, one):
        return function(_at(particles, (run, one)), _at(runs, run))

    def flat(leaf):
        return leaf.reshape(-1, *leaf.shape[2:])[:total].reshape(n_runs, n_each, *leaf.shape[2:])

    places = tuple(i.reshape(-1, at_once) for i in np.divmod(index, n_each))
    return jax.tree.map(flat, jax.lax.map(lambda place: jax.vmap(at)(*place), places))


def _at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _shape(tree):
    return jax.tree.leaves(tree)[0].shape[:2]
