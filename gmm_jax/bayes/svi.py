"""Variational inference on the NumPyro model: q(θ) by stochastic gradients of the ELBO, or the mode (delta guide).

A chain is an independent optimisation from its own start; chains that end apart are in different modes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import GMM, ONE_AT_A_TIME, MixtureSpec, Posterior, Status
from ..mixture.checks import check_count
from ..mixture.programs import jit
from .importance import weighted
from .model import assemble, model
from .target import begin, bijectors, constrain, density_of, finish

GUIDES = {  # ours: NumPyro's
    "normal": "AutoNormal",
    "multivariate": "AutoMultivariateNormal",
    "low_rank": "AutoLowRankMultivariateNormal",
    "delta": "AutoDelta",
}
STEP_SIZE = 0.02


def svi(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_chains: int = 4,
    n_warmup: int = 2000,
    n_draws: int = 1000,
    init: GMM | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
    guide: str = "normal",
) -> Posterior:
    """Draws from a variational approximation of the posterior, by NumPyro.

    Args:
        n_warmup: gradient steps of Adam, the step size falling to zero along a cosine.
        init: None for EM's optima in turn, one GMM to start around it, or a GMM with a leading axis of n_chains.
        labels: the component of each row, -1 where unknown: component k is then class k, which relabelling leaves.
        missing: "marginalise" takes NaN in x as missing at random; the density is of what was seen.
        guide: "normal" (independent normals in unconstrained space: variances come out too small), "multivariate"
            (one joint normal), "low_rank" (one whose covariance is a diagonal and a matrix of rank √P), or "delta":
            the mode of the posterior density of the sites in constrained space (MAP), polished by BFGS; then there is
            one draw a chain, whatever n_draws.

    Returns:
        Posterior; stats: elbo (C,), the evidence lower bound at the end, nats, in standardised units. The chain with
        the highest is the best approximation. But for "delta" also pareto_k (C,), and log_weight (C, S) for
        `corrected_moments`; then the status is UNRELIABLE where a k̂ is above 0.7.

    Reference:
        Kucukelbir et al. (2017), Automatic differentiation variational inference, JMLR 18.
    """
    if guide not in GUIDES:
        raise ValueError(f"guide must be one of {', '.join(GUIDES)}; got {guide!r}.")
    check_count(n_warmup, "n_warmup")
    problem, scaling, first, key = begin(key, x, spec, init, n_chains, n_warmup, n_draws, labels, missing)
    n_kept = 1 if guide == "delta" else n_draws
    draws, log_ratio, elbo = jax.tree.map(np.asarray, _optimise(key, problem, first, guide, n_warmup, n_kept))
    stats, status = ({}, Status.SAMPLED) if guide == "delta" else weighted(log_ratio)
    return finish(problem, scaling, draws, density_of(problem, draws), stats | {"elbo": elbo}, status)


@partial(jit, static_argnames=("guide", "n_steps", "n_draws"), compiler_options=ONE_AT_A_TIME)
def _optimise(key, problem, starts, guide, n_steps, n_draws):
    keys = jax.random.split(key, starts.shape[0])
    return jax.vmap(partial(_one, problem, guide, n_steps, n_draws))(keys, starts)


def _one(problem, guide_name, n_steps, n_draws, key, u):
    from numpyro.infer import SVI, autoguide, init_to_value
    from numpyro.optim import Adam, Minimize

    key_init, key_draws = jax.random.split(key)
    spread = {} if guide_name == "delta" else {"init_scale": 0.05}
    first = init_to_value(values=constrain(problem, u)[0])
    guide = getattr(autoguide, GUIDES[guide_name])(model, init_loc_fn=first, **spread)
    elbo = NegativeElbo(1 if guide_name == "delta" else 4)
    adam = SVI(model, guide, Adam(lambda i: 0.5 * STEP_SIZE * (1.0 + jnp.cos(jnp.pi * i / n_steps))), elbo)

    def update(state, _):
        state, loss = adam.update(state, problem)
        return state, loss

    state, losses = jax.lax.scan(update, adam.init(key_init, problem), None, length=n_steps)
    params = adam.get_params(state)
    if guide_name == "delta":
        polish = SVI(model, guide, Minimize(options={"gtol": 1e-10}), elbo)
        state, losses = polish.update(polish.init(key_init, problem, init_params=params), problem)
        params, losses = polish.get_params(state), losses[None]
    tail = max(losses.shape[0] // 20, 1)
    names = sorted(bijectors(problem))

    def draw(key):
        sites, log_ratio = weigh(key, params, model, guide, problem)
        return assemble(problem, {name: sites[name]["value"] for name in names}), log_ratio

    draws, log_ratio = jax.lax.map(draw, jax.random.split(key_draws, n_draws))
    return draws, log_ratio, -jnp.mean(losses[-tail:])


def weigh(key, params, model, guide, *args):
    """A draw of the guide, as NumPyro's trace of its sites, and log p(x, θ) − log q(θ) there."""
    from numpyro.handlers import replay, seed
    from numpyro.infer.util import log_density

    log_q, drawn = log_density(seed(guide, key), args, {}, params)
    return drawn, log_density(replay(model, drawn), args, {}, params)[0] - log_q


class NegativeElbo:
    """E_q[log q(θ) − log p(x, θ)] by Monte Carlo, as NumPyro's SVI asks for it.

    NumPyro's own Trace_ELBO adds up sites in the order of a set of names: in the next process neither its last digits
    nor its compiled program would be the same.
    """

    can_infer_discrete = False

    def __init__(self, n_particles):
        self.n_particles = n_particles

    def loss(self, key, params, model, guide, *args):
        keys = jax.random.split(key, self.n_particles)
        return -jnp.mean(jax.vmap(lambda key: weigh(key, params, model, guide, *args)[1])(keys))
