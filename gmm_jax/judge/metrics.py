r"""Recovered against true: errors of φ, μ and Σ after one joint match, and numbers that need no match.

With the truth's components as reference; Monte-Carlo numbers carry their standard error. Without a match, also where
two mixtures have not equally many components, densities p and q are compared by Monte Carlo, and mixing measures
Σ_k φ_k δ_(μ_k, Σ_k) exactly.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy.special import comb

from ..bayes.checks import check_posterior, check_width, host_mixture
from ..bayes.point import predictive_rows
from ..mixture import GMM, Fit, Posterior, align, sample, standard_units, structure
from ..mixture.checks import check_key
from ..mixture.gmm import variances_of
from ..mixture.predictive import predictive

N_DRAWS = 10_000
N_PREDICTIVE = 200  # draws of a posterior whose mean density stands for that of all


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
        with x_test: test_log_likelihood and test_log_likelihood_truth, mean nats a sample, and their errors ..._se;
        where the fit has draws, for the posterior predictive density in place of the point: kl_predictive,
        hellinger_predictive, l1_predictive, test_log_likelihood_predictive, each with its ..._se.
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
    metrics |= divergences(key, truth, point)._asdict()
    metrics["mixing_distance"] = mixing_distance(point, truth)
    if x is not None:
        found, at_truth = (predictive(jax.tree.map(lambda leaf: leaf[None], gmm), x) for gmm in (point, truth))
        metrics["log_likelihood"] = float(np.sum(found.log_density))
        if labels is not None:
            metrics["ari"] = adjusted_rand_index(labels, np.argmax(found.responsibilities, axis=1))
            metrics["ari_truth"] = adjusted_rand_index(labels, np.argmax(at_truth.responsibilities, axis=1))
    if x_test is not None:
        for name, gmm in (("test_log_likelihood", point), ("test_log_likelihood_truth", truth)):
            values = predictive(jax.tree.map(lambda leaf: leaf[None], gmm), x_test).log_density
            metrics[name], metrics[f"{name}_se"] = _mean_and_error(values)
    return metrics | (_of_predictive(key, fit.draws, truth, x_test) if getattr(fit, "draws", None) is not None else {})


def _of_predictive(key, posterior, truth, x_test):
    found = divergences(key, truth, posterior)._asdict()
    if x_test is not None:
        values = predictive(few_draws(posterior.draws, N_PREDICTIVE), x_test).log_density
        found["test_log_likelihood"], found["test_log_likelihood_se"] = _mean_and_error(values)
    return {f"{name.removesuffix('_se')}_predictive{'_se' * name.endswith('_se')}": found[name] for name in found}


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
    from scipy.stats.contingency import crosstab

    if np.shape(labels) != np.shape(predicted):
        raise ValueError(f"labels and predicted must be as long; got {np.shape(labels)} and {np.shape(predicted)}.")
    table = crosstab(np.asarray(labels), np.asarray(predicted)).count
    marginals = table, table.sum(axis=1), table.sum(axis=0), table.sum()
    together, a, b, all_pairs = (float(np.sum(comb(counts, 2))) for counts in marginals)
    expected, highest = a * b / max(all_pairs, 1.0), (a + b) / 2.0
    return 1.0 if highest == expected else float((together - expected) / (highest - expected))


# ---- how far two mixtures are apart


class Divergences(NamedTuple):
    """Of the densities p and q, each with its Monte-Carlo standard error."""

    kl: float  # E_p[log p − log q], nats; may be negative within its error
    kl_se: float
    hellinger: float  # √(1 − ∫ √(p q)), in [0, 1]
    hellinger_se: float
    l1: float  # ∫ |p − q|, in [0, 2]: twice the total variation
    l1_se: float


def divergences(key: Key[Array, ""], p: GMM, q: GMM | Posterior, n_draws: int = N_DRAWS) -> Divergences:
    r"""Kullback–Leibler divergence, Hellinger and L1 distance by Monte Carlo, from n_draws of each of p and q.

    Under m = (p + q)/2, with r = log p − log q, they are ∫ |p − q| = E_m[2 |tanh(r/2)|] and 1 − ∫ √(p q) =
    E_m[1 − sech(r/2)]: bounded, and without error where p = q. NaN in, NaN out. None changes with units.

    Args:
        q: of a posterior its predictive density is meant, as N_PREDICTIVE draws have it, evenly spread, which is to add
            1/N_PREDICTIVE of a typical draw's divergence from the predictive. Its own draws fill it more evenly than
            independent ones (`bayes.point`): their errors are smaller than what is said.

    Reference:
        Hershey & Olsen (2007), Approximating the KL divergence between Gaussian mixture models, ICASSP.
    """
    key_p, key_q = jax.random.split(check_key(key))
    p = host_mixture(p, "p")
    if isinstance(q, Posterior):
        many = few_draws(check_posterior(q).draws, N_PREDICTIVE)
        of_q = predictive_rows(key_q, many, n_draws)
    else:
        q = host_mixture(q, "q", like=p)
        many, of_q = jax.tree.map(lambda leaf: leaf[None], q), _rows(key_q, q, n_draws)
    one, of_p = jax.tree.map(lambda leaf: leaf[None], p), _rows(key_p, p, n_draws)
    first = predictive(one, of_p).log_density - predictive(many, of_p).log_density
    second = predictive(many, of_q).log_density - predictive(one, of_q).log_density
    return _of_log_ratios(first, second)


@np.errstate(all="ignore")
def _rows(key, gmm, n):
    inner, scaling = standard_units(gmm, float)
    return np.asarray(sample(key, inner, n)[0], float) * scaling.scale + scaling.centre


@np.errstate(all="ignore")
def _of_log_ratios(*log_ratio):
    """From log p − log q at draws of p, and log q − log p at draws of q."""
    square, square_se = _under_both(lambda r: 1.0 - 1.0 / np.cosh(0.5 * r), log_ratio)
    l1, l1_se = _under_both(lambda r: 2.0 * np.abs(np.tanh(0.5 * r)), log_ratio)
    hellinger = np.sqrt(square)
    hellinger_se = square_se / (2.0 * hellinger) if square else 0.0  # d√h = dh / 2√h; at 0 there is neither
    return Divergences(*map(float, (*_mean_and_error(log_ratio[0]), hellinger, hellinger_se, l1, l1_se)))


def _under_both(function, halves):
    """Mean and error under (p + q)/2, as many draws from each."""
    (a, a_se), (b, b_se) = (_mean_and_error(function(half)) for half in halves)
    return 0.5 * (a + b), 0.5 * np.hypot(a_se, b_se)


def few_draws(draws: GMM, most: int) -> GMM:
    """At most so many of the draws (chains, draws), evenly spread, with one leading axis."""
    size = math.prod(np.shape(draws.weights)[:2])
    places = np.linspace(0, size - 1, min(size, most)).astype(int)
    return jax.tree.map(lambda leaf: np.reshape(leaf, (size, *np.shape(leaf)[2:]))[places], draws)


def _mean_and_error(values):
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def mixing_distance(p: GMM, q: GMM) -> float:
    r"""Wasserstein-2 distance of the mixing measures, units of x: how far weight must move, whole components at a time.

    The cost of moving N(μ, A) to N(ν, B) is the Bures–Wasserstein distance squared, |μ − ν|² + tr(A + B −
    2 (A^½ B A^½)^½); the plan is the exact solution of the linear programme. It bounds the Wasserstein-2 distance of
    the densities from above. NaN where a number is not finite.

    Reference:
        Delon & Desolneux (2020), A Wasserstein-type distance in the space of Gaussian mixture models, SIAM J. Imaging
        Sci. 13.
    """
    p = host_mixture(p, "p")
    q = host_mixture(q, "q", like=p)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((p, q))):
        return np.nan
    cost = np.sum((p.means[:, None] - q.means[None]) ** 2, axis=-1) + _bures(p, q)
    return float(np.sqrt(_transport(p.weights / p.weights.sum(), q.weights / q.weights.sum(), cost)))


def dense_covariances(gmm: GMM) -> Float[np.ndarray, "*batch K D D"]:
    """Covariance matrices of mixtures of any structure."""
    return structure(gmm.covariance_type).dense(np.asarray(gmm.covariances), *np.shape(gmm.means)[-2:])


def _bures(p, q):
    """min |A^½ − B^½ U|² over rotations U for every pair, (K, K′): the same trace, without cancellation."""
    if {p.covariance_type, q.covariance_type} <= {"diag", "spherical"}:
        sds = [np.sqrt(variances_of(g)) for g in (p, q)]
        return np.sum((sds[0][:, None] - sds[1][None]) ** 2, axis=-1)
    root_a, root_b = (_root(dense_covariances(each)) for each in (p, q))
    left, _, right = np.linalg.svd(root_a[:, None] @ root_b[None])
    turned = root_b[None] @ np.swapaxes(left @ right, -1, -2)
    return np.sum((root_a[:, None] - turned) ** 2, axis=(-2, -1))


def _root(matrices):
    values, vectors = np.linalg.eigh(matrices)
    return (vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def _transport(source, target, cost):
    """min Σ π_ij cost_ij over plans π ≥ 0 with these margins."""
    from scipy.optimize import linprog

    rows, columns = np.kron(np.eye(m := source.size), np.ones(n := target.size)), np.kron(np.ones(m), np.eye(n))
    largest = max(float(cost.max()), np.finfo(float).tiny)  # the solver's tolerances are absolute
    # one equation follows from the others, and might contradict them by rounding
    plan = linprog(cost.ravel() / largest, A_eq=np.concatenate([rows, columns[:-1]]), b_eq=np.r_[source, target[:-1]])
    if plan.status != 0:
        raise ArithmeticError(f"the transport problem of two mixtures was not solved: {plan.message}")
    return largest * max(float(plan.fun), 0.0)
