"""Recovered against true: errors of φ, μ and Σ after one joint match, and numbers that need no match.

With the truth's components as reference; Monte-Carlo numbers carry their standard error.
"""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..bayes.checks import check_width, host_mixture
from ..mixture import GMM, Fit, align
from ..mixture.checks import check_key
from ..mixture.predictive import predictive
from .distances import dense_covariances, divergences, log_score, mixing_distance, variances_of


def recovery(
    key: Key[Array, ""],
    fit: Fit | GMM,
    truth: GMM,
    *,
    x: Float[Array, "N D"] | None = None,
    labels: Int[Array, "N"] | None = None,
    x_test: Float[Array, "M D"] | None = None,
) -> dict[str, float]:
    """How far a fit is from the truth: a GMM, or a result that holds one (`Fit`, `EMResult`, `Restarts`).

    Returns:
        weights_error, means_error, covariances_error: root mean square over entries, units of φ, μ, Σ;
        weights_max_error, means_max_error, covariances_max_error: largest absolute entry;
        relative_means_error: root mean square of L⁻¹(μ − μ_true), in true sds of each component;
        kl, kl_se: Kullback–Leibler divergence KL(truth ‖ fit), nats, with its Monte-Carlo standard error; hellinger and
        l1, distances of the densities, and their errors hellinger_se, l1_se: see `divergences`;
        mixing_distance: Wasserstein-2 distance of the mixing measures, units of x;
        with x: log_likelihood, nats, summed over samples; with labels too: ari, and ari_truth of the true parameters;
        with x_test: test_log_likelihood and test_log_likelihood_truth, mean nats a sample, and their errors ..._se.
        A fit with another number of components has only the numbers that need no match.
    """
    check_key(key)
    truth = host_mixture(truth, "truth")
    point = host_mixture(fit, "fit", like=truth)
    given = {"x": x, "x_test": x_test}
    x, x_test = (None if rows is None else check_width(rows, name, truth) for name, rows in given.items())
    metrics = {}
    if point.means.shape == truth.means.shape:
        metrics |= _errors(point, truth)
    metrics |= {name: float(value) for name, value in divergences(key, truth, point)._asdict().items()}
    metrics["mixing_distance"] = mixing_distance(point, truth)
    if x is not None:
        found, at_truth = (predictive(jax.tree.map(lambda leaf: leaf[None], gmm), x) for gmm in (point, truth))
        metrics["log_likelihood"] = float(np.sum(found.log_density))
        if labels is not None:
            metrics["ari"] = adjusted_rand_index(labels, np.argmax(found.responsibilities, axis=1))
            metrics["ari_truth"] = adjusted_rand_index(labels, np.argmax(at_truth.responsibilities, axis=1))
    if x_test is not None:
        for name, gmm in (("test_log_likelihood", point), ("test_log_likelihood_truth", truth)):
            metrics[name], metrics[f"{name}_se"] = log_score(gmm, x_test)
    return metrics


def _errors(point, truth):
    diagonal = {point.covariance_type, truth.covariance_type} <= {"diag", "spherical"}  # then no matrix is made
    full_point, full_truth = (
        GMM(g.weights, g.means, variances_of(g), "diag") if diagonal else GMM(g.weights, g.means, dense_covariances(g))
        for g in (point, truth)
    )
    matched = align(full_point, full_truth)
    metrics = {}
    for name in ("weights", "means", "covariances"):
        error = getattr(matched, name) - getattr(full_truth, name)
        entries = error.size * (truth.n_features if diagonal and name == "covariances" else 1)
        metrics[f"{name}_error"] = float(np.sqrt(np.sum(error**2) / entries))
        metrics[f"{name}_max_error"] = float(np.max(np.abs(error)))
    off = matched.means - truth.means
    if diagonal:
        whitened = off / np.sqrt(full_truth.covariances)
    else:
        whitened = np.linalg.solve(np.linalg.cholesky(full_truth.covariances), off[..., None])
    metrics["relative_means_error"] = float(np.sqrt(np.mean(whitened**2)))
    return metrics


def adjusted_rand_index(labels: Int[Array, "N"], predicted: Int[Array, "N"]) -> float:
    """Agreement of two partitions: 1 for the same, 0 in expectation for independent ones.

    Reference:
        Hubert & Arabie (1985), Comparing partitions, J. Classification 2.
    """
    if np.shape(labels) != np.shape(predicted):
        raise ValueError(f"labels and predicted must be as long; got {np.shape(labels)} and {np.shape(predicted)}.")
    rows, columns = (np.unique(np.asarray(a), return_inverse=True)[1] for a in (labels, predicted))
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1.0)

    def pairs(counts):
        return np.sum(counts * (counts - 1.0)) / 2.0

    together, a, b, all_pairs = pairs(table), pairs(table.sum(1)), pairs(table.sum(0)), pairs(np.float64(rows.size))
    expected, highest = a * b / max(all_pairs, 1.0), (a + b) / 2.0
    return 1.0 if highest == expected else float((together - expected) / (highest - expected))
