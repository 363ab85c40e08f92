"""Maximum likelihood by EM: the best of many restarts, with standard errors from the observed information."""

import numpy as np

from ... import em
from ...judge.landscape import rows_of
from ...mixture import Fit, Status, n_parameters
from ._peers import absolute, em_evaluations, terms

MOST_PARAMETERS = 1000  # with more there are no standard errors: the information costs a pass over the data for each


def fit(
    key,
    x,
    spec,
    *,
    n_restarts=None,
    init="kmeans++",
    swaps=None,
    n_sample=None,
    max_iter=1000,
    tol=1e-8,
    reg_covar=None,
    missing=None,
    progress=None,
) -> Fit:
    config = em.EMConfig(max_iter=max_iter, tol=tol, reg_covar=reg_covar)
    search = {"n_restarts": n_restarts, "init": init, "swaps": swaps, "n_sample": n_sample, "missing": missing}
    restarts = em.fit_em_restarts(key, x, spec, config=config, progress=progress, **search)
    return answer(restarts, x, spec, init=init, config=config, missing=missing)


def fit_many(
    keys, xs, spec, *, n_restarts=None, init="kmeans++", swaps=None, max_iter=1000, tol=1e-8, reg_covar=None
) -> list[Fit]:
    """`fit` of data sets of one shape, all starts together: the same answers to rounding."""
    config = em.EMConfig(max_iter=max_iter, tol=tol, reg_covar=reg_covar)
    found = em.fit_em_restarts(keys, xs, spec, n_restarts=n_restarts, init=init, swaps=swaps, config=config)
    return [answer(restarts, x, spec, init=init, config=config) for restarts, x in zip(found, xs, strict=True)]


def answer(restarts, x, spec, *, init, config, missing=None) -> Fit:
    """The best fit with its errors, and where the starts ended: neither where x is None, as rows are not in memory.

    Where the starts were compared on a sample of rows, the landscape is that of the sample.
    """
    best, search = restarts.best, restarts.search or restarts
    status, message = Status(int(best.status)), restarts.message
    errors, landscape, optima = None, [], search.optima
    if x is not None:
        few = n_parameters(spec, x.shape[1]) <= MOST_PARAMETERS
        errors = em.standard_errors(x, best, spec, missing=missing) if few and status == Status.CONVERGED else None
        filled = x if missing is None else np.where(np.isnan(x), np.nanmean(x, axis=0), x)
        landscape = rows_of(optima, search.fits.status, filled)
    if errors is not None and errors.status != Status.CONVERGED:
        message = f"{message.removesuffix('.')}; {errors.message}"
    info = {
        "log_likelihood": float(best.log_likelihood),
        "n_iter": int(best.n_iter),
        "message": message,
        "n_optima": int(optima.count.size),
        "share_at_best": next((row["share"] for row in landscape if row.get("gap") == 0.0), 0.0),
        "n_failed": int(np.sum(optima.of_fit < 0)),
        "spurious": bool(restarts.optima.count.size) and bool(np.all(restarts.optima.spurious)),
        "landscape": landscape,
    }
    start, precision = f"best of {search.fits.status.size} by {init}", str(np.asarray(best.gmm.means).dtype)
    reg_covar = "1e-6 of each variance" if config.reg_covar is None else absolute(config.reg_covar)
    tol_is = "gain in mean log-likelihood of a sample"
    if x is not None and restarts.search is None:
        info["density_evaluations"] = em_evaluations(restarts, x, spec)
    info |= terms(start, config.tol, tol_is, reg_covar=reg_covar, precision=precision)
    return Fit(best.gmm, None, errors, status, info)
