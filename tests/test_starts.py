"""Starts are proper mixtures that see the data, keep known means, and differ from key to key."""

import tracemalloc
from dataclasses import replace
from functools import partial
from itertools import permutations

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from conftest import TYPES, random_gmm
from gmm_jax import Known, MixtureSpec, permute, validate
from gmm_jax.mixture import match_cost
from gmm_jax.mixture.many_starts import _placing_costs
from gmm_jax.mixture.starts import (
    STARTS,
    _row_at,
    distinct_rows,
    from_labels,
    kmeans,
    kmeans_plusplus,
    random_points,
    start_function,
)

KEYS = jax.random.split(jax.random.key(0), 16)


@pytest.fixture(scope="module")
def groups():
    """(90, 2): three tight groups, far apart; the last rows are a constant column's worth of trouble elsewhere."""
    rng = np.random.default_rng(0)
    return np.repeat([[0.0, 0], [10, 0], [0, 10]], 30, axis=0) + 0.1 * rng.standard_normal((90, 2))


@partial(jax.jit, static_argnames="start")
def draw(start, x, spec, keys=KEYS):
    return jax.vmap(start, in_axes=(0, None, None))(keys, x, spec)


@pytest.mark.parametrize(
    ("name", "covariance_type"), [*((name, "full") for name in STARTS), *(("kmeans++", t) for t in TYPES[1:])]
)
def test_every_start_is_a_proper_mixture_of_its_own(name, covariance_type, groups):
    starts = draw(STARTS[name], groups, MixtureSpec(3, covariance_type))
    for r in range(len(KEYS)):
        validate(jax.tree.map(lambda leaf, r=r: leaf[r], starts))
    assert len(np.unique(np.asarray(starts.means)[:, 0, 0])) > 2


@pytest.mark.parametrize("start", [kmeans_plusplus, kmeans])
def test_kmeans_finds_groups_that_are_far_apart(start, groups):
    """k-means++ misses one of three groups with probability about (0.1·√2/10)² ≈ 2e-4 a draw."""
    for means in np.asarray(draw(start, groups, MixtureSpec(3)).means):
        assert set(map(tuple, np.round(means, -1) + 0.0)) == {(0, 0), (10, 0), (0, 10)}


def test_kmeans_means_are_the_means_of_their_rows(groups):
    means = np.sort(np.asarray(draw(kmeans, groups, MixtureSpec(3)).means)[0], axis=0)
    np.testing.assert_allclose(means, np.sort(groups.reshape(3, 30, 2).mean(axis=1), axis=0), atol=1e-12)


def test_each_ordered_choice_of_distinct_rows_is_as_likely():
    choices = np.asarray(jax.vmap(lambda key: distinct_rows(key, 5, 3))(jax.random.split(jax.random.key(0), 20_000)))
    found, times = np.unique(choices, axis=0, return_counts=True)
    assert sorted(map(tuple, found)) == list(permutations(range(5), 3))
    assert stats.chisquare(times).pvalue > 1e-4


def test_all_rows_can_be_chosen():
    choice = np.asarray(distinct_rows(jax.random.key(1), 7, 7))
    np.testing.assert_array_equal(np.sort(choice), np.arange(7))


@pytest.mark.parametrize("n_rows", [1, 2, 3, 10, 17, 500])
def test_rows_are_drawn_in_proportion_to_their_odds(n_rows):
    odds = np.random.default_rng(n_rows).exponential(size=n_rows) * (np.arange(n_rows) % 3 != 1)
    u = (np.arange(20_000) + 0.5) / 20_000
    rows = np.asarray(jax.vmap(_row_at, in_axes=(0, None))(u, odds))
    np.testing.assert_array_equal(rows, np.searchsorted(np.cumsum(odds) / odds.sum(), u, side="right"))


def test_random_points_are_distinct_rows(groups):
    for means in np.asarray(draw(random_points, groups, MixtureSpec(3)).means):
        rows = [int(np.flatnonzero((groups == mean).all(axis=1))[0]) for mean in means]
        assert len(set(rows)) == 3


def test_kmeans_plusplus_draws_in_proportion_to_squared_distance():
    """From a known centre at 0, rows at 1 and 3 are drawn 1 : 9."""
    x = np.array([[0.0], [1.0], [3.0], [0.0]])
    spec = MixtureSpec(2, "full", Known(means=np.array([[0.0], [np.nan]])))
    keys = jax.random.split(jax.random.key(1), 2000)
    drawn = np.asarray(draw(kmeans_plusplus, x, spec, keys).means)[:, 1, 0]
    assert set(drawn) == {1.0, 3.0}
    assert abs(np.mean(drawn == 3.0) - 0.9) < 5 * np.sqrt(0.09 / 2000)


@pytest.mark.parametrize("name", ["random_points", "kmeans++", "kmeans"])
def test_known_means_are_the_first_centres(name, groups):
    known = np.array([[np.nan, np.nan], [10.0, 0.0], [np.nan, np.nan]])
    starts = draw(STARTS[name], groups, MixtureSpec(3, "full", Known(means=known)))
    np.testing.assert_array_equal(starts.means[:, 1], np.broadcast_to(known[1], (16, 2)))
    if name != "random_points":
        others = np.round(np.asarray(starts.means)[:, [0, 2]], -1) + 0.0
        assert all({tuple(row) for row in pair} == {(0, 0), (0, 10)} for pair in others)


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("case", ["constant", "constant column", "n = K"])
def test_degenerate_data_have_proper_starts(name, case, groups):
    x = {"constant": groups * 0, "constant column": groups * [1, 0], "n = K": groups[[0, 40, 80]]}[case]
    starts = draw(STARTS[name], x, MixtureSpec(3), KEYS[:4])
    for r in range(4):
        validate(jax.tree.map(lambda leaf, r=r: leaf[r], starts))


@pytest.mark.parametrize("n_samples", [90, 1300])  # in one block, and in some that overlap
def test_labels_give_the_moments_of_their_rows(n_samples):
    rng = np.random.default_rng(n_samples)
    x, labels = rng.standard_normal((n_samples, 2)), rng.integers(0, 3, n_samples)
    x[labels == 1] *= 0.01  # a narrow one, off the origin
    x[labels == 1] += 1.0
    start = jax.jit(from_labels, static_argnums=2)(x, labels, MixtureSpec(3))
    groups = [x[labels == k] for k in range(3)]
    count = np.array([len(rows) for rows in groups])
    scatter = np.array([len(rows) * np.cov(rows.T, bias=True) for rows in groups])
    pooled = scatter.sum(axis=0) / n_samples + 1e-3 * np.diag(x.var(axis=0))
    expected = (scatter + 3 * pooled) / (count + 3)[:, None, None]
    np.testing.assert_allclose(start.means, [rows.mean(axis=0) for rows in groups], rtol=1e-12)
    np.testing.assert_allclose(start.weights, (count + 1) / (n_samples + 3), rtol=1e-12)
    np.testing.assert_allclose(start.covariances, expected, rtol=1e-9)


def test_a_callable_is_taken_as_it_is_and_an_unknown_name_is_a_sentence():
    assert start_function(kmeans) is kmeans
    with pytest.raises(ValueError, match=r"random, random_points, kmeans\+\+, kmeans.*'nice'"):
        start_function("nice")


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
@pytest.mark.parametrize("name", STARTS)
def test_no_start_makes_matrices_where_covariances_are_diagonal(name, covariance_type):
    """Nothing of K·D² numbers is in its program; nor in that which orders starts by what is known."""
    x, spec = jnp.zeros((50, 300)), MixtureSpec(3, covariance_type, Known(weights=np.array([0.2, np.nan, np.nan])))
    program = jax.make_jaxpr(lambda key: STARTS[name](key, x, spec))(jax.random.key(0))
    assert largest(program.jaxpr) < 300 * 300
    starts = jax.tree.map(lambda leaf: leaf[None], STARTS[name](jax.random.key(0), x[:, :4], spec))
    wide = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), starts)
    shapes = {"means": (1, 3, 300), "covariances": (1, 3, 300) if covariance_type == "diag" else (1, 3)}
    wide = replace(wide, **{leaf: jax.ShapeDtypeStruct(shape, float) for leaf, shape in shapes.items()})
    assert largest(jax.make_jaxpr(_placing_costs)(wide, spec.known).jaxpr) < 300 * 300


def largest(jaxpr):
    """Most numbers of one array in a program."""
    sizes = [int(np.prod(v.aval.shape)) for equation in jaxpr.eqns for v in equation.outvars]
    within = [inner for equation in jaxpr.eqns for inner in jax.extend.core.jaxprs_in_params(equation.params)]
    return max([*sizes, *map(largest, within)], default=0)


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_diagonal_mixtures_are_matched_without_matrices(covariance_type):
    p = random_gmm(0, 3, 300, covariance_type)
    tracemalloc.start()
    match_cost(p, permute(p, np.array([2, 0, 1])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 3 * 300 * 300


@pytest.mark.parametrize("init", [np.zeros((2, 2)), {"a": 1}, None, 3])
def test_an_init_that_is_no_start_is_a_sentence(init):
    with pytest.raises(ValueError, match="init must be one of random, random_points, kmeans"):
        start_function(init)
