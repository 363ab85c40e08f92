"""Variational approximation of the posterior (NumPyro): quick, but with guide "normal" its sds come out too small."""

from ... import judge
from ...mixture import Fit


def fit(
    key, x, spec, *, n_warmup=2000, n_draws=1000, n_restarts=None, guide="normal", relabelling="pivot", missing=None
) -> Fit:
    options = {"n_warmup": n_warmup, "n_draws": n_draws, "guide": guide}
    options |= {"n_restarts": n_restarts, "relabelling": relabelling, "missing": missing}
    return judge.fit_posterior(key, x, spec, engine="svi", **options).fit
