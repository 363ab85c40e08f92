"""gmmx's EMFitter in float32, the only precision that it has: maximum likelihood by EM from k-means, on JAX."""

import jax
import numpy as np

from ...mixture import GMM, Fit, Status
from ._peers import absolute, free_data, require, seed_of, terms

NEEDS = ("gmmx", "sklearn")


def fit(key, x, spec, *, n_init=10, max_iter=100, tol=1e-3, reg_covar=1e-6) -> Fit:
    x = free_data("gmmx", x, spec, ("full", "diag"))
    package, _ = require("gmmx", "sklearn")
    with jax.enable_x64(False):  # it does not trace where float64 is on
        single = jax.device_put(np.asarray(x, np.float32))
        options = {"covariance_type": spec.covariance_type, "random_state": seed_of(key), "n_init": n_init}
        start = package.GaussianMixtureModelJax.from_k_means(single, spec.n_components, reg_covar, **options)
        found = package.EMFitter(max_iter=max_iter, tol=tol, reg_covar=reg_covar).fit(single, start)
    evaluations = int(found.n_iter) * len(x) * spec.n_components  # k-means' distances at its start cannot be seen
    info = {"n_iter": int(found.n_iter), "density_evaluations": evaluations}
    tol_is = "change of the mean log-likelihood of a sample, before the last M-step"
    info |= terms(f"k-means, best of {n_init}", tol, tol_is, reg_covar=absolute(reg_covar), precision="float32")
    model = found.gmm
    leaves = (model.weights_numpy, model.means_numpy, model.covariances.values_numpy)
    point = GMM(*(np.asarray(leaf, float) for leaf in leaves), spec.covariance_type)
    return Fit(point, None, None, Status.CONVERGED if bool(found.converged) else Status.MAX_ITER, info)
