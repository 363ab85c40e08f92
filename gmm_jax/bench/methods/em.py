"""Maximum likelihood by EM: the best of many restarts, with standard errors from the observed information."""

from __future__ import annotations

import numpy as np

from ... import em
from ...judge.landscape import rows_of
from ...mixture import Fit, Status, n_parameters
from ._peers import absolute, em_evaluations, terms

MOST_PARAMETERS = 1000  # with more there are no standard errors: the information costs a pass over the data for each


def fit(key, x, spec, *, n_restarts=50, init="kmeans++", max_iter=1000, tol=1e-8, reg_covar=None, progress=None) -> Fit:
    config = em.EMConfig(max_iter=max_iter, tol=tol, reg_covar=reg_covar)
    restarts = em.fit_em_restarts(key, x, spec, n_restarts=n_restarts, init=init, config=config, progress=progress)
    return _as_fit(restarts, x, spec, init, config)


def fit_many(keys, xs, spec, *, n_restarts=50, init="kmeans++", max_iter=1000, tol=1e-8, reg_covar=None) -> list[Fit]:
    """`fit` of data sets of one shape, all starts together: the same answers to rounding."""
    config = em.EMConfig(max_iter=max_iter, tol=tol, reg_covar=reg_covar)
    found = em.fit_em_restarts(keys, xs, spec, n_restarts=n_restarts, init=init, config=config)
    return [_as_fit(restarts, x, spec, init, config) for restarts, x in zip(found, xs, strict=True)]


def _as_fit(restarts, x, spec, init, config):
    best, optima = restarts.best, restarts.optima
    status = Status(int(best.status))
    few = n_parameters(spec, x.shape[1]) <= MOST_PARAMETERS
    errors = em.standard_errors(x, best, spec) if few and status == Status.CONVERGED else None
    message = restarts.message
    if errors is not None and errors.status != Status.CONVERGED:
        message = f"{message.removesuffix('.')}; {errors.message}"
    landscape = rows_of(optima, restarts.fits.status, x)
    info = {
        "log_likelihood": float(best.log_likelihood),
        "n_iter": int(best.n_iter),
        "density_evaluations": em_evaluations(restarts, x, spec),
        "message": message,
        "n_optima": int(optima.count.size),
        "share_at_best": next((row["share"] for row in landscape if row.get("gap") == 0.0), 0.0),
        "n_failed": int(np.sum(optima.of_fit < 0)),
        "landscape": landscape,
    }
    start, precision = f"best of {restarts.fits.status.size} by {init}", str(np.asarray(best.gmm.means).dtype)
    reg_covar = "1e-6 of each variance" if config.reg_covar is None else absolute(config.reg_covar)
    tol_is = "gain in mean log-likelihood of a sample"
    info |= terms(start, config.tol, tol_is, reg_covar=reg_covar, precision=precision)
    return Fit(best.gmm, None, errors, status, info)
