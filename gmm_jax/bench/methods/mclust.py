"""R's mclust through Rscript: EM from hierarchical clustering (Scrucca et al. 2016, The R Journal 8)."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np

from ...mixture import GMM, Fit, NotSupported, Status
from ._peers import ask_r, check_answer, free_data, seed_of, terms

MODELS = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}
NO_ANSWER = 65  # an exit code of the program
PROGRAM = """
arguments <- commandArgs(trailingOnly = TRUE)
if (!requireNamespace("mclust", quietly = TRUE)) quit(status = 64)
suppressPackageStartupMessages(library(mclust))
set.seed(as.integer(arguments[4]))
x <- as.matrix(read.csv(arguments[1], header = FALSE))
found <- Mclust(x, G = as.integer(arguments[2]), modelNames = arguments[3], verbose = FALSE,
                control = emControl(tol = as.numeric(arguments[5])))
if (is.null(found)) quit(status = 65)
say <- function(values) cat(sprintf("%.17g", as.vector(values)), "\\n")
say(found$parameters$pro)
say(found$parameters$mean)
say(found$parameters$variance$sigma)
say(found$loglik)
cat(as.character(packageVersion("mclust")), "\\n")
"""


def fit(key, x, spec, *, tol=1e-5, timeout=600.0) -> Fit:
    x = free_data("mclust", x, spec)
    if min(x.shape[1], spec.n_components) < 2:
        raise NotSupported("mclust is asked for two features and two components or more: use em.")
    weights, means, sigma, log_likelihood, version = _ask(x, spec, seed_of(key) >> 1, tol, timeout)
    k, d = spec.n_components, x.shape[1]
    sigma = np.reshape(sigma, (k, d, d))  # R stores by columns, and the last index is the component
    covariances = {
        "full": sigma,
        "tied": sigma[0],
        "diag": np.diagonal(sigma, axis1=1, axis2=2),
        "spherical": sigma[:, 0, 0],
    }[spec.covariance_type]
    info = {"log_likelihood": log_likelihood[0], "version": version} | terms(
        start="model-based hierarchical clustering",
        reg_covar="none",
        tol=tol,
        tol_is="relative change of the log-likelihood",
        threads=1,
        precision="float64",
        same_prior="no prior",
    )
    point = GMM(np.array(weights), np.reshape(means, (k, d)), np.array(covariances), spec.covariance_type)
    return Fit(point, None, None, Status.CONVERGED, info)


def _ask(x, spec, seed, tol, timeout):
    """Lists of numbers: weights, means, covariances, log-likelihood; and the version of mclust."""
    with TemporaryDirectory() as folder:
        np.savetxt(f"{folder}/x.csv", x, delimiter=",", fmt="%.17g")
        model = (spec.n_components, MODELS[spec.covariance_type], seed, tol)
        done = ask_r("mclust", PROGRAM, f"{folder}/x.csv", *model, timeout=timeout)
    if done.returncode == NO_ANSWER:
        raise ValueError(f"mclust has no {MODELS[spec.covariance_type]} model of these data.")
    *lines, version = check_answer(done).strip().split("\n")
    return *([float(word) for word in line.split()] for line in lines), version.strip()
