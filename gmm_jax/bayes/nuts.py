"""NUTS on the NumPyro model's potential, driven by BlackJAX: one step traced once, chains divided over the cores.

Warm-up is Stan's: the step size by dual averaging, the diagonal mass matrix in doubling windows.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import GMM, ONE_AT_A_TIME, MixtureSpec, Posterior, Status
from ..mixture.checks import check_count
from ..mixture.cores import on_each
from ..mixture.programs import jit
from .target import begin, finish, first_that, log_posterior, read_draws, run_chunks

CHUNK = 250  # steps between two looks from the host


def nuts(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_chains: int = 4,
    n_warmup: int = 500,
    n_draws: int = 1000,
    init: GMM | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
    target_accept: float = 0.8,
    max_depth: int = 10,
    progress: Callable[[int, int], None] | None = None,
    until: Callable[[Posterior], bool] | None = None,
) -> Posterior:
    """Posterior draws by the No-U-Turn sampler.

    Args:
        init: None for EM's optima in turn, one GMM to start around it, or a GMM with a leading axis of n_chains.
        labels: the component of each row, -1 where unknown: component k is then class k, which relabelling leaves.
        missing: "marginalise" takes NaN in x as missing at random; the density is of what was seen.
        target_accept: mean acceptance probability to tune the step size for; raise it where transitions diverge.
        max_depth: at most 2**max_depth leapfrog steps a draw.
        progress: called between chunks with (steps done, steps).
        until: as in `gibbs`: while it says False of the posterior, the chains go on.

    Returns:
        Posterior; stats: acceptance_rate, diverging, n_steps, energy (C, S) and step_size (C,). Status DIVERGENT where
        a transition after warm-up diverged. Chains stuck in different modes are seen by R-hat, not here.

    Reference:
        Hoffman & Gelman (2014), JMLR 15; Betancourt (2017), arXiv:1701.02434.
    """
    if not 0.0 < target_accept < 1.0:
        raise ValueError(f"target_accept must lie between 0 and 1; got {target_accept!r}.")
    check_count(max_depth, "max_depth")
    problem, scaling, first, key = begin(key, x, spec, init, n_chains, n_warmup, n_draws, labels, missing)
    total = n_warmup + n_draws
    size = min(CHUNK, 50 * -(-total // 50))
    stages = _stages(n_warmup, -(-total // size) * size)
    target = np.asarray(target_accept, problem.z.dtype)

    def advance(parts, start):
        now = stages[start : start + size] if start < len(stages) else np.zeros((size, 3), bool)
        return on_each(_advance, parts, problem, now, target, max_depth=max_depth)

    def posterior_of(kept):
        position, stats = kept
        stats = stats | {"step_size": stats["step_size"][:, -1]}
        draws, log_density, _ = read_draws(problem, position)
        status = Status.DIVERGENT if stats["diverging"].any() else Status.SAMPLED
        return finish(problem, scaling, draws, log_density, stats, status)

    chains = _begin(key, problem, first)
    return first_that(until, map(posterior_of, run_chunks(advance, chains, n_warmup, n_draws, size, progress)))


class Chain(NamedTuple):
    """What one chain carries from step to step."""

    key: Array
    state: NamedTuple  # BlackJAX: position, log density, gradient
    step_size: NamedTuple  # dual averaging
    mass: NamedTuple  # Welford sums and the inverse mass matrix


def _stages(n_warmup, n_steps):
    """(T, 3) bool: adapts the step size, feeds the mass matrix, ends a window; all False while drawing."""
    from blackjax.adaptation.window_adaptation import build_schedule

    stages = np.zeros((n_steps, 3), bool)
    if n_warmup:
        stages[:n_warmup, 0] = True
        stages[:n_warmup, 1:] = np.asarray(build_schedule(n_warmup), bool)
    return stages


def _adaptation(target_accept):
    from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    return dual_averaging_adaptation(target_accept), mass_matrix_adaptation(True)


@jit
def _begin(key, problem, starts):
    from blackjax.mcmc.nuts import init

    step_size = jnp.asarray(1.0 / np.sqrt(problem.z.shape[0]), starts.dtype)  # on whose scale a posterior varies
    (step_init, _, _), (mass_init, _, _) = _adaptation(0.8)

    def one(key, u):
        state = init(u, partial(log_posterior, problem))
        mass = jax.tree.map(lambda leaf: jnp.asarray(leaf, u.dtype), mass_init(u.size))
        # the average is what is left without any warm-up
        sizes = step_init(step_size)._replace(log_step_size_avg=jnp.log(step_size))
        parts = state, sizes, mass
        # without weak types, so that the first chunk runs the same program as the others
        return Chain(key, *jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), parts))

    return jax.vmap(one)(jax.random.split(key, starts.shape[0]), starts)


@partial(jax.jit, static_argnames="max_depth", compiler_options=ONE_AT_A_TIME)
def _advance(chains, problem, stages, target_accept, max_depth):
    """The next len(stages) steps of these chains."""
    from blackjax.mcmc.nuts import build_kernel

    kernel = build_kernel()
    density = jax.jit(partial(log_posterior, problem))  # traced once, though the kernel asks for it many times
    (step_init, step_update, step_final), (_, mass_update, mass_final) = _adaptation(target_accept)

    def step(chain, stage):
        adapts, feeds, ends = stage
        key, key_step = jax.random.split(chain.key)
        log_step = jnp.where(adapts, chain.step_size.log_step_size, chain.step_size.log_step_size_avg)
        size = jnp.exp(log_step)
        state, info = kernel(key_step, chain.state, density, size, chain.mass.inverse_mass_matrix, max_depth)
        sizes = _where(adapts, step_update(chain.step_size, info.acceptance_rate), chain.step_size)
        mass = _where(feeds, mass_update(chain.mass, state.position), chain.mass)
        mass = _where(ends, mass_final(mass), mass)
        sizes = _where(ends, step_init(step_final(sizes)), sizes)
        stats = {"acceptance_rate": info.acceptance_rate, "diverging": info.is_divergent}
        stats |= {"n_steps": info.num_integration_steps, "energy": info.energy, "step_size": size}
        return Chain(key, state, sizes, mass), (state.position, stats)

    def run(chain):
        return jax.lax.scan(step, chain, stages)

    # on a core one chain after the other: side by side all trees would be as deep as the deepest
    return jax.lax.map(run, chains) if jax.default_backend() == "cpu" else jax.vmap(run)(chains)


def _where(condition, a, b):
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old).astype(jnp.asarray(old).dtype), a, b)
