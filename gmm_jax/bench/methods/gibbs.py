"""Posterior by Gibbs sampling: semi-conjugate data augmentation, chains started at EM's optima.

n_temperatures above 1 lets stuck chains go (see bayes.gibbs); arrivals then counts what came from the prior.
"""

from ... import judge
from ...mixture import Fit
from ._posterior import on_terms


def fit(
    key,
    x,
    spec,
    *,
    n_chains=4,
    n_warmup=500,
    n_draws=2500,
    n_temperatures=1,
    n_restarts=None,
    relabelling="pivot",
    missing=None,
    progress=None,
) -> Fit:
    options = {"n_chains": n_chains, "n_warmup": n_warmup, "n_draws": n_draws, "n_temperatures": n_temperatures}
    options |= {"n_restarts": n_restarts, "relabelling": relabelling, "missing": missing, "progress": progress}
    found = judge.fit_posterior(key, x, spec, engine="gibbs", **options)
    return on_terms(found, x, spec, n_chains * n_temperatures * (n_warmup + n_draws))
