"""Laplace and svi: exact where the posterior is Gaussian, corrected where it nearly is, and honest where it is not."""

import sys
from itertools import product
from math import lgamma

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from test_bayes_references import mcse

from conftest import TYPES
from gmm_jax import GMM, Known, MixtureSpec, Posterior, Prior, Status, bayes, permute
from gmm_jax.bayes.diagnostics import quantities
from gmm_jax.bayes.importance import importance, is_reliable, weighted
from gmm_jax.bayes.laplace import Mode, _distinct, _gaussian, n_labellings
from gmm_jax.bayes.target import prepare

X = np.array([1.2, 0.7, 3.1, 2.2, -0.4])[:, None]
ONE = Prior(means=dist.Normal(0.5, 1.5).expand([1]).to_event(1), covariances=dist.InverseGamma(2.5, 1.5))


# ---- importance weights


def narrow(sd, n_draws=4000):
    """Draws of N(0, sd²), and log p/q for p = N(0, 1), four chains."""
    draws = sd * np.random.default_rng(0).standard_normal((4, n_draws))
    return draws, norm.logpdf(draws) - norm.logpdf(draws, scale=sd)


def test_weights_of_a_narrow_normal_have_the_tail_that_theory_says():
    """p/q has P(w > t) ~ t^(−1/k) up to logarithms, k = 1 − sd²."""
    assert np.all(importance(narrow(0.3)[1])[1] > 0.7)  # k = 0.91
    assert np.all(importance(narrow(0.8)[1])[1] < 0.7)  # k = 0.36
    assert np.all(importance(narrow(1.5)[1])[1] < 0.2)  # bounded weights
    assert weighted(narrow(0.3)[1])[1] == Status.UNRELIABLE
    assert weighted(narrow(0.8)[1])[1] == Status.SAMPLED


def test_corrected_moments_are_those_of_the_posterior():
    draws, log_ratio = narrow(0.8)
    ones = np.ones((*draws.shape, 1))
    stats, status = weighted(log_ratio)
    posterior = Posterior(GMM(ones, draws[..., None, None], ones, "spherical"), log_ratio, stats, status)
    mean, sd = bayes.corrected_moments(posterior)
    weight = np.exp(stats["log_weight"])
    np.testing.assert_allclose(weight.sum(1), 1.0)
    for values, found, exact in ((draws, mean.means, 0.0), (draws**2, sd.means**2 + mean.means**2, 1.0)):
        errors = np.sqrt(np.sum((weight * (values - exact)) ** 2, axis=1))
        assert np.all(np.abs(found[:, 0, 0] - exact) <= 5.0 * errors)
    np.testing.assert_allclose(sd.weights, 0.0, atol=1e-12)
    with pytest.raises(ValueError, match="needs a posterior with log_weight"):
        bayes.corrected_moments(posterior._replace(stats={}))


def test_what_cannot_be_judged_is_not_reliable():
    _, log_ratio = narrow(1.0)
    log_weight, k_hat = importance(log_ratio)
    np.testing.assert_array_equal(k_hat, 0.0)  # q = p
    np.testing.assert_allclose(log_weight, -np.log(4000))
    assert is_reliable(k_hat)
    assert not is_reliable(importance(narrow(0.9, n_draws=24)[1])[1])
    log_ratio[1, 7] = np.nan
    assert np.isnan(importance(log_ratio)[1][1])
    assert weighted(log_ratio)[1] == Status.UNRELIABLE
    assert not Status.UNRELIABLE.ok


# ---- Laplace


def quadrature():
    """(log p(x), E μ, E log σ²) of one Gaussian in one dimension, on a grid of μ and log σ²."""
    mean, log_variance = np.linspace(-8.0, 10.0, 1500)[:, None], np.linspace(-5.0, 8.0, 1500)[None]
    log_density = norm.logpdf(mean, 0.5, 1.5) + 2.5 * np.log(1.5) - lgamma(2.5) - 2.5 * log_variance
    log_density = log_density - 1.5 * np.exp(-log_variance)  # d log σ² takes one power of σ²
    for value in X[:, 0]:
        log_density = log_density + norm.logpdf(value, mean, np.exp(0.5 * log_variance))
    evidence = logsumexp(log_density) + np.log(np.ptp(mean) / 1499 * np.ptp(log_variance) / 1499)
    mass = np.exp(log_density - logsumexp(log_density))
    return evidence, np.sum(mass * mean), np.sum(mass * log_variance)


def one_gaussian(**options):
    return bayes.laplace(jax.random.key(0), X, MixtureSpec(1, "spherical", prior=ONE), n_draws=4000, **options)


def test_laplace_corrected_has_evidence_and_moments_by_quadrature():
    """Five samples: far from Gaussian, but near enough for importance sampling."""
    posterior = one_gaussian()
    evidence, mean, log_variance = quadrature()
    assert posterior.status == Status.SAMPLED
    weight = np.exp(posterior.stats["log_weight"])
    error = np.sqrt(np.mean(np.sum((weight - weight.mean(1, keepdims=True)) ** 2, axis=1)) / 4)  # of four chains
    np.testing.assert_allclose(posterior.stats["log_evidence_corrected"], evidence, atol=5.0 * error)
    assert abs(posterior.stats["log_evidence"][0] - evidence) < 0.2  # O(1/n)
    draws = posterior.draws
    for values, exact in ((draws.means[..., 0, 0], mean), (np.log(draws.covariances[..., 0]), log_variance)):
        errors = np.sqrt(np.sum((weight * (values - exact)) ** 2, axis=1))
        assert np.all(np.abs(np.sum(weight * values, axis=1) - exact) <= 5.0 * errors)
    np.testing.assert_array_equal(posterior.stats["mode"], 0)
    np.testing.assert_array_equal(posterior.stats["n_labellings"], 1)


def test_a_start_that_leads_to_no_mode_is_never_ok(monkeypatch):
    nothing = Mode(np.full(2, np.nan), np.nan, np.full((2, 2), np.nan), np.nan)
    module = sys.modules["gmm_jax.bayes.laplace"]
    climb, calls = module._climb, []

    def first_fails(*arguments):
        calls.append(1)
        return nothing if len(calls) == 1 else climb(*arguments)

    monkeypatch.setattr(module, "_climb", first_fails)
    posterior = one_gaussian()
    assert posterior.status == Status.NON_FINITE
    assert np.isnan(posterior.log_density[0]).all()
    assert np.isnan(posterior.stats["pareto_k"][0])
    assert np.isfinite(posterior.log_density[1:]).all()
    assert np.isfinite(posterior.stats["log_evidence_corrected"]).all()


def test_what_is_no_mode_gets_no_gaussian():
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    mode = _gaussian(np.ones(2), -3.0, np.zeros(2), precision)
    np.testing.assert_allclose(mode.root @ mode.root.T, np.linalg.inv(precision))
    np.testing.assert_allclose(mode.half_log_precision, 0.5 * np.linalg.slogdet(precision)[1])
    for slope, matrix in (
        (np.ones(2), precision),
        (np.zeros(2), np.diag([1.0, -1.0])),
        (np.full(2, np.nan), precision),
    ):
        assert np.isnan(_gaussian(np.ones(2), -3.0, slope, matrix).height)


def test_labels_do_not_make_modes_distinct():
    rng = np.random.default_rng(0)
    gmm = GMM(np.array([0.2, 0.3, 0.5]), rng.standard_normal((3, 2)), np.stack([np.eye(2)] * 3))
    other = GMM(gmm.weights, gmm.means + 1.0, gmm.covariances)
    finds = [gmm, other, permute(gmm, np.array([2, 0, 1])), other, gmm]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *finds)
    found = np.array([True, True, True, False, True])
    np.testing.assert_array_equal(_distinct(stacked, found, MixtureSpec(3)), [0, 1, 0, 3, 0])


@pytest.mark.parametrize(
    ("known", "prior", "copies"),
    [
        (Known(), Prior(), 6),
        (Known(weights=np.array([0.2, 0.4, 0.4])), Prior(), 2),
        (Known(means=np.array([[0.0, 0.0], [np.nan, np.nan], [np.nan, np.nan]])), Prior(), 2),
        (Known(weights=np.full(3, 1 / 3)), Prior(), 6),
        (Known(), Prior(weights=dist.Dirichlet(np.array([1.0, 2.0, 1.0]))), 2),
    ],
)
def test_copies_of_a_mode_are_the_exchanges_that_change_nothing(known, prior, copies):
    x = np.random.default_rng(0).standard_normal((20, 2))
    problem, _ = prepare(x, MixtureSpec(3, "full", known, prior), n_chains=1, n_warmup=0, n_draws=1)
    eyes = np.stack([np.eye(2)] * 3)
    apart = GMM(np.full(3, 1 / 3), np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), eyes)
    assert n_labellings(problem, apart) == copies
    twins = GMM(np.full(3, 1 / 3), np.array([[5.0, 0.0], [1.0, 2.0], [1.0, 2.0]]), eyes)
    if copies == 6:
        assert n_labellings(problem, twins) == 3


@pytest.mark.slow
def test_laplace_is_exact_where_the_posterior_is_gaussian():
    """K = 1, Σ known: μ | x is normal, and log p(x) that of one normal vector of all samples."""
    rng = np.random.default_rng(0)
    covariance, loc, spread = (
        np.array([[0.6, 0.2], [0.2, 0.4]]),
        np.array([0.5, 0.2]),
        np.array([[2.0, -0.4], [-0.4, 1.5]]),
    )
    x = rng.standard_normal((12, 2))
    prior = Prior(means=dist.MultivariateNormal(loc, covariance_matrix=spread))
    spec = MixtureSpec(1, "full", Known(covariances=covariance[None]), prior)
    posterior = bayes.laplace(jax.random.key(0), x, spec)
    joint = np.kron(np.eye(12), covariance) + np.kron(np.ones((12, 12)), spread)
    evidence = multivariate_normal.logpdf(x.ravel(), np.tile(loc, 12), joint)
    np.testing.assert_allclose(posterior.stats["log_evidence"], evidence, rtol=1e-8)
    np.testing.assert_allclose(posterior.stats["log_evidence_corrected"], evidence, rtol=1e-8)
    np.testing.assert_array_equal(posterior.stats["pareto_k"], 0.0)
    exact_covariance = np.linalg.inv(np.linalg.inv(spread) + 12 * np.linalg.inv(covariance))
    exact_mean = exact_covariance @ (np.linalg.inv(spread) @ loc + np.linalg.inv(covariance) @ x.sum(0))
    draws = posterior.draws.means[:, :, 0].reshape(-1, 2) - exact_mean
    assert np.all(np.abs(draws.mean(0)) <= 5.0 * np.sqrt(np.diag(exact_covariance) / len(draws)))
    products = draws[:, :, None] * draws[:, None]
    error = products.std(0) / np.sqrt(len(draws))
    assert np.all(np.abs(products.mean(0) - exact_covariance) <= 5.0 * error)


@pytest.mark.slow
def test_evidence_counts_all_labellings():
    """K = 2 far apart, σ known: log p(x) by the sum over 2ⁿ labellings."""
    x = np.concatenate([-4.0 + 0.5 * np.arange(4), 3.0 + 0.7 * np.arange(5)])[:, None]
    prior = Prior(weights=dist.Dirichlet(np.full(2, 2.0)), means=dist.Normal(0.0, 5.0).expand([1]).to_event(1))
    spec = MixtureSpec(2, "spherical", Known(covariances=np.ones(2)), prior)
    posterior = bayes.laplace(jax.random.key(1), x, spec, n_draws=4000)
    terms = []
    for labels in product((0, 1), repeat=len(x)):
        labels = np.array(labels)
        term = lgamma(4.0) - lgamma(4.0 + len(x))
        for k in (0, 1):
            rows = x[labels == k, 0]
            term += lgamma(2.0 + len(rows)) - lgamma(2.0)
            if len(rows):
                spread = np.eye(len(rows)) + 25.0
                term += multivariate_normal.logpdf(rows, np.zeros(len(rows)), spread)
        terms.append(term)
    exact = logsumexp(terms)
    np.testing.assert_array_equal(posterior.stats["n_labellings"], 2)
    assert np.all(posterior.stats["mode"] == 0)
    weight = np.exp(posterior.stats["log_weight"])
    error = np.sqrt(np.mean(np.sum((weight - weight.mean(1, keepdims=True)) ** 2, axis=1)) / 4)
    assert abs(posterior.stats["log_evidence_corrected"][0] - exact) <= 5.0 * error + 1e-3  # 1e-3: lobes that overlap
    assert abs(posterior.stats["log_evidence"][0] - exact) < 0.2


def two_groups(n=120):
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [2 * n // 3, n // 3])
    return (
        np.array([[-2.0, 0.0], [2.5, 1.0]])[labels] + rng.standard_normal((n, 2)) * np.array([1.0, 0.7])[labels, None]
    )


START = {
    "full": np.stack([np.eye(2), 0.5 * np.eye(2)]),
    "tied": np.eye(2),
    "diag": np.array([[1.0, 1.0], [0.5, 0.5]]),
    "spherical": np.array([1.0, 0.5]),
}


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", TYPES)
def test_approximations_corrected_agree_with_gibbs(covariance_type):
    """One mean is known. Means of μ₁, φ and Σ: importance errors against MCSE, 4 combined standard errors."""
    x = two_groups()
    spec = MixtureSpec(2, covariance_type, Known(means=np.array([[-2.0, 0.0], [np.nan, np.nan]])))
    init = GMM(np.array([2.0, 1.0]) / 3, np.array([[-2.0, 0.0], [2.5, 1.0]]), START[covariance_type], covariance_type)
    exact = quantities(bayes.gibbs(jax.random.key(0), x, spec, init=init, n_draws=5000).draws, spec)
    engines = {"laplace": bayes.laplace}
    if covariance_type == "full":
        engines |= {
            guide: lambda *a, guide=guide, **o: bayes.svi(*a, guide=guide, **o)
            for guide in ("multivariate", "low_rank")
        }
    for name, engine in engines.items():
        posterior = engine(jax.random.key(1), x, spec, init=init, n_draws=4000)
        assert posterior.status == Status.SAMPLED, (name, posterior.stats["pareto_k"])
        np.testing.assert_array_equal(posterior.draws.means[..., 0, :], np.broadcast_to([-2.0, 0.0], (4, 4000, 2)))
        weight = np.exp(posterior.stats["log_weight"])
        for quantity, values in quantities(posterior.draws, spec).items():
            each = np.sum(weight * values, axis=1)
            error = np.sqrt(np.mean(np.sum((weight * (values - each[:, None])) ** 2, axis=1)) / 4)
            z = (each.mean() - exact[quantity].mean()) / np.hypot(error, mcse(exact[quantity]))
            assert abs(z) <= 4.0, (name, quantity, z)


@pytest.mark.slow
def test_distinct_modes_are_told_apart_and_add_up():
    """Four far clusters and three components: which two are merged makes distinct modes, alike by symmetry."""
    corners = 40.0 * np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    x = (corners[:, None] + np.random.default_rng(0).standard_normal((4, 15, 2))).reshape(60, 2)
    left = np.stack([corners[[0, 1]].mean(0), corners[2], corners[3]])
    right = np.stack([corners[[2, 3]].mean(0), corners[0], corners[1]])
    means = np.stack([left, right, left[[1, 2, 0]]])
    weights = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    init = GMM(weights, means, np.broadcast_to(20.0 * np.eye(2), (3, 3, 2, 2)), "full")
    posterior = bayes.laplace(jax.random.key(0), x, MixtureSpec(3), n_chains=3, init=init)
    np.testing.assert_array_equal(posterior.stats["mode"], [0, 1, 0])
    np.testing.assert_array_equal(posterior.stats["n_labellings"], 6)
    each = posterior.stats["log_evidence_of_mode"]
    np.testing.assert_allclose(each[0], each[2], atol=1e-4)
    np.testing.assert_allclose(posterior.stats["log_evidence"], logsumexp(each[:2]))


@pytest.mark.slow
def test_a_mean_field_guide_that_misses_correlation_is_unreliable():
    """K = 1, Σ known, correlation 0.9: along the diagonal p/q has a tail with k = 1 − (1 − 0.9²)/(1 + 0.9) = 0.9."""
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    x = np.random.default_rng(0).standard_normal((400, 2)) @ np.linalg.cholesky(covariance).T
    spec = MixtureSpec(1, "full", Known(covariances=covariance[None]))
    crude = bayes.svi(jax.random.key(0), x, spec)
    fine = bayes.svi(jax.random.key(0), x, spec, guide="multivariate")
    assert crude.status == Status.UNRELIABLE
    assert np.all(crude.stats["pareto_k"] > 0.7)
    assert fine.status == Status.SAMPLED
    assert crude.draws.means.std() < fine.draws.means.std()
