"""Posterior by Gibbs sampling: semi-conjugate data augmentation, chains started at EM's optima."""

from __future__ import annotations

import jax

from ... import bayes
from ...mixture import Fit
from ._posterior import as_fit, check_relabelling, em_starts, on_terms


def fit(
    key, x, spec, *, n_chains=4, n_warmup=500, n_draws=2500, n_restarts=50, relabelling="pivot", progress=None
) -> Fit:
    check_relabelling(relabelling)
    key_start, key_draw = jax.random.split(key)
    init, cost = em_starts(key_start, x, spec, n_chains, n_restarts)
    options = {"n_chains": n_chains, "n_warmup": n_warmup, "n_draws": n_draws}
    posterior = bayes.gibbs(key_draw, x, spec, init=init, progress=progress, **options)
    answer = as_fit(posterior, spec, x=x, relabelling=relabelling)
    answer = on_terms(answer, x, n_restarts, cost, n_chains * (n_warmup + n_draws))
    emptied = float((posterior.stats["occupied"] < spec.n_components).mean())
    return answer._replace(info=answer.info | {"share_with_empty_component": emptied})
