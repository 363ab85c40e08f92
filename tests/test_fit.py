"""EM from one start: against plain NumPy, and the laws that every fit obeys."""

from dataclasses import replace

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_m_step import make_known

import oracles
from conftest import EPS, TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax import GMM, MixtureSpec, Status
from gmm_jax.em import EMConfig, fit_em, fit_em_restarts, iterates
from gmm_jax.mixture import Known, e_step

FIFTY = EMConfig(max_iter=50, tol=0.0)
SLOW = pytest.mark.slow
CASES = [("free", "free", "free"), ("all", "free", "all"), ("one", "one", "one"), ("free", "all", "free")]


@pytest.mark.parametrize("choices", CASES, ids="-".join)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_fifty_iterations_are_those_of_plain_numpy(covariance_type, choices, x):
    init, truth = random_gmm(5, 3, 2, covariance_type), random_gmm(0, 3, 2, covariance_type)
    known = make_known(truth, choices)
    start = oracles.m_step(np.full((60, 3), 1 / 3), x, as_tuple(init), known)  # only to put the known parts in
    start = tuple(
        np.where(np.isnan(known[name]), free, held)
        for name, free, held in zip(("means", "covariances"), as_tuple(init)[1:3], start[1:3], strict=True)
    )
    weights = np.array(known["weights"])
    free = np.isnan(weights)
    weights[free] = (1 - weights[~free].sum()) * init.weights[free] / init.weights[free].sum()
    expected, trace = oracles.em((weights, *start, covariance_type), x, 50, known)
    result = fit_em(x, init, known=Known(**known), config=FIFTY)
    assert result.status == Status.MAX_ITER
    assert result.n_iter == 50
    assert_trees_close(result.gmm, GMM(*expected), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(result.trace, trace, rtol=1e-8)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_likelihood_belongs_to_what_is_returned(covariance_type, x):
    """gmmx and scikit-learn return the likelihood of the parameters before the last M-step."""
    init = random_gmm(5, 3, 2, covariance_type)
    nothing = Known(**make_known(init, ("free", "free", "free")))
    result = fit_em(x, init, known=nothing, config=EMConfig(max_iter=50, tol=1e-3))
    n = int(result.n_iter)
    assert result.status == Status.CONVERGED
    assert result.trace[n] == result.log_likelihood
    np.testing.assert_allclose(result.log_likelihood, oracles.log_likelihood(as_tuple(result.gmm), x), rtol=1e-13)
    assert np.isnan(result.trace[n + 1 :]).all()
    assert np.isfinite(result.trace[: n + 1]).all()
    np.testing.assert_allclose(np.sum(result.gmm.weights), 1.0, rtol=0, atol=4 * EPS)


PARTS = st.tuples(*[st.sampled_from(["free", "one", "all"])] * 3)
ANY = {
    "covariance_type": st.sampled_from(TYPES),
    "choices": PARTS,
    "seed": st.integers(0, 2**31),
    "scale": st.floats(-2, 2),
}


@hypothesis.given(**ANY)
@hypothesis.settings(max_examples=20)
def test_likelihood_never_falls_without_a_ridge(covariance_type, choices, seed, scale):
    check_that_the_likelihood_never_falls((3, 2), covariance_type, choices, seed, scale)


@SLOW
@hypothesis.given(shape=st.sampled_from([(2, 1), (4, 3)]), **ANY)
@hypothesis.settings(max_examples=40)
def test_likelihood_never_falls_in_other_shapes(shape, covariance_type, choices, seed, scale):
    check_that_the_likelihood_never_falls(shape, covariance_type, choices, seed, scale)


def check_that_the_likelihood_never_falls(shape, covariance_type, choices, seed, scale):
    n_components, n_features = shape
    rng = np.random.default_rng(seed)
    truth = random_gmm(seed, n_components, n_features, covariance_type, spread=2.0)
    x = 10.0**scale * oracles.random_data(rng, 60, truth)
    held = replace(truth, means=10.0**scale * truth.means, covariances=100.0**scale * truth.covariances)
    known = {}
    for name, choice in zip(("weights", "means", "covariances"), choices, strict=True):
        value = np.array(getattr(held, name))
        value[...] = value if choice == "all" else np.nan
        if choice == "one" and not (name == "covariances" and covariance_type == "tied") and n_components > 1:
            value[0] = getattr(held, name)[0]
        known[name] = value
    spread = np.cov(x.T, bias=True).reshape(n_features, n_features)
    init = random_gmm(seed + 1, n_components, n_features, covariance_type)
    pooled = np.broadcast_to(
        spread if covariance_type in ("full", "tied") else np.trace(spread) / n_features, init.covariances.shape
    )
    init = GMM(init.weights, x[rng.choice(60, n_components, replace=False)], pooled, covariance_type)
    result = fit_em(x, init, known=Known(**known), config=FIFTY)
    steps = np.diff(result.trace[: int(result.n_iter) + 1])
    assert result.status in (Status.MAX_ITER, Status.COLLAPSED)
    assert np.all(steps >= -64 * EPS * (60 + np.abs(result.trace[: len(steps)])))
    if result.status == Status.MAX_ITER:  # and plain NumPy says the same of the end
        np.testing.assert_allclose(
            result.log_likelihood, oracles.log_likelihood(as_tuple(result.gmm), x), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize(
    "covariance_type", ["full", "tied", *(pytest.param(t, marks=SLOW) for t in ("diag", "spherical"))]
)
def test_one_component_is_the_closed_form(covariance_type, x):
    result = fit_em(x, random_gmm(3, 1, 2, covariance_type))
    centred = x - x.mean(axis=0)
    matrix = centred.T @ centred / len(x)
    expected = {
        "full": matrix[None],
        "tied": matrix,
        "diag": np.diag(matrix)[None],
        "spherical": np.array([np.trace(matrix) / 2]),
    }[covariance_type]
    assert result.status == Status.CONVERGED
    assert result.n_iter <= 2
    assert_trees_close(result.gmm, GMM(np.ones(1), x.mean(axis=0)[None], expected, covariance_type), rtol=1e-12)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_a_converged_fit_is_a_fixed_point_of_plain_numpy(covariance_type, x):
    result = fit_em(x, random_gmm(5, 3, 2, covariance_type), config=EMConfig(tol=1e-15))
    again = GMM(*oracles.em_map(as_tuple(result.gmm), x))
    # the gain is quadratic in the distance: a gain of 1e-15 means a distance of about √1e-15
    assert_trees_close(again, result.gmm, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("covariance_type", [pytest.param("tied", marks=SLOW), "spherical"])  # full: through restarts
def test_integer_weights_are_repeated_rows_and_zero_an_absent_one(covariance_type, x):
    """scikit-learn #15647."""
    mixture = random_gmm(5, 3, 2, covariance_type)
    weight = np.random.default_rng(3).integers(0, 4, len(x))
    repeated = np.repeat(x, weight, axis=0)
    weighted = fit_em(x, mixture, sample_weight=weight.astype(float), config=FIFTY)
    assert_trees_close(weighted, fit_em(repeated, mixture, config=FIFTY))


def test_known_parts_are_put_into_the_start_and_never_move(x):
    mixture = random_gmm(5, 3, 2, "full")
    truth = random_gmm(0, 3, 2, mixture.covariance_type)
    known = Known(weights=truth.weights, covariances=truth.covariances)
    first = iterates(x, mixture, n_iter=50, known=known)
    for i in range(51):
        np.testing.assert_array_equal(first.weights[i], truth.weights)
        np.testing.assert_array_equal(first.covariances[i], truth.covariances)
    assert np.all(np.diff(np.asarray(first.means[:4]), axis=0) != 0)


def test_iterates_are_the_journey_of_fit_em(x):
    mixture = random_gmm(5, 3, 2, "full")
    journey = iterates(x, mixture, n_iter=50)
    result = fit_em(x, mixture, config=FIFTY)
    assert_trees_close(jax.tree.map(lambda leaf: leaf[0], journey), jax.tree.map(jnp.asarray, mixture))
    assert_trees_close(jax.tree.map(lambda leaf: leaf[-1], journey), result.gmm)
    values = [oracles.log_likelihood(as_tuple(jax.tree.map(lambda leaf, i=i: leaf[i], journey)), x) for i in range(51)]
    np.testing.assert_allclose(values, result.trace, rtol=1e-10)


@pytest.mark.parametrize("covariance_type", ["diag", pytest.param("spherical", marks=SLOW)])
def test_with_a_ridge_the_best_iterate_is_kept(covariance_type, x):
    """From the maximum without a ridge every step with one goes down, so the start is the best."""
    top = fit_em(x, random_gmm(5, 3, 2, covariance_type), config=EMConfig(tol=1e-14))
    result = fit_em(x, top.gmm, config=EMConfig(reg_covar=0.1))
    assert result.status in (Status.CONVERGED, Status.MAX_ITER)
    assert result.n_iter == 0
    np.testing.assert_allclose(result.log_likelihood, top.log_likelihood, rtol=1e-12)
    assert result.trace[0] == result.log_likelihood
    assert np.isnan(result.trace[1:]).all()


def test_a_known_singular_covariance_is_collapsed_not_converged(x):
    init = random_gmm(5, 3, 2, "full")
    flat = np.broadcast_to(np.array([[1.0, 1.0], [1.0, 1.0]]), (3, 2, 2))
    result = fit_em(x, init, known=Known(covariances=flat))
    assert result.status == Status.COLLAPSED


def test_the_broken_case_of_the_course_is_collapsed(x):
    """Experiment 3 of the notebook: φ = (3e-37, 1) went in as known, and one component died."""
    init = random_gmm(5, 2, 2, "full")
    known = Known(weights=np.array([3e-37, 1.0]), covariances=init.covariances)
    assert fit_em(x, init, known=known).status == Status.COLLAPSED


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])  # a shared Σ cannot shrink onto a point
@pytest.mark.parametrize("n_features", [pytest.param(1, marks=SLOW), 2])
def test_a_component_that_shrinks_onto_repeated_rows_is_collapsed(covariance_type, n_features):
    """The likelihood is unbounded there: no status that says success, whatever the structure calls the condition."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((60, n_features)), np.full((6, n_features), 0.3)])
    tight = {"full": 1e-4 * np.eye(n_features), "diag": np.full(n_features, 1e-4), "spherical": 1e-4}[covariance_type]
    broad = {"full": np.eye(n_features), "diag": np.ones(n_features), "spherical": 1.0}[covariance_type]
    means = np.stack([np.full(n_features, 0.3), np.zeros(n_features)])
    init = GMM(np.array([0.1, 0.9]), means, np.array([tight, broad]), covariance_type)
    result = fit_em(x, init, config=EMConfig())
    assert result.status == Status.COLLAPSED, Status(int(result.status)).name


def test_e_step_of_the_result_gives_the_same_likelihood(x):
    mixture = random_gmm(5, 3, 2, "full")
    result = fit_em(x, mixture, config=FIFTY)
    np.testing.assert_allclose(jax.jit(e_step)(result.gmm, x).log_likelihood, result.log_likelihood, rtol=1e-14)


@pytest.mark.parametrize("acceleration", ["none", "lbfgs"])
def test_no_nan_is_made_on_the_way(x, acceleration):
    """Not even where it is masked afterwards: jax_debug_nans would stop the fit."""
    config = EMConfig(max_iter=30, acceleration=acceleration)
    with jax.debug_nans(True):
        found = fit_em_restarts(jax.random.key(0), x, MixtureSpec(3), n_restarts=4, config=config)
        one = fit_em(x, random_gmm(5, 3, 2, "full"), config=config)
    assert np.all(np.isfinite(found.fits.log_likelihood))
    assert np.isnan(np.asarray(one.trace)).sum() == 30 - int(one.n_iter)
