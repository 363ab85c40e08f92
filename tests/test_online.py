"""Online EM: as good as all rows in memory, from one pass; and its sums are moved without loss."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from conftest import TYPES, assert_trees_close, random_gmm
from gmm_jax import MixtureSpec, Status, align, problems
from gmm_jax.em import OnlineInterrupted, fit_em_online, fit_em_restarts
from gmm_jax.mixture import Known, e_step
from gmm_jax.mixture.moments import moved

SLOW = pytest.mark.slow
KEY = jax.random.key(0)
e_step = jax.jit(e_step, static_argnames="sums")
moved = jax.jit(moved, static_argnums=1)


@pytest.mark.parametrize("kind", TYPES)
def test_moved_sums_are_the_sums_about_the_other_means(kind, x):
    gmm = random_gmm(5, 3, 2, kind)
    d = np.random.default_rng(0).standard_normal((3, 2))
    r = e_step(gmm, x)
    found = moved(r, kind, d)
    back = moved(found, kind, -d)
    assert_trees_close(back, r, rtol=1e-12, atol=1e-10)
    # at the new means, first = mass (mean − m − d), and the scatter about the weighted mean is the same
    np.testing.assert_allclose(found.first, r.first - r.mass[:, None] * d, rtol=1e-12, atol=1e-12)
    centred = [moved(s, kind, s.first / s.mass[:, None]).second for s in (r, found)]
    np.testing.assert_allclose(centred[0], centred[1], rtol=1e-10)


def test_moved_sums_do_not_cancel_far_from_the_origin():
    """Rows about 1e8 with unit spread: by way of the origin nothing of it would be left."""
    x = 1e8 + np.random.default_rng(0).standard_normal((50, 2))
    one = replace(random_gmm(0, 1, 2, "full"), means=x[:1] + 0.5, covariances=np.eye(2)[None])
    found = moved(e_step(one, x, sums="exact"), "full", x.mean(0, keepdims=True) - one.means)
    np.testing.assert_allclose(found.second[0], 50 * np.cov(x.T, bias=True), rtol=1e-6)


@pytest.fixture(scope="module")
def course():
    problem = problems.load("course_2d")
    x, _ = problem.sample(jax.random.key(0), n=6000, counts="multinomial")
    return problem, np.asarray(x)


def online(x, problem, size, **options):
    options = {"n_first": 1000, "n_restarts": 2, "batch_rows": 100, **options}
    return fit_em_online(KEY, lambda: (x[i : i + size] for i in range(0, len(x), size)), problem.spec, **options)


def test_one_pass_does_not_depend_on_how_the_rows_are_cut(course):
    problem, x = course
    a, b = online(x, problem, 6000), online(x, problem, 701)
    assert a.status == Status.MAX_ITER
    assert a.n_samples == 6000
    assert_trees_close(a[:4], b[:4], rtol=1e-9, atol=1e-9)


def test_one_pass_comes_near_to_the_fit_of_all_rows(course):
    """Within one standard error: sd / √(n φ_k) of a mean, at most ½ / √n of a weight."""
    problem, x = course
    best = fit_em_restarts(KEY, x, problem.spec, n_restarts=2).best.gmm
    found = align(online(x, problem, 1000).gmm, best)
    spread = np.sqrt(np.diagonal(best.covariances, axis1=1, axis2=2))
    error = spread / np.sqrt(len(x) * best.weights[:, None])
    assert np.all(np.abs(found.means - best.means) <= error)
    assert np.all(np.abs(found.weights - best.weights) <= 0.5 / np.sqrt(len(x)))


def test_rows_are_scored_before_they_are_learnt_from(course):
    """The predictive score is the mean of other rows than the first, so it is near the best fit's."""
    problem, x = course
    best = fit_em_restarts(KEY, x, problem.spec, n_restarts=2).best
    gap = float(best.log_likelihood) / len(x) - online(x, problem, 1000).predictive
    assert abs(gap) < 0.05


def test_known_parts_are_held(course):
    problem, x = course
    means = np.full_like(problem.truth.means, np.nan)
    means[0] = problem.truth.means[0]
    spec = MixtureSpec(problem.spec.n_components, known=Known(means=means))
    found = fit_em_online(KEY, lambda: iter([x]), spec, init=problem.truth, n_first=1000, batch_rows=100)
    np.testing.assert_array_equal(found.gmm.means[0], problem.truth.means[0])
    np.testing.assert_array_equal(found.last.means[0], problem.truth.means[0])


@pytest.mark.parametrize("decay", [0.5, 1.0, float("nan")])
def test_steps_that_do_not_average_out_are_refused(decay, course):
    problem, x = course
    with pytest.raises(ValueError, match=r"decay must lie between 0\.5 and 1"):
        online(x, problem, 1000, decay=decay)


@pytest.mark.parametrize("bad", [2, 25])
def test_a_bad_block_is_named_wherever_it_comes(bad, course):
    problem, x = course
    spoiled = x.copy()
    spoiled[bad * 200 + 7, 1] = np.nan
    with pytest.raises(ValueError, match=rf"block {bad} must be finite; .* row 7, column 1"):
        online(spoiled, problem, 200, init=problem.truth)
    with pytest.raises(ValueError, match="yields no rows"):
        fit_em_online(KEY, list, problem.spec)


def test_a_resumed_pass_is_the_uninterrupted_one_to_the_last_bit(course, tmp_path, monkeypatch):
    (problem, x), file = course, tmp_path / "pass.npz"
    monkeypatch.setattr("gmm_jax.em.online.BATCHES", 10)  # of a hundred rows
    whole = online(x, problem, 1000)

    def left_off():
        yield x[:4000]
        raise KeyboardInterrupt

    options = {"n_first": 1000, "n_restarts": 2, "batch_rows": 100, "checkpoint": file}
    with pytest.raises(OnlineInterrupted) as caught:
        fit_em_online(KEY, left_off, problem.spec, **options)
    assert caught.value.online.n_samples == 4000
    assert_trees_close(online(x, problem, 701, checkpoint=file, resume=True)[:4], whole[:4], rtol=0.0, atol=0.0)
    with pytest.raises(ValueError, match="belongs to another fit, whose first rows and start were different"):
        online(x[::-1], problem, 1000, checkpoint=file, resume=True)


@SLOW
def test_one_pass_over_a_million_rows_errs_at_most_1_2_times_as_much_as_em():
    """Cappé & Moulines's claim on course_2d: squared errors of all parameters, meant over ten data sets."""
    problem, errors = problems.load("course_2d"), []
    for seed in range(10):
        key = jax.random.key(seed)
        x = np.asarray(problem.sample(key, n=1_000_000, counts="multinomial")[0])
        once = fit_em_online(key, lambda x=x: np.array_split(x, 10), problem.spec)
        batch = fit_em_restarts(key, lambda x=x: np.array_split(x, 10), problem.spec, init=problem.truth).best
        errors.append([squared_error(gmm, problem.truth) for gmm in (once.gmm, batch.gmm)])
    online_error, batch_error = np.array(errors).T
    ratio = online_error.mean() / batch_error.mean()
    standard_error = np.std(online_error - ratio * batch_error, ddof=1) / np.sqrt(10) / batch_error.mean()
    print(f"ratio {ratio:.3f} ± {standard_error:.3f}")
    assert ratio <= 1.2


def squared_error(gmm, truth):
    gmm = align(gmm, truth)
    return sum(float(np.sum((a - b) ** 2)) for a, b in zip(jax.tree.leaves(gmm), jax.tree.leaves(truth), strict=True))
