"""Posterior by Gibbs sampling: semi-conjugate data augmentation, chains started at EM's optima.

n_rungs above 1 lets stuck chains go (see bayes.gibbs); arrivals then counts what came all the way from the prior.
"""

from __future__ import annotations

import jax

from ... import bayes
from ...mixture import Fit
from ._posterior import as_fit, check_relabelling, em_starts, on_terms


def fit(
    key,
    x,
    spec,
    *,
    n_chains=4,
    n_warmup=500,
    n_draws=2500,
    n_rungs=1,
    n_restarts=50,
    relabelling="pivot",
    progress=None,
) -> Fit:
    check_relabelling(relabelling)
    key_start, key_draw = jax.random.split(key)
    init, cost = em_starts(key_start, x, spec, n_chains, n_restarts)
    options = {"n_chains": n_chains, "n_warmup": n_warmup, "n_draws": n_draws, "n_rungs": n_rungs}
    posterior = bayes.gibbs(key_draw, x, spec, init=init, progress=progress, **options)
    answer = as_fit(posterior, spec, x=x, relabelling=relabelling)
    answer = on_terms(answer, x, n_restarts, cost, n_chains * n_rungs * (n_warmup + n_draws))
    found = {"share_with_empty_component": float((posterior.stats["occupied"] < spec.n_components).mean())}
    if n_rungs > 1:
        found["arrivals"] = int(posterior.stats["arrivals"].sum())
    return answer._replace(info=answer.info | found)
