"""Posterior by sequential Monte Carlo: independent runs from the prior, all modes and labellings, and the evidence."""

from __future__ import annotations

import numpy as np

from ... import bayes
from ...mixture import Fit
from ._posterior import as_fit


def fit(key, x, spec, *, n_chains=4, n_moves=10, n_draws=1000, progress=None) -> Fit:
    options = {"n_chains": n_chains, "n_warmup": n_moves, "n_draws": n_draws, "progress": progress}
    posterior = bayes.smc(key, x, spec, **options)
    log_evidence, standard_error = bayes.pool(posterior)[:2]
    found = {"log_evidence": log_evidence, "log_evidence_standard_error": standard_error}
    answer = as_fit(posterior, spec)
    return answer._replace(info=answer.info | found | {"n_stages": int(np.max(posterior.stats["n_stages"]))})
