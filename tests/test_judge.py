"""Recovery and diagnostics against plain NumPy."""

import jax
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import oracles
from conftest import TYPES, as_tuple, near, posterior_of, random_gmm
from gmm_jax import GMM, Fit, Known, MixtureSpec, Status, judge, permute
from gmm_jax.bayes.diagnostics import quantities

K, D = 3, 2


# ---- recovery


def dense(gmm):
    return oracles.dense(gmm.covariances, gmm.covariance_type, K, D)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_recovery_is_the_formulas(covariance_type, x):
    truth = random_gmm(0, K, D, "full")
    point = jax.tree.map(lambda leaf: leaf[0, 0], near(random_gmm(0, K, D, covariance_type), 1))
    labels = np.arange(60) % K
    other = permute(point, np.array([2, 0, 1]))
    found = judge.recovery(jax.random.key(0), other, truth, x=x, labels=labels, x_test=x[:7])
    weights, means = point.weights - truth.weights, point.means - truth.means
    covariances = dense(point) - truth.covariances
    np.testing.assert_allclose(found["weights_error"], np.sqrt(np.mean(weights**2)))
    np.testing.assert_allclose(found["means_error"], np.sqrt(np.mean(means**2)))
    np.testing.assert_allclose(found["covariances_error"], np.sqrt(np.mean(covariances**2)))
    np.testing.assert_allclose(found["weights_max_error"], np.abs(weights).max())
    np.testing.assert_allclose(found["means_max_error"], np.abs(means).max())
    np.testing.assert_allclose(found["covariances_max_error"], np.abs(covariances).max())
    squares = [d @ np.linalg.inv(c) @ d / D for d, c in zip(means, truth.covariances, strict=True)]
    np.testing.assert_allclose(found["relative_means_error"], np.sqrt(np.mean(squares)))
    np.testing.assert_allclose(found["log_likelihood"], oracles.log_likelihood(as_tuple(point), x))
    np.testing.assert_allclose(found["test_log_likelihood"], oracles.log_prob(as_tuple(point), x[:7]).mean())
    np.testing.assert_allclose(found["test_log_likelihood_truth"], oracles.log_prob(as_tuple(truth), x[:7]).mean())
    predicted = oracles.log_joint(as_tuple(point), x).argmax(axis=1)
    np.testing.assert_allclose(found["ari"], adjusted_rand_score(labels, predicted), atol=1e-12)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_permuted_truth_is_recovered_without_error(covariance_type, x):
    truth = random_gmm(0, K, D, covariance_type)
    found = judge.recovery(jax.random.key(0), permute(truth, np.array([1, 2, 0])), truth, x=x, labels=np.arange(60) % K)
    errors = {name: value for name, value in found.items() if name.endswith("error") or name.startswith("kl")}
    assert len(errors) == 9
    assert max(map(abs, errors.values())) <= 1e-14
    assert found["ari"] == found["ari_truth"]


def test_recovery_takes_a_fit_and_another_number_of_components(x):
    truth = random_gmm(0, K, D, "full")
    fit = Fit(random_gmm(1, 2, D, "diag"), None, None, Status.CONVERGED, {})
    found = judge.recovery(jax.random.key(0), fit, truth, x=x)
    assert set(found) == {*judge.Divergences._fields, "mixing_distance", "log_likelihood"}
    assert all(np.isfinite(value) for value in found.values())


def test_nan_is_never_a_small_error(x):
    truth = random_gmm(0, K, D, "full")
    broken = GMM(truth.weights, truth.means * np.nan, truth.covariances)
    found = judge.recovery(jax.random.key(0), broken, truth, x=x)
    assert np.isnan(found["means_error"])
    assert np.isnan(found["kl"])
    assert np.isnan(found["log_likelihood"])


def test_kl_and_its_error_are_honest():
    """Two Gaussians: ½ (tr Σ_q⁻¹Σ_p + dᵀΣ_q⁻¹d − D + log |Σ_q|/|Σ_p|); z-scores over keys are standard normal."""
    p, q = random_gmm(0, 1, D, "full"), random_gmm(1, 1, D, "full", spread=0.5)
    p = GMM(p.weights, q.means + 0.3, p.covariances)
    d, inverse = (q.means - p.means)[0], np.linalg.inv(q.covariances[0])
    exact = 0.5 * (np.trace(inverse @ p.covariances[0]) + d @ inverse @ d - D)
    exact += 0.5 * (np.linalg.slogdet(q.covariances[0])[1] - np.linalg.slogdet(p.covariances[0])[1])
    keys = jax.random.split(jax.random.key(0), 200)
    found = [judge.divergences(key, p, q, n_draws=2000) for key in keys]
    z = np.array([(each.kl - exact) / each.kl_se for each in found])
    assert abs(z.mean()) <= 5.0 / np.sqrt(200)
    assert abs(z.std() - 1.0) <= 5.0 / np.sqrt(2 * 200)


def test_kl_is_zero_from_itself_and_says_so():
    gmm = random_gmm(0, K, D, "full")
    found = judge.divergences(jax.random.key(0), gmm, gmm)
    assert abs(found.kl) <= 1e-14
    assert found.kl_se <= 1e-14


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_rand_index_is_sklearns(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, 50), rng.integers(5, 8, 50)
    b = np.where(rng.random(50) < 0.2 * seed, a + 5, b)
    np.testing.assert_allclose(judge.adjusted_rand_index(a, b), adjusted_rand_score(a, b), atol=1e-12)


def test_adjusted_rand_index_of_the_trivial_partitions():
    one, each = np.zeros(6, int), np.arange(6)
    for a, b in ((one, one), (each, each), (one, each), (each, one)):
        assert judge.adjusted_rand_index(a, b) == adjusted_rand_score(a, b)


# ---- diagnostics


def independent(gmm, seed=0):
    return posterior_of(near(gmm, seed, n_chains=4, n_draws=500))


@pytest.mark.parametrize(
    ("covariance_type", "names"),
    [
        ("full", ["covariances[1,0,0]", "covariances[1,1,0]", "covariances[1,1,1]"]),
        ("diag", ["covariances[1,0]", "covariances[1,1]"]),
        ("spherical", ["covariances[1]"]),
    ],
)
def test_only_free_numbers_have_a_row(covariance_type, names):
    gmm = random_gmm(0, K, D, covariance_type)
    leaves = [np.array(leaf) for leaf in (gmm.weights, gmm.means, gmm.covariances)]
    leaves[0][:2] = np.nan
    leaves[1][2] = np.nan
    leaves[2][1] = np.nan
    spec = MixtureSpec(K, covariance_type, Known(*leaves))
    found = judge.diagnostics(independent(gmm), spec)
    assert list(found.names) == ["weights[0]", "weights[1]", "means[2,0]", "means[2,1]", *names, "log_density"]
    only_one = MixtureSpec(K, covariance_type, Known(weights=np.array([0.2, 0.3, np.nan])))
    assert not any("weights" in name for name in quantities(independent(gmm).draws, only_one))


def test_tied_covariances_have_one_triangle():
    names = quantities(independent(random_gmm(0, K, D, "tied")).draws, MixtureSpec(K, "tied"))
    assert [name for name in names if "cov" in name] == ["covariances[0,0]", "covariances[1,0]", "covariances[1,1]"]


def test_independent_draws_pass():
    found = judge.diagnostics(independent(random_gmm(0, K, D, "full")), MixtureSpec(K))
    assert found.worst["r_hat"] < 1.01
    assert found.worst["ess_bulk"] > 1000
    assert found.status == Status.SAMPLED


@pytest.mark.parametrize("value", [np.nan, 3.0])
def test_a_constant_or_broken_quantity_is_never_mixed(value):
    gmm = random_gmm(0, K, D, "full")
    draws = independent(gmm).draws
    means = np.array(draws.means)
    means[..., 0, 0] = value
    found = judge.diagnostics(posterior_of(GMM(draws.weights, means, draws.covariances)), MixtureSpec(K))
    assert found.status == Status.UNMIXED


def test_one_chain_alone_cannot_be_called_mixed():
    one = jax.tree.map(lambda leaf: leaf[:1], independent(random_gmm(0, K, D, "full")).draws)
    found = judge.diagnostics(posterior_of(one), MixtureSpec(K))
    assert np.all(np.isnan(found.r_hat))
    assert found.status == Status.UNMIXED
