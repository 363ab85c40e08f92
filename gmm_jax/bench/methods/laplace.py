"""Laplace's approximation of the posterior: a Gaussian at the mode that EM's best optimum leads to."""

from __future__ import annotations

import jax

from ... import bayes
from ...mixture import Fit
from ._posterior import as_fit, check_relabelling, correction, em_starts


def fit(key, x, spec, *, n_warmup=300, n_draws=2000, n_restarts=50, relabelling="pivot") -> Fit:
    check_relabelling(relabelling)
    key_start, key_draw = jax.random.split(key)
    init, _ = em_starts(key_start, x, spec, 1, n_restarts)
    posterior = bayes.laplace(key_draw, x, spec, n_chains=1, n_warmup=n_warmup, n_draws=n_draws, init=init)
    # independent draws: R-hat has nothing to say
    answer = as_fit(posterior, spec, x=x, relabelling=relabelling, mixing=False)
    evidence = {name: float(posterior.stats[name][0]) for name in ("log_evidence", "log_evidence_corrected")}
    return answer._replace(info=answer.info | correction(answer) | evidence)
