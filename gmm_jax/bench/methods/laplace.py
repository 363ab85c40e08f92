"""Laplace's approximation of the posterior: a Gaussian at the mode that EM's best optimum leads to."""

from ... import judge
from ...mixture import Fit


def fit(key, x, spec, *, n_warmup=300, n_draws=2000, n_restarts=None, relabelling="pivot", missing=None) -> Fit:
    options = {
        "n_warmup": n_warmup,
        "n_draws": n_draws,
        "n_restarts": n_restarts,
        "relabelling": relabelling,
        "missing": missing,
    }
    return judge.fit_posterior(key, x, spec, engine="laplace", **options).fit
