"""Variational approximation of the posterior (NumPyro): quick, but with guide "normal" its sds come out too small."""

from __future__ import annotations

import jax
import numpy as np

from ... import bayes
from ...mixture import Fit
from ._posterior import as_fit, check_relabelling, correction, em_starts


def fit(key, x, spec, *, n_warmup=2000, n_draws=1000, n_restarts=50, guide="normal", relabelling="pivot") -> Fit:
    check_relabelling(relabelling)
    key_start, key_draw = jax.random.split(key)
    init, _ = em_starts(key_start, x, spec, 1, n_restarts)
    posterior = bayes.svi(key_draw, x, spec, n_chains=1, n_warmup=n_warmup, n_draws=n_draws, init=init, guide=guide)
    # independent draws: R-hat has nothing to say
    answer = as_fit(posterior, spec, x=x, relabelling=relabelling, mixing=False)
    info = answer.info | {"elbo": float(np.max(posterior.stats["elbo"]))}
    if guide == "delta":
        return answer._replace(standard_errors=None, info=info)
    return answer._replace(info=info | correction(answer))
