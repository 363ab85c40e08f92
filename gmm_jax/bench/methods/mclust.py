"""R's mclust through Rscript: EM from hierarchical clustering (Scrucca et al. 2016, The R Journal 8)."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...mixture import GMM, Fit, Status
from ._peers import ask_r, check_answer, free_data, seed_of, terms

NEEDS = ("Rscript",)

MODELS = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}  # with one component it takes XXX, XXI, XII
NO_ANSWER = 65  # an exit code of the program


def fit(key, x, spec, *, tol=1e-5, timeout=600.0) -> Fit:
    x = free_data("mclust", x, spec)
    k, d = spec.n_components, x.shape[1]
    weights, means, sigma, (log_likelihood,), (passes,), version = _ask(x, spec, seed_of(key) >> 1, tol, timeout)
    sigma = np.reshape(sigma, (k, d, d))  # R stores by columns, and the last index is the component
    covariances = sigma[0] if spec.covariance_type == "tied" else sigma
    if spec.covariance_type in ("diag", "spherical"):
        variances = np.diagonal(sigma, axis1=1, axis2=2)
        covariances = variances if spec.covariance_type == "diag" else variances[:, 0]
    info = {"log_likelihood": log_likelihood, "density_evaluations": int(passes) * len(x) * k, "version": version}
    start = "quantiles" if d == 1 else "model-based hierarchical clustering of at most 2000 rows"
    info |= terms(start, tol, "relative change of the log-likelihood, before the last M-step", threads=1)
    point = GMM(np.array(weights), np.reshape(means, (k, d)), np.array(covariances), spec.covariance_type)
    return Fit(point, None, None, Status.CONVERGED, info)


def _ask(x, spec, seed, tol, timeout):
    """Lists of numbers: weights, means, covariances, log-likelihood, passes; and the version of mclust."""
    model = MODELS[spec.covariance_type]
    if x.shape[1] == 1:
        model = "E" if spec.covariance_type == "tied" else "V"
    with TemporaryDirectory() as folder:
        np.savetxt(f"{folder}/x.csv", x, delimiter=",", fmt="%.17g")
        words = (f"{folder}/x.csv", spec.n_components, model, seed, tol)
        done = ask_r("mclust", Path(__file__).with_name("mclust.R").read_text(), *words, timeout=timeout)
    if done.returncode == NO_ANSWER:
        raise ValueError(f"mclust has no {model} model of these data: a covariance became singular, or rows are few.")
    *lines, version = check_answer(done).strip().split("\n")
    return *([float(word) for word in line.split()] for line in lines), version.strip()
