"""Overlap against closed forms, scipy's χ² and Monte Carlo; truths that overlap as much as was asked for."""

import jax
import numpy as np
import pytest
from scipy import stats

from conftest import TYPES, as_tuple, random_gmm
from gmm_jax import GMM, permute
from gmm_jax.mixture import affine, log_joint, sample, validate
from gmm_jax.problems import load, mixture_with_overlap, overlap
from gmm_jax.problems.overlap import quadratic_form_cdf


def test_components_with_one_covariance_have_the_textbook_errors():
    """ω_{j|i} = Φ(log(φ_j/φ_i)/Δ − Δ/2) with Δ their Mahalanobis distance."""
    covariance = np.array([[1.0, 0.7], [0.7, 2.0]])
    gmm = GMM(np.array([0.1, 0.3, 0.6]), np.array([[0.0, 0.0], [1.0, 3.0], [-9.0, 2.0]]), covariance, "tied")
    got = overlap(gmm).misclassified
    for i in range(3):
        for j in set(range(3)) - {i}:
            d = gmm.means[i] - gmm.means[j]
            delta = np.sqrt(d @ np.linalg.solve(covariance, d))
            want = stats.norm.cdf(np.log(gmm.weights[j] / gmm.weights[i]) / delta - 0.5 * delta)
            np.testing.assert_allclose(got[i, j], want, rtol=1e-8)  # 1e-9 of either tail


def test_on_the_line_it_is_what_lies_between_the_two_roots():
    """Where a narrow Gaussian beats a broad one is an interval, and its ends solve a quadratic equation."""
    weights, means, variances = np.array([0.3, 0.7]), np.array([[-1.0], [0.5]]), np.array([0.2, 3.0])
    precision = 1.0 / variances
    linear, constant = means[:, 0] * precision, np.log(weights**2 / variances) - means[:, 0] ** 2 * precision
    roots = np.sort(np.roots([precision[1] - precision[0], 2.0 * (linear[0] - linear[1]), constant[0] - constant[1]]))
    inside = np.diff(stats.norm.cdf(roots[None, :], means, np.sqrt(variances)[:, None]), axis=1)[:, 0]
    got = overlap(GMM(weights, means, variances, "spherical")).misclassified
    np.testing.assert_allclose([got[0, 1], got[1, 0]], [1.0 - inside[0], inside[1]], rtol=1e-8)


@pytest.mark.parametrize("n", [1, 2, 3, 20])
@pytest.mark.parametrize("p", [1e-12, 1e-3, 0.4, 0.9, 1.0 - 1e-6])
def test_sums_of_squares_are_chi_squared(n, p):
    ones, zeros = np.ones(n), np.zeros(n)
    c = stats.chi2.ppf(p, n)
    np.testing.assert_allclose(quadratic_form_cdf(ones, zeros, c), p, rtol=1e-8)
    np.testing.assert_allclose(quadratic_form_cdf(-ones, zeros, -c), 1.0 - p, rtol=1e-8)
    if p < 1e-6:  # c is rounding, after the shift
        return
    shifted = stats.ncx2.cdf(c, n, n * 0.49)  # Σ (z + 0.7)² = Σ z² + 1.4 z + 0.49
    np.testing.assert_allclose(quadratic_form_cdf(ones, 0.7 * ones, c - n * 0.49), shifted, rtol=1e-7)
    assert quadratic_form_cdf(ones, zeros, -1e-9) == 0.0
    assert quadratic_form_cdf(-ones, zeros, 1e-9) == 1.0


@pytest.mark.parametrize("bend", [0.0, 1e-12, 1e-7, -1e-7, 1e-5, -1e-3])
def test_a_form_that_is_hardly_curved_is_nearly_normal(bend):
    """2 b z + a z² is within O(a) of a normal: no term is left out or divided by on the way to a = 0."""
    b, c = np.array([0.5, 1e-3]), -2.0
    got = quadratic_form_cdf(np.array([bend, bend**2]), b, c)
    np.testing.assert_allclose(got, stats.norm.cdf(c, scale=2.0 * np.sqrt(b @ b)), atol=1e-9 + abs(bend))


@pytest.mark.parametrize(
    ("a", "b", "c", "want"),
    [
        (
            [0.0565, 0.0459, 0.0316, 0.0178, 0.0138, 0.0106, 0.0065, 0.0047, -0.00033],
            [0.454, 0.0163, 0.152, 0.106, -0.0531, -0.00367, -0.0346, -0.0401, -0.0195],
            -4.7,
            2.26562564363962e-14,
        ),
        ([0.4713, 0.007284, 0.1953, -0.0002417], [0.219, -0.2328, -0.1291, -0.0316], -4.424, 8.64026266909991e-29),
    ],
)
def test_far_beyond_the_end_of_all_terms_but_a_nearly_linear_one(a, b, c, want):
    """Against the integral along a straight line through the saddle point, by mpmath's quadrature in 15 digits."""
    np.testing.assert_allclose(quadratic_form_cdf(np.array(a), np.array(b), c), want, rtol=1e-8)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_overlap_is_what_the_best_rule_confuses(covariance_type):
    n = 40_000
    gmm = random_gmm(3, 3, 2, covariance_type, spread=1.0)
    got = overlap(gmm).misclassified
    rng = np.random.default_rng(0)
    dense = np.asarray(_dense(gmm))
    for i in range(3):
        x = rng.multivariate_normal(gmm.means[i], dense[i], size=n)
        joint = np.asarray(log_joint(gmm, x))
        for j in set(range(3)) - {i}:
            beaten = np.mean(joint[:, j] > joint[:, i])
            assert abs(beaten - got[i, j]) < 5.0 * np.sqrt(got[i, j] * (1.0 - got[i, j]) / n) + 1.0 / n


def _dense(gmm):
    return {
        "full": lambda leaf: leaf,
        "tied": lambda leaf: np.stack([leaf] * 3),
        "diag": lambda leaf: leaf[:, :, None] * np.eye(2),
        "spherical": lambda leaf: leaf[:, None, None] * np.eye(2),
    }[gmm.covariance_type](gmm.covariances)


def test_it_does_not_depend_on_units_nor_on_order():
    gmm = random_gmm(4, 4, 3, "full", spread=1.5)
    base = overlap(gmm)
    moved = overlap(affine(gmm, np.array([[1e-4, 0.0, 2e-4], [0.0, 3e3, 0.0], [1e-4, 1.0, -1e-4]]), 7.0))
    np.testing.assert_allclose(moved.misclassified, base.misclassified, rtol=1e-6)  # condition number 1e8 of the map
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(overlap(permute(gmm, order)).pairs, base.pairs[np.ix_(order, order)], rtol=1e-8)
    np.testing.assert_array_equal(base.pairs, base.misclassified + base.misclassified.T)
    above = base.pairs[np.triu_indices(4, 1)]
    np.testing.assert_allclose([base.mean, base.maximum], [above.mean(), above.max()])


def test_with_two_components_it_is_the_bayes_error():
    problem = load("course_2d")
    value, error = problem.bayes_error(jax.random.key(0))
    wrong = overlap(problem.truth).misclassified
    assert abs(problem.truth.weights @ wrong.sum(axis=1) - value) < 5.0 * error


def test_a_component_twice_is_decided_by_the_weights():
    means = np.zeros((2, 2))
    wrong = overlap(GMM(np.array([0.5, 0.5]), means, np.eye(2), "tied"))
    np.testing.assert_array_equal(wrong.misclassified, [[0.0, 0.5], [0.5, 0.0]])
    wrong = overlap(GMM(np.array([0.7, 0.3]), means, np.eye(2), "tied"))
    np.testing.assert_array_equal(wrong.misclassified, [[0.0, 0.0], [1.0, 0.0]])
    wrong = overlap(GMM(np.array([1.0, 0.0]), np.array([[0.0], [1.0]]) + means, np.eye(2), "tied"))
    np.testing.assert_array_equal(wrong.misclassified, [[0.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize("target", [0.001, 0.01, 0.1, 0.3])
@pytest.mark.parametrize("name", ["mean", "maximum"])
def test_a_requested_overlap_is_met(name, target):
    gmm = mixture_with_overlap(jax.random.key(0), 3, 2, **{name: target})
    np.testing.assert_allclose(getattr(overlap(validate(gmm)), name), target, rtol=1e-5)


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
def test_mean_and_maximum_are_met_together(covariance_type):
    gmm = mixture_with_overlap(jax.random.key(1), 4, 2, mean=0.02, maximum=0.06, covariance_type=covariance_type)
    found = overlap(validate(gmm))
    np.testing.assert_allclose([found.mean, found.maximum], [0.02, 0.06], rtol=1e-5)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_imbalance_and_eccentricity_are_what_they_say(covariance_type):
    options = {"imbalance": 5.0, "eccentricity": 0.6, "covariance_type": covariance_type}
    gmm = mixture_with_overlap(jax.random.key(2), 3, 2, mean=0.05, **options)
    again = mixture_with_overlap(jax.random.key(2), 3, 2, mean=0.05, **options)
    np.testing.assert_allclose(gmm.weights.max() / gmm.weights.min(), 5.0)
    for left, right in zip(as_tuple(gmm)[:3], as_tuple(again)[:3], strict=True):
        np.testing.assert_array_equal(left, right)
    values = np.linalg.eigvalsh(_dense(gmm))
    assert np.all(values[:, 0] >= (1.0 - 0.36) * values[:, -1] * (1.0 - 1e-12))


def test_a_requested_separation_is_that_of_the_closest_pair():
    gmm = mixture_with_overlap(jax.random.key(0), 4, 3, separation=1.7)
    largest = np.linalg.eigvalsh(gmm.covariances)[:, -1]
    c = [
        np.linalg.norm(gmm.means[i] - gmm.means[j]) / np.sqrt(3.0 * max(largest[i], largest[j]))
        for i in range(4)
        for j in range(i)
    ]
    np.testing.assert_allclose(min(c), 1.7)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mean": 1.5}, r"mean must lie in \(0, 1\); got 1.5"),
        ({}, "give either an overlap"),
        ({"mean": 0.1, "separation": 2.0}, "give either an overlap"),
        ({"mean": 0.001, "maximum": 0.3}, "contradict each other"),
        ({"mean": 0.05, "maximum": 0.1, "covariance_type": "tied"}, "cannot be scaled apart"),
        ({"mean": 0.999, "n_tries": 2}, "mean=0.999 was met by none of 2 random mixtures"),
        ({"mean": 0.1, "imbalance": 0.5}, "imbalance is the largest weight over the smallest"),
        ({"mean": 0.1, "eccentricity": 1.0}, r"eccentricity must lie in \[0, 1\)"),
        ({"separation": -1.0}, "separation must be positive"),
    ],
)
def test_what_cannot_be_met_is_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        mixture_with_overlap(jax.random.key(0), 3, 2, **options)


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.001, 0.01, 0.1, 0.3])
def test_ten_million_draws_agree_with_the_integral(target):
    """Each ω_{j|i} within 4 standard errors, and the mean that was asked for within 1e-3."""
    gmm = mixture_with_overlap(jax.random.key(3), 3, 2, mean=target)
    found = overlap(gmm)
    np.testing.assert_allclose(found.mean, target, rtol=1e-3)
    beats, counts = np.zeros((3, 3)), np.zeros(3)
    for key in jax.random.split(jax.random.key(4), 20):
        x, labels = sample(key, gmm, 500_000)
        joint, labels = np.asarray(log_joint(gmm, x)), np.asarray(labels)
        own = np.take_along_axis(joint, labels[:, None], axis=1)
        np.add.at(beats, labels, joint > own)
        counts += np.bincount(labels, minlength=3)
    want = found.misclassified
    error = np.sqrt(want * (1.0 - want) / counts[:, None])
    assert np.all(np.abs(beats / counts[:, None] - want) <= 4.0 * error + 1e-12)
