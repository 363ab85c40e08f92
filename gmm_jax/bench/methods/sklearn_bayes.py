"""scikit-learn's BayesianGaussianMixture, with its own defaults and its own prior: variational Bayes from k-means."""

from ...mixture import Fit
from ._peers import free_data, sklearn_fit

NEEDS = ("sklearn",)


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
    options = {"n_init": n_init, "init_params": init_params, "max_iter": max_iter, "tol": tol, "reg_covar": reg_covar}
    options |= {"weight_concentration_prior_type": weight_concentration_prior_type}
    tol_is = "change of the variational lower bound, up to a constant"
    same_prior = (
        "no: Wishart of D degrees of freedom about the data's precision, means tied to it, "
        f"{weight_concentration_prior_type} with concentration 1/K; spec.prior is not read"
    )
    # its point: the mean of q for weights and means, and the inverse of its mean precision for covariances
    about = {"tol_is": tol_is, "same_prior": same_prior}
    model, found = sklearn_fit("BayesianGaussianMixture", key, x, spec, options, n_threads, **about)
    return found._replace(info={"lower_bound": float(model.lower_bound_)} | found.info)
