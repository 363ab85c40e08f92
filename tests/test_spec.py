"""What is known: counted, put in, shared out. (The sentences about bad Known are tested in test_restarts.)"""

import numpy as np
import pytest
from test_m_step import make_known

from conftest import random_gmm
from gmm_jax import Known, MixtureSpec, n_parameters
from gmm_jax.mixture import free_parts, project, validate_spec
from gmm_jax.mixture.spec import share

# K = 3, D = 2; by hand: φ 2, μ 6, and Σ 3·3, 3, 3·2, 3
ALL = {"full": 17, "tied": 11, "diag": 14, "spherical": 11}


def test_parameters_are_counted(mixture):
    assert n_parameters(MixtureSpec(3, mixture.covariance_type), 2) == ALL[mixture.covariance_type]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (("all", "free", "free"), 6 + 9),  # φ known
        (("all", "free", "all"), 6),  # Case I
        (("one", "free", "free"), 1 + 6 + 9),  # two free φ share what is left: one number
        (("free", "one", "free"), 2 + 4 + 9),
        (("free", "free", "one"), 2 + 6 + 6),
        (("one", "one", "one"), 1 + 4 + 6),  # one component known
        (("all", "all", "all"), 0),
    ],
)
def test_what_is_known_is_not_counted(choices, expected):
    known = Known(**make_known(random_gmm(0, 3, 2, "full"), choices))
    assert n_parameters(MixtureSpec(3, "full", known), 2) == expected


def test_one_free_weight_is_no_free_number():
    assert n_parameters(MixtureSpec(2, "full", Known(weights=np.array([0.3, np.nan]))), 2) == 4 + 6


def test_a_known_tied_covariance_is_known_for_every_component():
    spec = MixtureSpec(3, "tied", Known(covariances=np.eye(2)))
    assert not free_parts(spec)[2].any()
    assert n_parameters(spec, 2) == 8
    nan = MixtureSpec(3, "tied", Known(covariances=np.full((2, 2), np.nan)))
    assert free_parts(nan)[2].all()
    assert n_parameters(nan, 2) == ALL["tied"]


def test_nan_everywhere_is_none():
    spec = validate_spec(MixtureSpec(3, "full", Known(means=np.full((3, 2), np.nan))), 2)
    assert spec.known.means is None


def test_projecting_puts_known_parts_in_and_keeps_the_simplex(mixture):
    truth = random_gmm(9, 3, 2, mixture.covariance_type)
    choices = ("one", "one", "all" if mixture.covariance_type == "tied" else "one")
    projected = project(mixture, Known(**make_known(truth, choices)))
    np.testing.assert_allclose(np.sum(projected.weights), 1.0, rtol=1e-15)
    np.testing.assert_allclose(projected.weights[1], truth.weights[1], rtol=1e-15)
    np.testing.assert_array_equal(projected.means[1], truth.means[1])
    np.testing.assert_array_equal(np.asarray(projected.means)[[0, 2]], mixture.means[[0, 2]])
    ratio = projected.weights[0] / projected.weights[2]
    np.testing.assert_allclose(ratio, mixture.weights[0] / mixture.weights[2], rtol=1e-14)


def test_free_weights_without_mass_share_evenly():
    """A start with φ = (1, 0, 0) and φ₀ known must not end with weights that sum to less than one."""
    shared = share(np.array([1.0, 0.0, 0.0]), np.array([0.4, np.nan, np.nan]))
    np.testing.assert_allclose(shared, [0.4, 0.3, 0.3], rtol=1e-15)


def test_all_weights_known_are_what_they_are():
    known = np.array([0.2, 0.3, 0.5])
    np.testing.assert_array_equal(share(np.array([5.0, 0.0, 1.0]), known), known)
