"""Posterior by NUTS: BlackJAX on the NumPyro model's potential, chains started at EM's optima."""

from ... import judge
from ...mixture import Fit
from ._posterior import gradients, on_terms


def fit(
    key,
    x,
    spec,
    *,
    n_chains=4,
    n_warmup=500,
    n_draws=1000,
    n_restarts=None,
    target_accept=0.8,
    relabelling="pivot",
    missing=None,
    progress=None,
) -> Fit:
    options = {"n_chains": n_chains, "n_warmup": n_warmup, "n_draws": n_draws, "target_accept": target_accept}
    options |= {"n_restarts": n_restarts, "relabelling": relabelling, "missing": missing, "progress": progress}
    found = judge.fit_posterior(key, x, spec, engine="nuts", **options)
    return on_terms(found, x, spec, gradients(found.drawn, n_warmup))
