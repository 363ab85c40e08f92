"""Accelerated EM: its laws, its coordinates and gradient, and the rules by which it stops."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_m_step import make_known

import oracles
from conftest import EPS, TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax import GMM, Known, MixtureSpec, Status, log_prob
from gmm_jax.bayes import default_prior, hyperparameters
from gmm_jax.em import EMConfig, fit_em, m_step
from gmm_jax.em import acceleration as module
from gmm_jax.em.acceleration import gradient
from gmm_jax.em.fit import em_map, not_begun
from gmm_jax.em.fixed_point import advance
from gmm_jax.em.m_step import log_prior
from gmm_jax.mixture import Annotations, e_step, project, structure
from gmm_jax.mixture.moments import expected_log_joint, take_sums

LBFGS = EMConfig(max_iter=100, tol=1e-15, acceleration="lbfgs")
PARTS = ("weights", "means", "covariances")
SLOW = pytest.mark.slow
to_coordinates, from_coordinates = jax.jit(module.to_coordinates), jax.jit(module.from_coordinates)


@pytest.fixture(scope="module")
def slow():
    """(60, 2), two groups 1.6 standard deviations apart, and a start: plain EM takes hundreds of steps."""
    x = np.random.default_rng(3).standard_normal((60, 2)) + np.repeat([[-0.8, 0.0], [0.8, 0.0]], 30, axis=0)
    return x, GMM(np.full(2, 0.5), np.array([[-1.0, 0.0], [1.0, 0.0]]), np.ones(2), "spherical")


def plain_and_accelerated(x, init, **options):
    return [fit_em(x, init, config=EMConfig(max_iter=2000, acceleration=a, **options)) for a in ("none", "lbfgs")]


def nothing(gmm):
    """Known parts that hold nothing, in arrays: one program serves whatever is known."""
    return Known(**make_known(gmm, ("free", "free", "free")))


# ---- coordinates and gradient


@pytest.mark.parametrize("n_features", [1, 2, 5])  # 5: by library calls, not written out
@pytest.mark.parametrize("covariance_type", TYPES)
def test_coordinates_go_there_and_back(covariance_type, n_features):
    gmm = random_gmm(3, 3, n_features, covariance_type)
    vector = to_coordinates(gmm)
    back = from_coordinates(vector, gmm)
    assert_trees_close(back, jax.tree.map(jnp.asarray, gmm), rtol=1e-12, atol=1e-12)
    # any vector is a mixture, and only log φ has a direction that changes nothing
    other = vector + jnp.asarray(np.random.default_rng(0).standard_normal(vector.size))
    moved = from_coordinates(other, gmm)
    again = to_coordinates(moved)
    np.testing.assert_allclose(again[3:], other[3:], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(jnp.diff(again[:3]), jnp.diff(other[:3]), rtol=1e-12)
    assert np.linalg.eigvalsh(oracles.dense(*as_tuple(moved)[2:], 3, n_features)).min() > 0.0


@jax.jit
def both_gradients(vector, gmm, known, x):
    def log_likelihood(vector):
        return jnp.sum(log_prob(project(from_coordinates(vector, gmm), known), x))

    whitener = structure(gmm.covariance_type).whitener(gmm.covariances)
    return jax.grad(log_likelihood)(vector), gradient(gmm, whitener, e_step(gmm, x), known, 0.0)


@pytest.mark.parametrize("choices", [("free",) * 3, ("one", "one", "one"), ("all", "free", "all")], ids="-".join)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_fishers_identity(covariance_type, choices, x):
    """∇ℓ by differentiating the density of every sample is ∇Q from the sums alone; zero along what is known."""
    gmm = random_gmm(5, 3, 2, covariance_type)
    known = Known(**make_known(gmm, choices))
    expected, found = both_gradients(to_coordinates(gmm), gmm, known, x)
    assert_trees_close(found, expected, rtol=1e-9, atol=1e-9)
    if choices[2] == "all":
        np.testing.assert_array_equal(expected[9:], 0.0)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_with_a_prior_it_is_the_slope_of_the_log_posterior(covariance_type, x):
    """The default prior, whose scale is unknown, by differentiating density and prior."""
    gmm = jax.tree.map(jnp.asarray, random_gmm(5, 3, 2, covariance_type))
    kind, nothing_known = structure(covariance_type), Known()
    prior = hyperparameters(default_prior(np.asarray(x), MixtureSpec(3, covariance_type)), covariance_type)

    @jax.jit
    def slopes(vector):
        def log_posterior(vector):
            there = from_coordinates(vector, gmm)
            density = log_prior(there, nothing_known, kind.whitener(there.covariances), prior)
            return jnp.sum(log_prob(there, x)) + density

        return jax.grad(log_posterior)(vector)

    found = jax.jit(gradient)(gmm, kind.whitener(gmm.covariances), e_step(gmm, x), nothing_known, 0.0, prior)
    np.testing.assert_allclose(found, slopes(to_coordinates(gmm)), rtol=1e-9, atol=1e-9)


def test_the_m_step_maximises_the_expected_log_joint(mixture, x):
    """With a ridge too: its gradient vanishes at the M-step's image, and the value is higher there."""
    sums, ridge = jax.jit(e_step)(mixture, x), jnp.asarray(0.1)
    image = jax.jit(m_step)(sums, mixture, reg_covar=ridge)

    @jax.jit
    def value(vector):
        return expected_log_joint(from_coordinates(vector, mixture), sums, jnp.asarray(mixture.means), ridge)

    np.testing.assert_allclose(jax.jit(jax.grad(value))(to_coordinates(image)), 0.0, atol=1e-10)
    assert value(to_coordinates(image)) > value(to_coordinates(mixture))


def test_a_known_weight_of_zero_gives_no_nan(x):
    gmm = random_gmm(5, 3, 2, "full")
    known = Known(weights=np.array([0.0, np.nan, np.nan]), means=gmm.means, covariances=gmm.covariances)
    result = fit_em(x, gmm, known=known, config=LBFGS)
    assert result.status == Status.CONVERGED
    assert result.gmm.weights[0] == 0.0


# ---- accelerated EM


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_likelihood_never_falls_and_the_end_is_a_fixed_point_of_plain_numpy(covariance_type, x):
    init = random_gmm(5, 3, 2, covariance_type)
    result = fit_em(x, init, known=nothing(init), config=LBFGS)
    n = int(result.n_iter)
    assert result.status == Status.CONVERGED
    assert result.trace[n] == result.log_likelihood
    assert np.isfinite(result.trace[: n + 1]).all()
    assert np.isnan(result.trace[n + 1 :]).all()
    assert np.diff(result.trace[: n + 1]).min() >= -64 * EPS * (60 + abs(result.log_likelihood))
    np.testing.assert_allclose(result.log_likelihood, oracles.log_likelihood(as_tuple(result.gmm), x), rtol=1e-12)
    again = GMM(*oracles.em_map(as_tuple(result.gmm), x))
    assert_trees_close(again, result.gmm, rtol=1e-6, atol=1e-6)


def test_it_takes_a_fifth_of_the_steps_where_em_is_slow(slow):
    plain, fast = plain_and_accelerated(*slow, tol=1e-12)
    assert plain.status == fast.status == Status.CONVERGED
    assert fast.log_likelihood > plain.log_likelihood - 1e-8
    assert 5 * int(fast.n_iter) < int(plain.n_iter)


@pytest.mark.parametrize("choices", [("one", "one", "one"), ("all", "free", "all"), ("free", "all", "free")])
@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_known_parts_never_move(covariance_type, choices, x):
    held = make_known(random_gmm(0, 3, 2, covariance_type), choices)
    result = fit_em(x, random_gmm(5, 3, 2, covariance_type), known=Known(**held), config=LBFGS)
    assert result.status == Status.CONVERGED
    for name in PARTS:
        found = getattr(result.gmm, name)
        np.testing.assert_array_equal(np.where(np.isnan(held[name]), held[name], found), held[name])
    np.testing.assert_allclose(np.sum(result.gmm.weights), 1.0, rtol=0, atol=4 * EPS)
    again = GMM(*oracles.em_map(as_tuple(result.gmm), x, held))
    assert_trees_close(again, result.gmm, rtol=1e-6, atol=1e-6)


def test_every_iteration_costs_one_e_step_and_rejections_count(x, monkeypatch):
    """The E-steps that really ran are the iterations and the start."""
    from gmm_jax.em import fit

    ran = []

    def counted(*arguments, **options):
        jax.debug.callback(lambda: ran.append(1))
        return take_sums(*arguments, **options)

    monkeypatch.setattr(fit, "take_sums", counted)
    progress, trace = journey(x, random_gmm(7, 3, 2, "full"), [100])
    jax.effects_barrier()
    n = int(progress.n_iter)
    assert len(ran) == n + 1
    assert (np.diff(trace[:n]) == 0.0).any(), "this start has no rejected step: choose another"


def journey(x, init, chunks, config=LBFGS):
    mapping, rule = em_map(x, Known(), Annotations(), config, None, "exact")
    progress, pieces = not_begun(init, config), []
    for n_steps in chunks:
        progress, piece = jax.jit(partial(advance, mapping, rule=rule, n_steps=n_steps))(progress)
        pieces.append(piece)
    return progress, np.concatenate(pieces)


@SLOW
def test_chunks_make_the_same_journey_as_one_run(x):
    init = random_gmm(7, 3, 2, "full")
    whole, trace = journey(x, init, [100])
    parts, pieces = journey(x, init, [7] * 14)
    assert whole.n_iter > 14
    np.testing.assert_array_equal(pieces, trace[:98])
    assert_trees_close(parts, whole, rtol=0, atol=0)


@SLOW
def test_vmap_is_the_loop(x):
    inits = [random_gmm(seed, 3, 2, "tied") for seed in (5, 7)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *inits)
    config = EMConfig(max_iter=12, tol=0.0, acceleration="lbfgs")  # so far that rounding has not grown
    together = jax.vmap(lambda init: fit_em(x, init, config=config))(stacked)
    for lane, init in enumerate(inits):
        alone = fit_em(x, init, config=config)
        assert_trees_close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], together), alone, rtol=1e-7, atol=1e-7)


def test_float32_climbs_as_high(x):
    init = random_gmm(5, 3, 2, "full")
    exact = fit_em(x, init, known=nothing(init), config=LBFGS)
    rounded = jax.tree.map(lambda leaf: leaf.astype(np.float32), (x, init, nothing(init)))
    fast = fit_em(*rounded[:2], known=rounded[2], config=replace(LBFGS, tol=1e-6))
    assert fast.gmm.means.dtype == fast.log_likelihood.dtype == np.float32
    assert fast.status == Status.CONVERGED
    assert float(fast.log_likelihood) > float(exact.log_likelihood) - 1e-4 * 60


def test_with_a_ridge_it_comes_to_rest_where_the_ridged_step_does(x):
    """The best iterate is returned, which may be another; the last one is where nothing moves."""
    ridge = 1e-3
    config = EMConfig(max_iter=100, tol=1e-9, reg_covar=ridge, acceleration="lbfgs", stop="gradient")
    progress, _ = journey(x, random_gmm(5, 3, 2, "full"), [100], config)
    end = progress.state.gmm
    assert progress.status == Status.CONVERGED
    assert progress.best_value >= progress.value
    again = oracles.m_step(oracles.responsibilities(as_tuple(end), x), x, as_tuple(end), reg_covar=ridge)
    assert_trees_close(GMM(*again), end, rtol=1e-6, atol=1e-6)


def test_a_collapse_is_still_found():
    """A bold step into a collapse is rejected; the plain one that goes there is not forgiven."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((60, 2)), np.full((6, 2), 0.3)])
    means, covariances = np.array([[0.3, 0.3], [0.0, 0.0]]), np.array([1e-4 * np.eye(2), np.eye(2)])
    assert fit_em(x, GMM(np.array([0.1, 0.9]), means, covariances), config=LBFGS).status == Status.COLLAPSED


# ---- when to stop


def first_step(trace, holds):
    return next(i for i in range(2, len(trace)) if holds(i))


RULES = {
    "gain": lambda t, i: abs(t[i] - t[i - 1]) <= 1e-6 * 60,
    "relative": lambda t, i: abs(t[i] - t[i - 1]) <= 1e-6 * abs(t[i]),
    # gain ≤ tol, and gain·ρ / (1 − ρ) = gain² / (the gain before − gain) ≤ tol
    "aitken": lambda t, i: (
        t[i] - t[i - 1] <= 1e-6 and (t[i] - t[i - 1]) ** 2 <= 1e-6 * (2 * t[i - 1] - t[i - 2] - t[i])
    ),
}


@pytest.mark.parametrize("stop", RULES)
def test_plain_em_stops_at_the_first_step_that_its_rule_allows(stop, x):
    init = random_gmm(5, 3, 2, "full")
    result = fit_em(x, init, config=EMConfig(max_iter=1000, tol=1e-6, stop=stop))
    trace = np.asarray(fit_em(x, init, config=EMConfig(max_iter=1000, tol=0.0)).trace)
    assert result.status == Status.CONVERGED
    assert result.n_iter == first_step(trace, lambda i: RULES[stop](trace, i))


@SLOW
def test_aitken_foretells_the_gain_that_is_left(slow):
    x, init = slow
    top = fit_em(x, init, config=EMConfig(max_iter=2000, tol=1e-15)).log_likelihood
    naive, *both = (
        fit_em(x, init, config=EMConfig(max_iter=2000, tol=1e-3 / 60)),
        *plain_and_accelerated(x, init, tol=1e-3, stop="aitken"),
    )
    assert top - naive.log_likelihood > 5e-3  # a small gain is not a small rest
    for result in both:
        assert result.status == Status.CONVERGED
        assert 0.0 <= top - result.log_likelihood < 1.5e-3


@pytest.mark.parametrize("acceleration", [pytest.param("none", marks=SLOW), "lbfgs"])
def test_the_gradient_rule_bounds_every_slope_by_finite_differences(acceleration, x):
    init = random_gmm(5, 3, 2, "full")
    config = EMConfig(max_iter=1000, tol=1e-5, stop="gradient", acceleration=acceleration)
    result = fit_em(x, init, config=config)
    vector = np.asarray(to_coordinates(result.gmm))

    def mean_log_likelihood(vector):
        return oracles.log_likelihood(as_tuple(from_coordinates(vector, result.gmm)), x) / 60

    steps = 1e-5 * np.eye(vector.size)
    slopes = [(mean_log_likelihood(vector + h) - mean_log_likelihood(vector - h)) / 2e-5 for h in steps]
    assert result.status == Status.CONVERGED
    assert np.abs(slopes).max() <= 1e-5 + 1e-8
    assert result.trace[int(result.n_iter) - 1] < result.log_likelihood


@pytest.mark.parametrize(
    "stop", ["gain", *(pytest.param(stop, marks=SLOW) for stop in ("relative", "aitken", "gradient"))]
)
def test_tol_zero_never_stops_and_nan_is_never_converged(stop, x):
    config, init = replace(LBFGS, tol=0.0, stop=stop), random_gmm(5, 3, 2, "tied")
    result = fit_em(x, init, known=nothing(init), config=config)
    assert (result.status, result.n_iter) == (Status.MAX_ITER, 100)
    broken = np.where(np.arange(60)[:, None] == 7, np.nan, x)
    assert not Status(int(fit_em(broken, init, known=nothing(init), config=config).status)).ok


@pytest.mark.parametrize("option", ["acceleration", "stop"])
def test_an_unknown_choice_is_named_with_those_there_are(option, x):
    with pytest.raises(ValueError, match=rf"config\.{option} must be one of .*; got 'best'"):
        fit_em(x, random_gmm(5, 3, 2, "full"), config=EMConfig(**{option: "best"}))
