"""scikit-learn's GaussianMixture, with its own defaults: maximum likelihood by EM from k-means."""

from __future__ import annotations

from ...mixture import GMM, Fit, Status
from ._peers import free_data, require, seed_of, sklearn_model, terms


def fit(key, x, spec, *, n_init=1, init_params="kmeans", max_iter=100, tol=1e-3, reg_covar=1e-6, n_threads=None) -> Fit:
    x = free_data("sklearn_em", x, spec)
    require("sklearn")
    options = {"n_init": n_init, "init_params": init_params, "max_iter": max_iter, "tol": tol, "reg_covar": reg_covar}
    options |= {"covariance_type": spec.covariance_type, "random_state": seed_of(key)}
    model = sklearn_model("GaussianMixture", x, spec.n_components, options, n_threads)
    info = {"density_evaluations": model.density_evaluations_, "n_iter": int(model.n_iter_)}
    info |= {"log_likelihood": float(model.score(x)) * len(x)} | terms(
        start=f"best of {n_init} by {init_params}",
        reg_covar=f"{reg_covar:g} in squared units of x",
        tol=tol,
        tol_is="change of the mean log-likelihood of a sample, before the last M-step",
        threads=n_threads or "its own",
        precision="float64",
        same_prior="no prior",
    )
    point = GMM(model.weights_, model.means_, model.covariances_, spec.covariance_type)
    return Fit(point, None, None, Status.CONVERGED if model.converged_ else Status.MAX_ITER, info)
