"""Posterior by NUTS as NumPyro itself drives it, on the same potential: for comparison with nuts."""

from __future__ import annotations

import jax

from ... import bayes
from ...mixture import Fit
from ._posterior import as_fit, check_relabelling, em_starts, gradients, on_terms, trajectories


def fit(
    key,
    x,
    spec,
    *,
    n_chains=4,
    n_warmup=500,
    n_draws=1000,
    n_restarts=50,
    target_accept=0.8,
    chain_method="vectorized",
    relabelling="pivot",
) -> Fit:
    check_relabelling(relabelling)
    key_start, key_draw = jax.random.split(key)
    init, cost = em_starts(key_start, x, spec, n_chains, n_restarts)
    options = {"n_chains": n_chains, "n_warmup": n_warmup, "n_draws": n_draws, "target_accept": target_accept}
    posterior = bayes.numpyro_nuts(key_draw, x, spec, init=init, chain_method=chain_method, **options)
    answer = as_fit(posterior, spec, x=x, relabelling=relabelling)
    answer = on_terms(answer, x, n_restarts, cost, gradients(posterior, n_warmup))
    return answer._replace(info=answer.info | trajectories(posterior))
