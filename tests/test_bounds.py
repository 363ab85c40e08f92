"""The Cramér–Rao bound against closed forms, and efficiency of estimators whose efficiency is known."""

import jax
import numpy as np
import pytest

from conftest import assert_trees_close, random_gmm
from gmm_jax import GMM, Known, MixtureSpec, permute
from gmm_jax.em import EMResult, bootstrap
from gmm_jax.mixture import affine
from gmm_jax.problems import load
from shared.bounds import cramer_rao, efficiency

ONE = GMM(np.ones(1), np.array([[1.0, -2.0]]), np.array([[[2.0, 0.6], [0.6, 1.0]]]))
DRAWS = {"n_samples": 50, "n_draws": 40_000}


@pytest.fixture(scope="module")
def bound():
    return cramer_rao(jax.random.key(0), ONE, MixtureSpec(1), **DRAWS)


def test_one_gaussian_has_the_textbook_bound(bound):
    """Var(μ̂) ≥ Σ/n and var(Σ̂_ij) ≥ (Σ_ij² + Σ_ii Σ_jj)/n."""
    s = ONE.covariances[0]
    v = np.diag(s)
    got, error = bound.standard_errors, bound.standard_errors_se
    assert np.all(np.abs(got.means[0] - np.sqrt(v / 50)) < 5.0 * error.means[0])
    assert np.all(np.abs(got.covariances[0] - np.sqrt((s**2 + np.outer(v, v)) / 50)) < 5.0 * error.covariances[0])
    assert np.all(error.means / got.means < 0.01)
    information = np.linalg.inv(s) * 50
    assert np.all(np.abs(bound.information[:2, :2] - information) < 5.0 * bound.information_se[:2, :2])
    np.testing.assert_array_equal(got.weights, 0.0)


def estimates(key, n_replications, estimator):
    """(R,) mixtures of one component, `estimator` of the mean and covariance of 50 samples each."""
    rng = np.random.default_rng(key)
    x = rng.multivariate_normal(ONE.means[0], ONE.covariances[0], size=(n_replications, 50))
    mean, d = x.mean(axis=1), x - x.mean(axis=1, keepdims=True)
    mean, covariance = estimator(mean, np.einsum("rni,rnj->rij", d, d))
    return GMM(np.ones((n_replications, 1)), mean[:, None], covariance[:, None])


def test_the_efficiency_of_one_gaussians_estimators_is_known(bound):
    """Unbiased: the mean is at the bound, and tr(I·MSE) of S = D/(n−1) exceeds it by n/(n−1); (2 + 3·50/49)/5."""
    found = efficiency(estimates(0, 4000, lambda m, s: (m, s / 49)), ONE, MixtureSpec(1), bound)
    assert abs(found.value - (2 + 3 * 50 / 49) / 5) < 5.0 * found.error
    assert found.error < 0.02
    np.testing.assert_allclose(found.variance + found.bias, found.value)
    assert found.bias < 0.01
    shifted = efficiency(estimates(0, 4000, lambda m, s: (m + 0.5, s / 49)), ONE, MixtureSpec(1), bound)
    shift = 50 * 0.25 * np.linalg.inv(ONE.covariances[0]).sum() / 5
    assert abs(shifted.bias - shift) < 0.07 * shift  # five errors: 0.5 ± √(2/50/4000), squared
    assert abs(shifted.variance - found.variance) < 1e-6
    shrunk = efficiency(estimates(0, 4000, lambda m, s: (0.5 * m, s / 49)), ONE, MixtureSpec(1), bound)
    assert shrunk.variance < 0.75  # beyond the bound, which is for unbiased estimators
    assert shrunk.value > 1.0


def test_the_bound_is_that_of_any_order_and_any_units():
    truth, spec = random_gmm(0, 3, 2, "full", spread=1.0), MixtureSpec(3)
    key, order = jax.random.key(1), np.array([2, 0, 1])
    base = cramer_rao(key, truth, spec, **DRAWS)
    moved = cramer_rao(key, affine(truth, 10.0, 3.0), spec, **DRAWS).standard_errors
    back = affine(moved, 0.1)
    assert_trees_close(back, base.standard_errors, rtol=1e-8)
    other = cramer_rao(key, permute(truth, order), spec, **DRAWS)
    limit = np.hypot(other.standard_errors_se.means, base.standard_errors_se.means[order])
    assert np.all(np.abs(other.standard_errors.means - base.standard_errors.means[order]) < 6.0 * limit)


def test_what_is_known_is_no_part_of_the_bound():
    truth = random_gmm(0, 2, 2, "full")
    known = Known(weights=truth.weights, covariances=truth.covariances)
    found = cramer_rao(jax.random.key(0), truth, MixtureSpec(2, known=known), n_samples=10, n_draws=4000)
    assert found.information.shape == (4, 4)
    assert not found.standard_errors.weights.any()
    assert not found.standard_errors.covariances.any()
    everything = Known(truth.weights, truth.means, truth.covariances)
    with pytest.raises(ValueError, match="spec leaves nothing free"):
        cramer_rao(jax.random.key(0), truth, MixtureSpec(2, known=everything), n_samples=10)
    with pytest.raises(ValueError, match="bound is of 4 free numbers, but spec leaves 11"):
        efficiency(jax.tree.map(lambda a: np.stack([a, a]), truth), truth, MixtureSpec(2), found)


def test_a_singular_information_is_an_error():
    twins = GMM(np.array([0.5, 0.5]), np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    with pytest.raises(ValueError, match="the information at the truth is singular"):
        cramer_rao(jax.random.key(0), twins, MixtureSpec(2), n_samples=10, n_draws=4000)


@pytest.mark.slow
def test_em_is_at_the_bound_where_components_are_apart():
    """Well-separated, n = 5,000, 4,000 replications: between 0.97 and 1.03, and next to no bias."""
    problem = load("well_separated")
    x, _ = problem.sample(jax.random.key(0), 5000)  # gives the unit and n; the replications are samples of the truth
    at_truth = EMResult(problem.truth, None, None, None, None)
    fits = bootstrap(jax.random.key(1), x, at_truth, problem.spec, n_resamples=4000, parametric=True).gmms
    bound = cramer_rao(jax.random.key(2), problem.truth, problem.spec, n_samples=5000, n_draws=1_000_000)
    found = efficiency(fits, problem.truth, problem.spec, bound)
    assert 0.97 < found.value < 1.03
    assert found.bias < 0.01
