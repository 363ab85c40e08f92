"""NUTS on the same potential as `nuts`, driven by NumPyro's own MCMC: what the driver alone is worth, seen beside it.

The whole run is one jitted program and the potential takes one flat vector, which is how NumPyro is quickest here.
"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import GMM, ONE_AT_A_TIME, MixtureSpec, Posterior, Status
from .checks import check_counts
from .target import begin, finish, log_posterior, read_draws


def numpyro_nuts(
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
) -> Posterior:
    """Draws from the posterior by NumPyro's No-U-Turn sampler; slower than `nuts`, and the same law.

    Args:
        init: None for distinct k-means++ starts, one GMM to start around it, or a GMM with a leading axis of n_chains.
        labels: the component of each row, -1 where unknown: component k is then class k, which relabelling leaves.
        missing: "marginalise" takes NaN in x as missing at random; the density is of what was seen.
        target_accept: mean acceptance probability to tune the step size for.
        max_depth: at most 2**max_depth leapfrog steps a draw.

    Returns:
        Posterior; stats: acceptance_rate, diverging, n_steps, energy (C, S). Status DIVERGENT where a transition after
        warm-up diverged.

    Reference:
        Phan, Pradhan & Jankowiak (2019), Composable effects for flexible and accelerated probabilistic programming in
        NumPyro, arXiv:1912.11554.
    """
    if not 0.0 < target_accept < 1.0:
        raise ValueError(f"target_accept must lie between 0 and 1; got {target_accept!r}.")
    check_counts(max_depth=(max_depth, 1))
    size = {"n_chains": n_chains, "n_warmup": n_warmup, "n_draws": n_draws}
    problem, scaling, first, key = begin(key, x, spec, init, **size, labels=labels, missing=missing)
    position, stats = _run(key, problem, first, n_warmup, n_draws, target_accept, max_depth)
    stats = jax.tree.map(np.asarray, stats)
    draws, log_density, _ = read_draws(problem, np.asarray(position))
    status = Status.DIVERGENT if stats["diverging"].any() else Status.SAMPLED
    return finish(problem, scaling, draws, log_density, stats, status)


STATISTICS = {  # ours: NumPyro's
    "acceptance_rate": "accept_prob",
    "diverging": "diverging",
    "n_steps": "num_steps",
    "energy": "energy",
}


@partial(jax.jit, static_argnames=("n_warmup", "n_draws", "target_accept", "max_depth"), compiler_options=ONE_AT_A_TIME)
def _run(key, problem, first, n_warmup, n_draws, target_accept, max_depth):
    from numpyro.infer import MCMC, NUTS

    kernel = NUTS(  # new for every run: a vectorised kernel cannot run twice
        potential_fn=lambda u: -log_posterior(problem, u), target_accept_prob=target_accept, max_tree_depth=max_depth
    )
    n_chains = first.shape[0]
    options = {"num_warmup": n_warmup, "num_samples": n_draws, "num_chains": n_chains, "progress_bar": False}
    mcmc = MCMC(kernel, chain_method="vectorized", **options)
    mcmc.run(key, init_params=first if n_chains > 1 else first[0], extra_fields=tuple(STATISTICS.values()))
    found = mcmc.get_extra_fields(group_by_chain=True)
    return mcmc.get_samples(group_by_chain=True), {ours: found[theirs] for ours, theirs in STATISTICS.items()}
