"""scikit-learn's GaussianMixture, with its own defaults: maximum likelihood by EM from k-means."""

from ...mixture import Fit
from ._peers import free_data, sklearn_fit

NEEDS = ("sklearn",)


def fit(key, x, spec, *, n_init=1, init_params="kmeans", max_iter=100, tol=1e-3, reg_covar=1e-6, n_threads=None) -> Fit:
    x = free_data("sklearn_em", x, spec)
    options = {"n_init": n_init, "init_params": init_params, "max_iter": max_iter, "tol": tol, "reg_covar": reg_covar}
    tol_is = "change of the mean log-likelihood of a sample, before the last M-step"
    model, found = sklearn_fit("GaussianMixture", key, x, spec, options, n_threads, tol_is=tol_is)
    return found._replace(info={"log_likelihood": float(model.score(x)) * len(x)} | found.info)
