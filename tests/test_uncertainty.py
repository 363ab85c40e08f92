"""Standard errors against a Hessian in plain NumPy, closed forms, and what is known or undefined."""

import jax
import numpy as np
import pytest
from test_m_step import make_known

import oracles
from conftest import as_tuple, random_gmm
from gmm_jax import GMM, Known, MixtureSpec
from gmm_jax.em import EMConfig, EMResult, fit_em, standard_errors
from gmm_jax.mixture import free_parts


def fitted(gmm):
    return EMResult(gmm, None, None, None, None)


def maximum(x, covariance_type, known):
    """From the truth that made x, so that the maximum is an inner one; NumPy leaves."""
    init = random_gmm(0, 3, 2, "full")
    covariances = {"full": init.covariances, "tied": np.eye(2), "diag": np.ones((3, 2)), "spherical": np.ones(3)}
    start = GMM(init.weights, init.means, covariances[covariance_type], covariance_type)
    return jax.tree.map(np.asarray, fit_em(x, start, known=known, config=EMConfig(tol=1e-14)).gmm)


FREE = ("free", "free", "free")
SLOW = [pytest.param(t, FREE, marks=pytest.mark.slow) for t in ("diag", "spherical")]  # a program of seconds each


@pytest.mark.parametrize(
    ("covariance_type", "choices"),
    [("full", FREE), ("tied", FREE), *SLOW, ("full", ("one", "one", "one")), ("tied", ("all", "one", "free"))],
)
def test_standard_errors_are_the_inverse_observed_information(covariance_type, choices, x):
    known = Known(**make_known(random_gmm(0, 3, 2, covariance_type), choices))
    spec = MixtureSpec(3, covariance_type, known)
    gmm = maximum(x, covariance_type, known)
    errors = standard_errors(x, fitted(gmm), spec)
    for name, got, want in zip(
        ("weights", "means", "covariances"),
        as_tuple(errors)[:3],
        oracles.standard_errors(as_tuple(gmm), x, *free_parts(spec)),
        strict=True,
    ):
        assert np.isfinite(want).all()
        assert want.shape == got.shape
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9, err_msg=name)  # of the difference: step² = 1e-10


def test_one_gaussian_has_the_textbook_errors(x):
    """se(μ_i) = √(Σ_ii/n), se(Σ_ij) = √((Σ_ij² + Σ_ii Σ_jj)/n) at the maximum."""
    s = np.cov(x.T, bias=True)
    gmm = GMM(np.ones(1), x.mean(axis=0)[None], s[None])
    errors = standard_errors(x, fitted(gmm), MixtureSpec(1))
    v = np.diag(s)
    np.testing.assert_allclose(errors.means[0], np.sqrt(v / len(x)), rtol=1e-10)
    np.testing.assert_allclose(errors.covariances[0], np.sqrt((s**2 + np.outer(v, v)) / len(x)), rtol=1e-10)
    np.testing.assert_array_equal(errors.weights, 0.0)


def test_what_is_known_has_no_error_and_last_weights_are_as_sure_as_first(x):
    gmm = maximum(x, "full", Known())
    two = GMM(np.array([0.4, 0.6]), gmm.means[:2], gmm.covariances[:2])
    spec = MixtureSpec(2, "full", Known(means=two.means, covariances=two.covariances))
    errors = standard_errors(x, fitted(two), spec)
    assert errors.weights[0] == errors.weights[1] > 0
    assert not errors.means.any()
    assert not errors.covariances.any()


def test_errors_scale_with_the_data(x):
    gmm = maximum(x, "full", Known())
    base = standard_errors(x, fitted(gmm), MixtureSpec(3))
    moved = GMM(gmm.weights, gmm.means * 1e-8 + 1.0, gmm.covariances * 1e-16)
    errors = standard_errors(x * 1e-8 + 1.0, fitted(moved), MixtureSpec(3))
    # an offset of 1e8 standard deviations leaves eight digits of the data, and about seven of the errors
    np.testing.assert_allclose(errors.weights, base.weights, rtol=1e-5)
    np.testing.assert_allclose(errors.means, base.means * 1e-8, rtol=1e-5)
    np.testing.assert_allclose(errors.covariances, base.covariances * 1e-16, rtol=1e-5)


def test_where_there_is_no_maximum_errors_are_nan(x):
    """Two equal components: the information is singular."""
    s = np.cov(x.T, bias=True)
    gmm = GMM(np.array([0.5, 0.5]), np.stack([x.mean(axis=0)] * 2), np.stack([s, s]))
    errors = standard_errors(x, fitted(gmm), MixtureSpec(2))
    assert np.isnan(errors.means).all()


def test_an_unknown_method_is_a_sentence(x):
    with pytest.raises(ValueError, match="method must be 'observed'; got 'guess'"):
        standard_errors(x, fitted(random_gmm(0, 3, 2, "full")), MixtureSpec(3), method="guess")
