"""MCMC kernels that leave p_w(θ) ∝ p(θ) Π_n Σ_k φ_k N(z_n | μ_k, Σ_k)^w_n invariant, for any powers w: what smc needs.

Two kinds with the same methods: first (a particle), mixture (its mixture), tune (what chains share), chain (the steps).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp

from ..mixture import NotSupported
from ..mixture.gmm import deviations
from .gibbs import log_densities, sweep
from .model import Problem, assemble, draw_prior, site_values
from .prior import Hyperparameters, conjugate
from .target import any_mixture, constrain, log_prior, unconstrained

LEAPFROG_STEPS = 8
TARGET_ACCEPT = 0.8


def choose_kernel(problem: Problem) -> Gibbs | Hamiltonian:
    """Gibbs where the prior is semi-conjugate."""
    try:
        return Gibbs(conjugate(problem, "smc"))
    except NotSupported:
        return Hamiltonian()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gibbs:
    """Gibbs sweeps for a semi-conjugate prior; a particle is a mixture."""

    hyper: Hyperparameters

    def first(self, problem, key):
        """A particle: any will do, as a sweep over no rows draws from the prior."""
        return assemble(problem, site_values(problem, any_mixture(problem)))

    def mixture(self, problem, particle):
        """Its mixture, standardised."""
        return particle

    def tune(self, problem, log_step, starts, power):
        """What the chains of a run have in common: (M, ...) starts -> any pytree."""
        return ()

    def chain(self, key, problem, start, power, tuning, n_moves):
        """The n_moves states after start, and their mean acceptance."""

        def move(gmm, key):
            new = sweep(key, problem, self.hyper, gmm, power)[0]
            return new, new

        return jax.lax.scan(move, start, jax.random.split(key, n_moves))[1], jnp.ones((), power.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hamiltonian:
    """Hamiltonian trajectories for any prior; a particle is a vector of unconstrained coordinates."""

    def first(self, problem, key):
        """A draw from the prior."""
        return ravel_pytree(unconstrained(problem, draw_prior(key, problem)))[0]

    def mixture(self, problem, particle):
        return assemble(problem, constrain(problem, particle)[0])

    def tune(self, problem, log_step, starts, power):
        """The step, and the inverse mean squared gradient: the width of a mode, not the distance between modes.

        E[∇ log p ∇ log pᵀ] = −E[∇² log p] is an average over modes; the particles' variance is not.
        """
        gradients = jax.vmap(jax.grad(partial(self.log_density, problem, power)))(starts)
        return jnp.exp(log_step), 1.0 / jnp.maximum(jnp.mean(gradients**2, axis=0), jnp.finfo(gradients.dtype).tiny)

    def chain(self, key, problem, start, power, tuning, n_moves):
        from blackjax.mcmc.hmc import build_kernel, init

        density, kernel = jax.jit(partial(self.log_density, problem, power)), build_kernel()
        step, inverse_mass = tuning

        def move(state, key):
            key_size, key_move = jax.random.split(key)
            size = step * jax.random.uniform(key_size, (), start.dtype, 0.5, 1.0)  # or orbits close
            state, info = kernel(key_move, state, density, size, inverse_mass, LEAPFROG_STEPS)
            return state, (state.position, info.acceptance_rate)

        states, rates = jax.lax.scan(move, init(start, density), jax.random.split(key, n_moves))[1]
        return states, jnp.mean(rates)

    def log_density(self, problem, power, particle):
        """log p_w in unconstrained coordinates, up to its constant."""
        values, jacobian = constrain(problem, particle)
        gmm = assemble(problem, values)
        joint = jnp.log(gmm.weights)[:, None] + power[None] * log_densities(gmm, deviations(gmm, problem.z))
        return log_prior(problem, values) + jacobian + jnp.sum(logsumexp(joint, axis=0))
