"""Densities against the formulas; sampling, permuting and mapping against what they mean."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import oracles
from conftest import EPS, TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax import GMM, affine, log_joint, log_prob, permute, predict, responsibilities, sample, validate
from gmm_jax.mixture import Annotations, impute
from gmm_jax.mixture.moments import log_likelihood


def test_densities_are_the_formulas(mixture, x):
    assert_trees_close(log_joint(mixture, x), oracles.log_joint(as_tuple(mixture), x))
    assert_trees_close(log_prob(mixture, x), oracles.log_prob(as_tuple(mixture), x))
    assert_trees_close(responsibilities(mixture, x), oracles.responsibilities(as_tuple(mixture), x))
    np.testing.assert_array_equal(predict(mixture, x), np.argmax(oracles.log_joint(as_tuple(mixture), x), axis=1))


@pytest.mark.parametrize("condition", [1e2, 1e6, 1e10])
def test_density_is_right_for_ill_conditioned_covariances(condition):
    """scikit-learn #29989. The truth is known because x − μ is made from the eigenvectors."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    values = np.geomspace(1.0, 1.0 / condition, 4)
    matrix = q * values @ q.T
    z = rng.standard_normal((50, 4))
    gmm = GMM(np.ones(1), np.zeros((1, 4)), 0.5 * (matrix + matrix.T)[None])
    expected = -0.5 * (np.sum(z * z, axis=1) + np.sum(np.log(values)) + 4 * np.log(2 * np.pi))
    # rounding Σ moves its smallest eigenvalue by eps, which is eps·condition of it
    np.testing.assert_allclose(log_prob(gmm, z * np.sqrt(values) @ q.T), expected, rtol=20 * EPS * condition + 1e-12)


def test_density_integrates_to_one(mixture):
    grid = np.linspace(-25, 25, 401)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    total = np.sum(np.exp(log_prob(mixture, points))) * (grid[1] - grid[0]) ** 2
    np.testing.assert_allclose(total, 1.0, rtol=1e-8)  # the trapezium rule is exponentially exact for Gaussians


def test_far_rows_have_finite_densities_and_responsibilities(mixture):
    far = np.array([[1e8, -1e8]])
    assert np.isfinite(log_prob(mixture, far)).all()
    np.testing.assert_allclose(responsibilities(mixture, far).sum(), 1.0, rtol=1e-14)


def test_a_component_of_weight_zero_is_absent(x):
    gmm = random_gmm(5, 3, 2, "full")
    two = GMM(np.array([0.4, 0.6]), gmm.means[:2], gmm.covariances[:2])
    three = GMM(np.array([0.4, 0.6, 0.0]), gmm.means, gmm.covariances)
    assert_trees_close(log_prob(three, x), log_prob(two, x))


def test_samples_have_the_moments_of_their_components(mixture):
    """Every mean within 5 standard errors; counts, means and covariances of labelled rows."""
    n = 20_000
    rows, labels = (np.asarray(a) for a in sample(jax.random.key(0), mixture, n))
    matrices = oracles.dense(mixture.covariances, mixture.covariance_type, 3, 2)
    assert rows.shape == (n, 2)
    assert labels.shape == (n,)
    for k, phi in enumerate(mixture.weights):
        mine = rows[labels == k]
        assert abs(len(mine) - n * phi) < 5 * np.sqrt(n * phi * (1 - phi))
        variances = np.diag(matrices[k])
        assert np.all(np.abs(mine.mean(axis=0) - mixture.means[k]) < 5 * np.sqrt(variances / len(mine)))
        error = np.sqrt((matrices[k] ** 2 + np.outer(variances, variances)) / len(mine))
        assert np.all(np.abs(np.cov(mine.T) - matrices[k]) < 5 * error)


def test_labels_are_drawn_for_every_sample_anew():
    """sbibm draws one label for a whole batch: counts would then not be multinomial."""
    gmm = random_gmm(5, 3, 2, "full")
    _, labels = sample(jax.random.key(1), gmm, 300)
    assert len(np.unique(labels)) == 3
    assert len(np.unique(np.diff(np.asarray(labels)))) > 3


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_permuting_keeps_the_density_and_moves_whole_components(order, mixture, x):
    moved = permute(mixture, np.array(order))
    assert_trees_close(log_prob(moved, x), log_prob(mixture, x))
    assert_trees_close(log_joint(moved, x), np.asarray(log_joint(mixture, x))[:, order])
    assert_trees_close(permute(moved, np.argsort(order)), mixture)


def test_permuting_many_is_permuting_each(mixture):
    many = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), mixture)
    orders = np.array([[2, 0, 1], [1, 0, 2]])
    together = permute(many, orders)
    for i in range(2):
        one = permute(jax.tree.map(lambda leaf, i=i: leaf[i], many), orders[i])
        assert_trees_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), one)


@pytest.mark.parametrize("kind", ["number", "negative", "vector", "matrix"])
@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_affine_is_a_change_of_variables(kind, library, mixture, x):
    """p(y) = p(x) / |det A| for y = A x + b."""
    scale = {"number": 3.0, "negative": -0.5, "vector": np.array([2.0, -0.1]), "matrix": np.array([[1.0, 2], [0, 3]])}
    scale, shift = scale[kind], np.array([5.0, -7.0])
    allowed = {"vector": ("full", "tied", "diag"), "matrix": ("full", "tied")}.get(kind)
    gmm = mixture if library == "numpy" else jax.tree.map(jax.numpy.asarray, mixture)
    if allowed and mixture.covariance_type not in allowed:
        with pytest.raises(ValueError, match="affine"):
            affine(gmm, scale, shift)
        return
    matrix = scale if kind == "matrix" else np.diag(scale * np.ones(2))
    moved = affine(gmm, scale, shift)
    assert {type(leaf) for leaf in jax.tree.leaves(moved)} == {type(gmm.means)}
    expected = log_prob(mixture, x) - np.log(abs(np.linalg.det(matrix)))
    assert_trees_close(log_prob(moved, x @ matrix.T + shift), expected)


def test_a_valid_mixture_is_returned_as_it_is(mixture):
    assert validate(mixture) is mixture


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": [0.5, 0.5, 0.1]}, ["gmm.weights must sum to 1, got 1.1", "weights / weights.sum()"]),
        ({"weights": [0.7, 0.5, -0.2]}, ["negative", "-0.2", "component 2"]),
        ({"weights": [1.0]}, ["gmm.weights must have shape (3,)", "(1,)"]),
        ({"weights": ["a", "b", "c"]}, ["gmm.weights must hold real numbers"]),
        ({"means": np.zeros(3)}, ["gmm.means must have shape (K, D)", "(3,)"]),
        ({"means": [[0, 0], [0, np.nan], [0, 0]]}, ["gmm.means must be finite", "nan", "(1, 1)"]),
        ({"covariances": np.ones((3, 2))}, ["(3, 2, 2)", "'full'", "(3, 2)"]),
        ({"covariances": np.stack([np.eye(2), np.eye(2), np.ones((2, 2))])}, ["positive definite", "component 2"]),
    ],
)
def test_a_bad_mixture_is_one_sentence(change, words):
    gmm = {"weights": np.ones(3) / 3, "means": np.zeros((3, 2)), "covariances": np.stack([np.eye(2)] * 3)}
    with pytest.raises(ValueError) as caught:
        validate(GMM(**{**gmm, **change}))
    assert all(word in str(caught.value) for word in words), caught.value


def test_weights_of_six_digits_pass():
    """Numbers copied from a printed table are off by rounding, which is no error."""
    validate(GMM(np.array([0.3333333, 0.3333333, 0.3333334]), np.zeros((3, 2)), np.stack([np.eye(2)] * 3)))


@pytest.mark.parametrize("kind", TYPES)
def test_the_slope_in_a_weight_of_zero_is_the_share_of_density(kind, x):
    """∂ Σ log p / ∂φ_k = Σ_n N_k(x_n) / p(x_n), also for the likelihood that is a sum of moments."""
    gmm = random_gmm(5, 3, 2, kind)
    gmm = replace(gmm, weights=np.array([0.3, 0.0, 0.7]))
    alone = [log_prob(replace(gmm, weights=np.eye(3)[k]), x) for k in range(3)]
    expected = [np.sum(np.exp(one - log_prob(gmm, x))) for one in alone]
    slope = jax.jit(jax.grad(lambda gmm: log_prob(gmm, x).sum()))(gmm)
    np.testing.assert_allclose(slope.weights, expected, rtol=1e-10)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    summed = jax.jit(jax.grad(lambda gmm: log_likelihood(gmm, x, Annotations())))(gmm)
    np.testing.assert_allclose(summed.weights, expected, rtol=1e-8)
    curve = jax.jit(jax.jacfwd(jax.grad(lambda w: log_prob(replace(gmm, weights=w), x).sum())))(gmm.weights)
    shares = np.exp(np.array(alone) - np.asarray(log_prob(gmm, x))[None])
    np.testing.assert_allclose(curve, -shares @ shares.T, rtol=1e-8)


@pytest.mark.parametrize("kind", TYPES)
def test_responsibilities_have_a_derivative_where_a_weight_is_zero(kind, x):
    """∂r_j/∂φ_k = N_k/p (δ_jk − r_j)."""
    gmm = replace(random_gmm(3, 3, 2, kind), weights=np.array([0.4, 0.6, 0.0]))
    r, p = responsibilities(gmm, x), np.exp(np.asarray(log_prob(gmm, x)))
    alone = [np.exp(log_prob(replace(gmm, weights=np.eye(3)[k]), x)) / p for k in range(3)]
    slope = jax.jit(jax.jacobian(lambda w: responsibilities(replace(gmm, weights=w), x)))(gmm.weights)
    expected = np.stack(alone, axis=1)[:, None] * (np.eye(3)[None] - np.asarray(r)[:, :, None])
    np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-12)


FAR = [[1e25, 0.3], [-1e25, 0.3], [0.3, 1e30], [3e38, -3e38], [-3e38, 1e-30]]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("seed", range(4))
def test_rows_far_from_every_component_are_split_as_in_the_limit(seed, kind):
    """In float32 their densities underflow; in float64, where those do not, the limit is what is found there."""
    gmm, x = random_gmm(seed, 3, 2, kind), np.array(FAR)
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), gmm)
    found = responsibilities(single, x.astype(np.float32))
    np.testing.assert_array_equal(log_prob(single, x.astype(np.float32)), -np.inf)
    np.testing.assert_allclose(np.sum(found, axis=1), 1.0, rtol=1e-6)
    # the largest quadratic form wins, and where Σ is shared the linear one; float64's own would cancel at 1e25
    expected = responsibilities(gmm, x / np.abs(x).max(axis=1, keepdims=True) * 1e6)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(predict(single, x.astype(np.float32)), np.argmax(expected, axis=1))
    for scale in (1e-12, 1.0, 1e120, 1e200):  # in float64 these densities lose their digits, and then underflow
        np.testing.assert_allclose(responsibilities(gmm, x * scale)[:3], expected[:3], atol=1e-6)
        np.testing.assert_array_equal(predict(gmm, x * scale)[:3], np.argmax(expected, axis=1)[:3])
    np.testing.assert_allclose(responsibilities(gmm, x * 1e200), expected, atol=1e-6)


def test_far_rows_with_gaps_are_split_by_what_was_seen():
    gmm = random_gmm(0, 3, 2, "full")
    x = np.array([[1e200, np.nan], [np.nan, -1e200], [0.3, 1.0]])
    found = responsibilities(gmm, x, missing="marginalise")
    near = np.where(np.abs(x) > 1e9, np.sign(x) * 1e6, x)
    np.testing.assert_allclose(found, responsibilities(gmm, near, missing="marginalise"), atol=1e-6)
    imputed = impute(gmm, x)
    assert np.isfinite(imputed.x).all()


def test_a_row_that_is_no_number_has_no_density_and_no_component(x):
    bad = np.where(np.arange(60)[:, None] == 3, np.nan, x)
    assert np.isnan(log_prob(random_gmm(0, 3, 2, "full"), bad)[3])
    broken = replace(random_gmm(0, 3, 2, "full"), covariances=-np.stack([np.eye(2)] * 3))
    assert np.isnan(log_prob(broken, x)).all()
