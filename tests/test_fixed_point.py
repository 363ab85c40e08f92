"""The loop alone, on maps of one number whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmm_jax import Status
from gmm_jax.em.acceleration import Chart, start_memory
from gmm_jax.em.fixed_point import Map, Rule, advance, begin


def same(state):
    """States that are their own parameters."""
    return state


def run(step, start=1.0, *, objective=lambda s: -jnp.abs(s), fault=lambda s: jnp.int32(Status.RUNNING), **rule):
    """Iterate and return the progress and the whole trace."""
    rule = Rule(**{"unit": jnp.float64(1.0), "tol": jnp.float64(1e-6), "monotone": True, "max_iter": 100, **rule})
    return advance(Map(step, same, same, objective, fault), begin(jnp.asarray(start), float), rule, rule.max_iter + 1)


def test_halving_converges_and_counts_its_steps():
    progress, trace = run(lambda s: 0.5 * s)
    n = int(progress.n_iter)
    assert progress.status == Status.CONVERGED
    assert progress.value == -(0.5**n) == trace[n]
    assert np.isneginf(trace[n + 1 :]).all()
    assert np.isfinite(trace[: n + 1]).all()
    assert trace[n] - trace[n - 1] <= 1e-6 < trace[n - 1] - trace[n - 2]


def test_gain_is_counted_in_units():
    few, _ = run(lambda s: 0.5 * s, unit=jnp.float64(1e3))
    many, _ = run(lambda s: 0.5 * s)
    assert few.n_iter < many.n_iter


def test_tol_zero_never_stops_on_gain():
    progress, _ = run(lambda s: s, tol=jnp.float64(0.0), max_iter=7)
    assert (progress.status, progress.n_iter) == (Status.MAX_ITER, 7)


def test_no_steps_at_all_is_max_iter_at_the_start():
    progress, trace = run(lambda s: 0.5 * s, max_iter=0)
    assert (progress.status, progress.n_iter, progress.best) == (Status.MAX_ITER, 0, 1.0)
    assert trace.shape == (1,)


def test_a_large_fall_is_no_convergence_and_is_not_taken():
    """pomegranate #1145: a large negative improvement counted as convergence."""
    progress, trace = run(lambda s: 10.0 * s)
    assert (progress.status, progress.n_iter, progress.best) == (Status.DECREASED, 0, 1.0)
    assert np.isneginf(trace[1:]).all()


def test_where_falls_are_allowed_the_best_state_is_kept():
    # 8 → 0.5 → 0.5 + ¼ → ...: best after one step, settles at 0.75
    progress, trace = run(lambda s: jnp.where(s > 1.0, 0.5, 0.75), 8.0, monotone=False)
    assert progress.status == Status.CONVERGED
    assert (progress.best, progress.best_iter) == (0.5, 1)
    assert progress.best_value == trace[1] == -0.5


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("monotone", [True, False])
def test_nan_is_never_converged_and_is_not_taken(bad, monotone):
    progress, trace = run(lambda s: jnp.where(s < 0.3, bad, 0.5 * s), monotone=monotone)
    assert (progress.status, progress.best) == (Status.NON_FINITE, 0.25)
    assert trace[2] == -0.25
    assert np.isneginf(trace[3:]).all()


def test_a_start_that_is_not_finite_never_runs():
    progress, _ = run(lambda s: 0.5, jnp.nan)
    assert (progress.status, progress.n_iter) == (Status.NON_FINITE, 0)


def test_a_fault_explains_a_value_that_is_not_finite():
    """A failed Cholesky makes the likelihood NaN: COLLAPSED says why, NON_FINITE would not."""
    fault = lambda s: jnp.where(s < 0.3, jnp.int32(Status.COLLAPSED), jnp.int32(Status.RUNNING))  # noqa: E731
    progress, _ = run(lambda s: 0.5 * s, objective=lambda s: jnp.where(s < 0.3, jnp.nan, -s), fault=fault)
    assert (progress.status, progress.best) == (Status.COLLAPSED, 0.5)


def test_chunks_make_the_same_journey_as_one_run():
    mapping = Map(lambda s: 0.5 * s, same, same, lambda s: -jnp.abs(s), lambda s: jnp.int32(Status.RUNNING))
    rule = Rule(jnp.float64(1.0), jnp.float64(1e-6), True, 100)
    progress, pieces = begin(jnp.asarray(1.0), float), []
    for _ in range(5):
        progress, piece = advance(mapping, progress, rule, 7)
        pieces.append(piece)
    whole, trace = run(lambda s: 0.5 * s)
    assert jax.tree.map(float, progress) == jax.tree.map(float, whole)
    np.testing.assert_array_equal(np.concatenate(pieces), trace[:35])


def test_a_lane_that_has_stopped_waits_unchanged_under_vmap():
    alone = [run(lambda s: 0.5 * s, start) for start in (1.0, 1e-3)]
    progress, traces = jax.vmap(lambda start: _pair(start))(jnp.array([1.0, 1e-3]))
    for lane, (one, trace) in enumerate(alone):
        assert jax.tree.map(lambda leaf, lane=lane: float(leaf[lane]), progress) == jax.tree.map(float, one)
        np.testing.assert_array_equal(traces[lane], trace)


def _pair(start):
    mapping = Map(lambda s: 0.5 * s, same, same, lambda s: -jnp.abs(s), lambda s: jnp.int32(Status.RUNNING))
    rule = Rule(jnp.float64(1.0), jnp.float64(1e-6), True, 100)
    return advance(mapping, begin(start, float), rule, 101)


# ---- accelerated: s ← RATES·s, towards the maximum of −|s|²/2 at 0

RATES = jnp.array([0.999, 0.9, 0.5])


def climb(*, fault=lambda s: jnp.int32(Status.RUNNING), unflatten=lambda v, s: v, accelerated=True, **rule):
    """Iterate s ← RATES·s from ones, and return the progress and the whole trace."""
    rule = Rule(**{"unit": jnp.float64(1.0), "tol": jnp.float64(1e-9), "monotone": True, "max_iter": 500, **rule})
    chart = Chart(same, unflatten) if accelerated else None
    mapping = Map(lambda s: RATES * s, same, same, lambda s: -0.5 * jnp.sum(s * s), fault, lambda s: -s, chart)
    start = begin(jnp.ones(3), float, start_memory(3, float) if accelerated else None)
    return advance(mapping, start, rule, rule.max_iter + 1)


def test_a_linear_map_is_solved_in_a_tenth_of_the_steps():
    plain, _ = climb(accelerated=False)
    fast, trace = climb()
    assert plain.status == Status.MAX_ITER
    assert fast.status == Status.CONVERGED
    assert 10 * int(fast.n_iter) <= int(plain.n_iter)
    assert plain.value < -0.1 < -1e-9 < fast.value
    assert np.diff(trace[: int(fast.n_iter) + 1]).min() >= 0.0


def test_a_bold_step_that_gains_nothing_is_not_convergence():
    """Every proposal stays where it is: in turn with plain steps, of which only one that is small ends it."""
    progress, trace = climb(unflatten=lambda v, s: s, tol=jnp.float64(1e-3))
    n = int(progress.n_iter)
    gains = np.diff(trace[: n + 1])
    assert progress.status == Status.CONVERGED
    assert (gains[:-1] == 0.0).any()
    assert 0.0 < gains[-1] <= 1e-3
    assert gains[:-1][gains[:-1] > 0.0].min() > 1e-3


@pytest.mark.parametrize("fault", [Status.COLLAPSED, -1])
def test_a_rejected_step_is_counted_repeats_the_value_and_is_no_failure(fault):
    """Where every proposal is at fault the plain steps are left, each second one."""
    progress, trace = climb(
        unflatten=lambda v, s: jnp.full_like(s, 7.0),
        fault=lambda s: jnp.where(s[0] > 1.0, jnp.int32(fault), jnp.int32(Status.RUNNING)),
        tol=jnp.float64(1e-3),
    )
    plain, expected = climb(accelerated=False, tol=jnp.float64(1e-3))
    n = int(progress.n_iter)
    gains = np.diff(trace[: n + 1])
    assert progress.status == Status.CONVERGED
    np.testing.assert_array_equal(trace[: n + 1][np.append(True, gains > 0.0)], expected[: int(plain.n_iter) + 1])
    assert (gains == 0.0).sum() >= int(plain.n_iter) // 2 - 1
    assert trace[n] == progress.value
    assert progress.best_iter == n


def test_a_proposal_that_is_nan_is_rejected_and_a_plain_step_that_is_nan_is_not_forgiven():
    progress, _ = climb(unflatten=lambda v, s: jnp.full_like(s, jnp.nan), tol=jnp.float64(1e-3))
    assert progress.status == Status.CONVERGED
    broken = lambda s: jnp.where(s > 0.3, 0.5 * s, jnp.nan)  # noqa: E731
    chart, sound = Chart(lambda s: s[None], lambda v, s: v[0]), lambda s: jnp.int32(Status.RUNNING)
    mapping = Map(broken, same, same, lambda s: -jnp.abs(s), sound, lambda s: -jnp.sign(s)[None], chart)
    rule = Rule(jnp.float64(1.0), jnp.float64(1e-6), True, 50)
    progress, _ = advance(mapping, begin(jnp.asarray(1.0), float, start_memory(1, float)), rule, 51)
    assert progress.status == Status.NON_FINITE
    assert np.isfinite(progress.best)
