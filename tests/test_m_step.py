"""The solve: m_step against the formulas for every covariance type and every combination of known parts."""

import itertools

import jax
import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax import GMM, sample
from gmm_jax.em import m_step
from gmm_jax.mixture import Hyperparameters, Known, e_step, structure
from gmm_jax.mixture.moments import expected_log_joint, moved

CHOICES = ("free", "one", "all")


@jax.jit
def _em_step(gmm, x, known, reg_covar):
    return m_step(e_step(gmm, x), gmm, known=known, reg_covar=reg_covar)


def make_known(truth, choices):
    """Known parts from a mixture: of each leaf nothing, component 1's row, or all (NaN where free)."""
    known = {}
    for name, choice in zip(("weights", "means", "covariances"), choices, strict=True):
        value = np.array(getattr(truth, name), float)
        if choice == "one" and not (name == "covariances" and truth.covariance_type == "tied"):
            value[[0, 2]] = np.nan
        elif choice != "all":
            value[...] = np.nan
        known[name] = value
    return known


@pytest.mark.parametrize("choices", list(itertools.product(CHOICES, repeat=3)), ids="-".join)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_m_step_is_the_formula_for_every_known(covariance_type, choices, x):
    if covariance_type == "tied" and choices[2] == "one":
        choices = (*choices[:2], "all")
    gmm, truth = random_gmm(5, 3, 2, covariance_type), random_gmm(8, 3, 2, covariance_type)
    known = make_known(truth, choices)
    r = oracles.responsibilities(as_tuple(gmm), x)
    expected = oracles.m_step(r, x, as_tuple(gmm), known, reg_covar=0.03)
    assert_trees_close(_em_step(gmm, x, Known(**known), 0.03), GMM(*expected))


def test_nothing_known_may_be_said_by_none_or_by_nan(mixture, x):
    nan = Known(**make_known(mixture, ("free",) * 3))
    assert_trees_close(_em_step(mixture, x, Known(), 0.0), _em_step(mixture, x, nan, 0.0))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_ridge_by_feature_is_added_to_free_diagonals_only(covariance_type, x):
    gmm, ridge = random_gmm(5, 3, 2, covariance_type), np.array([0.5, 2.0])
    r = oracles.responsibilities(as_tuple(gmm), x)
    expected = oracles.m_step(r, x, as_tuple(gmm), reg_covar=ridge)
    assert_trees_close(_em_step(gmm, x, Known(), ridge), GMM(*expected))
    held = _em_step(gmm, x, Known(covariances=gmm.covariances), ridge)
    np.testing.assert_array_equal(held.covariances, gmm.covariances)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_second_moments_do_not_cancel_far_from_the_origin(covariance_type, x):
    """scikit-learn #30382: in float32 at offset 1e4, E[x²] − μ² makes covariances that are negative."""
    near = random_gmm(5, 3, 2, covariance_type)
    expected = oracles.em_map(as_tuple(near), x)
    # a shift that float32 holds exactly together with the data, so that only our own sums can lose digits
    grid = np.round(x * 64) / 64
    shift = 8192.0
    base = GMM(near.weights, np.round(near.means * 64) / 64, near.covariances, covariance_type)
    expected = oracles.em_map(as_tuple(base), grid)
    narrow = [np.asarray(leaf, np.float32) for leaf in (base.weights, base.means + shift, base.covariances)]
    got = _em_step(GMM(*narrow, covariance_type), (grid + shift).astype(np.float32), Known(), np.float32(0.0))
    np.testing.assert_allclose(got.covariances, expected[2], rtol=1e-4, atol=1e-5)


def test_a_component_without_mass_and_wholly_known_is_held_and_breaks_nothing(mixture, x):
    far = GMM(mixture.weights, np.array(mixture.means), mixture.covariances, mixture.covariance_type)
    far.means[1] = 1e5
    choices = ("one", "one", "all" if mixture.covariance_type == "tied" else "one")
    known = Known(**make_known(far, choices))
    step = _em_step(far, x, known, 0.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(step))
    np.testing.assert_array_equal(step.means[1], far.means[1])
    np.testing.assert_allclose(step.weights[1], far.weights[1], rtol=1e-15)
    np.testing.assert_allclose(np.sum(step.weights), 1.0, rtol=1e-15)


def test_a_component_without_mass_counts_nothing_in_a_shared_covariance(x):
    """Its Σ is that of the rows: with a prior, moved sums and Q too."""
    gmm = random_gmm(0, 3, 2, "tied")
    gmm = GMM(gmm.weights, np.concatenate([gmm.means[:2], [[1e4, 1e4]]]), gmm.covariances, "tied")
    two = GMM(gmm.weights[:2] / gmm.weights[:2].sum(), gmm.means[:2], gmm.covariances, "tied")
    sum_of, solve = jax.jit(e_step), jax.jit(m_step)
    sums, least = sum_of(gmm, x), sum_of(two, x)
    assert sums.mass[2] == 0.0
    prior = Hyperparameters(np.ones(3), np.zeros(2), np.eye(2) * 1e-2, 4.0, np.eye(2))
    for given in (None, prior):
        fewer = None if given is None else given._replace(alpha=np.ones(2))
        found, expected = solve(sums, gmm, prior=given), solve(least, two, prior=fewer)
        np.testing.assert_allclose(found.covariances, expected.covariances, rtol=1e-12)
    d = np.ones((3, 2))
    np.testing.assert_allclose(moved(sums, "tied", d).second, moved(least, "tied", d[:2]).second, rtol=1e-12)
    there, q_of = solve(sums, gmm), jax.jit(expected_log_joint)
    q = [q_of(g, s, m) for g, s, m in ((there, sums, gmm.means), (solve(least, two), least, two.means))]
    np.testing.assert_allclose(q[0], q[1], rtol=1e-12)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_step_with_a_prior_is_its_formula_and_calls_no_lapack(covariance_type, x):
    """Two programs that call LAPACK side by side can wait for each other for ever."""
    gmm = random_gmm(5, 3, 2, covariance_type)
    sums = jax.jit(e_step)(gmm, x)
    size = {"diag": np.ones(2), "spherical": np.ones(())}.get(covariance_type, np.eye(2))
    dof = np.full(2, 4.0) if covariance_type == "diag" else np.array(4.0)
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    prior = Hyperparameters(np.ones(3), np.array([1.0, -2.0]), precision, dof, size)
    found = jax.jit(m_step)(sums, gmm, prior=prior)
    matrices = np.asarray(structure(covariance_type).dense(gmm.covariances, 3, 2))
    for k in range(3):
        n, inverse = sums.mass[k], np.linalg.inv(matrices[k])
        mean = gmm.means[k] + sums.first[k] / n
        mode = np.linalg.solve(n * inverse + precision, n * inverse @ mean + precision @ prior.loc)
        np.testing.assert_allclose(found.means[k], mode, rtol=1e-10)
    program = jax.jit(m_step).lower(sums, gmm, prior=prior).as_text()
    assert "lapack" not in program
    assert "lapack" not in jax.jit(sample, static_argnums=2).lower(jax.random.key(0), gmm, 5).as_text()
