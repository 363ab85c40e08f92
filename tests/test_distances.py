"""Distances that need no pairing: against closed forms, quadrature, and what a distance is."""

import jax
import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, random_gmm
from gmm_jax import GMM, judge, permute


def on_the_line(seed, n_components):
    return random_gmm(seed, n_components, 1, "full", spread=2.0)


def by_quadrature(p, q):
    """(Hellinger, L1) on a fine grid."""
    grid = np.linspace(-40.0, 40.0, 200_001)[:, None]
    a, b = (np.exp(oracles.log_prob(as_tuple(gmm), grid)) for gmm in (p, q))
    step = grid[1, 0] - grid[0, 0]
    return np.sqrt(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2) * step / 2.0), np.sum(np.abs(a - b)) * step


def test_densities_are_as_far_apart_as_quadrature_says_and_errors_are_honest():
    p, q = on_the_line(0, 3), on_the_line(1, 2)
    hellinger, l1 = by_quadrature(p, q)
    keys = jax.random.split(jax.random.key(0), 100)
    each = [judge.divergences(key, p, q, n_draws=2000) for key in keys]
    found = jax.tree.map(lambda *values: np.array(values), *each)
    for value, error, exact in (
        (found.hellinger, found.hellinger_se, hellinger),
        (found.l1, found.l1_se, l1),
    ):
        z = (value - exact) / error
        assert abs(z.mean()) <= 5.0 / np.sqrt(100)
        assert abs(z.std() - 1.0) <= 5.0 / np.sqrt(200)


def test_nothing_is_apart_from_itself_nor_from_its_own_permutation():
    gmm = random_gmm(0, 3, 2, "full")
    other = permute(gmm, np.array([2, 0, 1]))
    found = judge.divergences(jax.random.key(0), gmm, other)
    assert max(abs(float(value)) for value in found) <= 1e-13
    assert judge.mixing_distance(gmm, other) <= 1e-7  # the root of rounding
    far = GMM(gmm.weights, gmm.means + 1e3, gmm.covariances)
    found = judge.divergences(jax.random.key(0), gmm, far)
    np.testing.assert_allclose([float(found.hellinger), float(found.l1)], [1.0, 2.0])


def test_two_gaussians_are_as_far_apart_as_bures_and_wasserstein_say():
    p, q = random_gmm(0, 1, 3, "full"), random_gmm(1, 1, 3, "full")
    a, b = p.covariances[0], q.covariances[0]
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values) @ vectors.T
    inner = np.sqrt(np.linalg.eigvalsh(root @ b @ root)).sum()
    want = np.sum((p.means - q.means) ** 2) + np.trace(a) + np.trace(b) - 2.0 * inner
    np.testing.assert_allclose(judge.mixing_distance(p, q), np.sqrt(want), rtol=1e-10)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_split_component_is_no_distance_and_a_moved_one_is_its_way(covariance_type):
    """Valid where K differs: weight divided between two equal components is the same mixing measure."""
    gmm = random_gmm(2, 2, 2, covariance_type)
    twice = [0, 1, 1]
    shared = covariance_type == "tied"
    covariances = gmm.covariances if shared else gmm.covariances[twice]
    split = GMM(gmm.weights[twice] * [1.0, 0.3, 0.7], gmm.means[twice], covariances, covariance_type)
    assert judge.mixing_distance(gmm, split) <= 1e-6
    moved = split.means + np.array([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]]) * 1e-2
    # no shorter way: 0.05 is small beside what lies between the components
    want = 0.05 * np.sqrt(split.weights[2])
    got = judge.mixing_distance(gmm, GMM(split.weights, moved, covariances, covariance_type))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_it_is_a_distance():
    p, q, r = random_gmm(0, 2, 2, "full"), random_gmm(1, 3, 2, "full"), random_gmm(2, 4, 2, "diag")
    there, back = judge.mixing_distance(p, q), judge.mixing_distance(q, p)
    np.testing.assert_allclose(there, back, rtol=1e-8)
    assert judge.mixing_distance(p, r) <= there + judge.mixing_distance(q, r) + 1e-12
    assert np.isnan(judge.mixing_distance(p, GMM(q.weights, q.means * np.nan, q.covariances)))


def test_the_score_of_new_samples_is_a_mean_with_its_error(x):
    gmm = random_gmm(0, 3, 2, "full")
    values = oracles.log_prob(as_tuple(gmm), x)
    found = judge.recovery(jax.random.key(0), gmm, gmm, x_test=x)
    score = found["test_log_likelihood"], found["test_log_likelihood_se"]
    np.testing.assert_allclose(score, [values.mean(), values.std(ddof=1) / np.sqrt(60)])


def test_diagonal_mixtures_are_as_far_apart_as_their_matrices_say():
    a, b = random_gmm(0, 3, 2, "diag"), random_gmm(1, 3, 2, "spherical")
    full = [GMM(g.weights, g.means, judge.dense_covariances(g)) for g in (a, b)]
    assert judge.mixing_distance(a, b) == pytest.approx(judge.mixing_distance(*full), rel=1e-12)
    key = jax.random.key(0)
    assert judge.recovery(key, a, b) == pytest.approx(judge.recovery(key, *full), rel=1e-9)
