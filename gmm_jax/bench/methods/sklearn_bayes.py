"""scikit-learn's BayesianGaussianMixture, with its own defaults and its own prior: variational Bayes from k-means."""

from __future__ import annotations

from ...mixture import GMM, Fit, Status
from ._peers import free_data, require, seed_of, sklearn_model, terms


def fit(
    key,
    x,
    spec,
    *,
    n_init=1,
    init_params="kmeans",
    max_iter=100,
    tol=1e-3,
    reg_covar=1e-6,
    weight_concentration_prior_type="dirichlet_process",
    n_threads=None,
) -> Fit:
    x = free_data("sklearn_bayes", x, spec)
    require("sklearn")
    options = {"n_init": n_init, "init_params": init_params, "max_iter": max_iter, "tol": tol, "reg_covar": reg_covar}
    options |= {"weight_concentration_prior_type": weight_concentration_prior_type}
    options |= {"covariance_type": spec.covariance_type, "random_state": seed_of(key)}
    model = sklearn_model("BayesianGaussianMixture", x, spec.n_components, options, n_threads)
    info = {"density_evaluations": model.density_evaluations_, "n_iter": int(model.n_iter_)}
    info |= {"lower_bound": float(model.lower_bound_)} | terms(
        start=f"best of {n_init} by {init_params}",
        reg_covar=f"{reg_covar:g} in squared units of x",
        tol=tol,
        tol_is="change of the variational lower bound, up to a constant",
        threads=n_threads or "its own",
        precision="float64",
        same_prior="no: Wishart of D degrees of freedom about the data's precision, means tied to it, "
        f"{weight_concentration_prior_type} with concentration 1/K; spec.prior is not read",
    )
    # the mean of q for weights and means, and the inverse of its mean precision for covariances
    point = GMM(model.weights_, model.means_, model.covariances_, spec.covariance_type)
    return Fit(point, None, None, Status.CONVERGED if model.converged_ else Status.MAX_ITER, info)
