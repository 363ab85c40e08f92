"""The structures: their densities are Gaussian, their shapes agree, and their conversions go there and back."""

import jax
import numpy as np
import pytest

import oracles
from conftest import EPS, TYPES, random_gmm
from gmm_jax.mixture import STRUCTURES, structure
from gmm_jax.mixture.factor import inverse_cholesky

PARAMETERS = {"full": 6, "tied": 6, "diag": 3, "spherical": 1}


@pytest.mark.parametrize("covariance_type", TYPES)
def test_shapes_and_counts_are_those_of_scikit_learn(covariance_type):
    kind, gmm = structure(covariance_type), random_gmm(0, 4, 3, covariance_type)
    assert kind.shape(4, 3) == gmm.covariances.shape
    assert kind.n_parameters(3) == PARAMETERS[covariance_type]
    assert set(STRUCTURES) == set(TYPES)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_whitener_whitens(covariance_type):
    """W Σ Wᵀ = I and −½ log |Σ| = log |W|."""
    kind, gmm = structure(covariance_type), random_gmm(0, 4, 3, covariance_type)
    matrices = oracles.dense(gmm.covariances, covariance_type, 4, 3)
    whitener = kind.whitener(gmm.covariances)
    columns = np.broadcast_to(np.eye(3), (4, 3, 3))
    w = np.asarray(kind.whiten(whitener, columns))
    np.testing.assert_allclose(w @ matrices @ np.swapaxes(w, 1, 2), columns, atol=100 * EPS)
    half = np.broadcast_to(kind.half_log_precision(whitener, 3), 4)
    np.testing.assert_allclose(half, -0.5 * np.linalg.slogdet(matrices)[1], atol=100 * EPS)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_to_matrices_and_back(covariance_type):
    kind, gmm = structure(covariance_type), random_gmm(0, 4, 3, covariance_type)
    matrices = kind.dense(gmm.covariances, 4, 3)
    np.testing.assert_allclose(matrices, oracles.dense(gmm.covariances, covariance_type, 4, 3))
    np.testing.assert_allclose(kind.from_dense(matrices, gmm.weights), gmm.covariances, rtol=10 * EPS)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_rescaling_keeps_leading_axes_and_numpy(covariance_type, batch):
    kind, gmm = structure(covariance_type), random_gmm(0, 4, 3, covariance_type)
    scale = np.full(3, 2.0) if covariance_type == "spherical" else np.array([2.0, 0.5, 10.0])
    many = np.broadcast_to(gmm.covariances, (*batch, *gmm.covariances.shape))
    scaled = kind.rescale(many, scale)
    assert type(scaled) is np.ndarray
    assert scaled.shape == many.shape
    one = scaled.reshape(-1, *gmm.covariances.shape)[-1]
    expected = np.diag(scale) @ oracles.dense(gmm.covariances, covariance_type, 4, 3) @ np.diag(scale)
    np.testing.assert_allclose(oracles.dense(one, covariance_type, 4, 3), expected, rtol=10 * EPS)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("condition", [1.0, 1e3, 1e12])
def test_rcond_is_the_reciprocal_condition_number_up_to_the_square_of_the_dimension(covariance_type, condition):
    kind, gmm = structure(covariance_type), random_gmm(0, 4, 3, covariance_type)
    vectors = np.linalg.eigh(gmm.covariances)[1]
    covariances = vectors * np.geomspace(1.0, 1.0 / condition, 3) @ np.swapaxes(vectors, -1, -2)
    rcond = np.broadcast_to(kind.rcond(covariances, kind.whitener(covariances)), 4)
    accuracy = 1e-10 + 10 * EPS * condition
    assert np.all(rcond > (1 - accuracy) / condition)
    assert np.all(rcond < (1 + accuracy) * 9 / condition)
    diagonal = np.broadcast_to(np.diag([1.0, 1.0 / condition, 1.0]), gmm.covariances.shape)
    np.testing.assert_allclose(kind.rcond(diagonal, kind.whitener(diagonal)), 1.0 / condition, rtol=10 * EPS)


@pytest.mark.parametrize("bad", [[[1.0, 2.0], [2.0, 1.0]], [[np.nan, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]]])
def test_the_inverse_factor_of_what_is_not_positive_definite_is_not_finite(bad):
    """Never an exception inside jit, and never a number that looks right (dynamax #404)."""
    both = jax.jit(inverse_cholesky)(np.array([bad, np.eye(2)]))
    assert not np.isfinite(both[0]).all()
    np.testing.assert_array_equal(both[1], np.eye(2))


def test_an_unknown_structure_is_named_together_with_those_there_are():
    with pytest.raises(ValueError, match="full, tied, diag, spherical; got 'oval'"):
        structure("oval")
