"""Posterior by sequential Monte Carlo: independent runs from the prior, all modes and labellings, and the evidence."""

from ... import judge
from ...mixture import Fit


def fit(key, x, spec, *, n_chains=4, n_warmup=10, n_draws=1000, relabelling="pivot", progress=None) -> Fit:
    options = {"n_chains": n_chains, "n_warmup": n_warmup, "n_draws": n_draws}
    return judge.fit_posterior(key, x, spec, engine="smc", relabelling=relabelling, progress=progress, **options).fit
