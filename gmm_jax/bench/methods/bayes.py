"""Posterior by bayes.sample, which goes on until it has mixed; its point is the mixture nearest to the predictive."""

from ... import judge
from ...mixture import Fit
from ._posterior import on_terms


def fit(key, x, spec, *, n_restarts=None, max_passes=None, budget_seconds=None, missing=None, progress=None) -> Fit:
    options = {"n_restarts": n_restarts, "max_passes": max_passes, "budget_seconds": budget_seconds}
    found = judge.fit_posterior(key, x, spec, **options, missing=missing, progress=progress)
    return on_terms(found, x, spec, float(found.drawn.stats["passes"].sum()))
