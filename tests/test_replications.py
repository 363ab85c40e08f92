"""Many data sets from one truth: estimates and intervals against one-by-one fits, and what the summary says."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from gmm_jax import GMM, align, em, problems
from gmm_jax.em import Bounds
from gmm_jax.mixture import permute
from shared import replications as many
from shared.bounds import cramer_rao

PROBLEM = problems.load("well_separated")
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def xs():
    return many.data_sets(PROBLEM, range(3), 200)


@pytest.fixture(scope="module")
def fits(xs):
    return many.by_em(KEY, xs, PROBLEM, n_restarts=2)


@pytest.mark.slow
def test_estimates_lie_in_the_order_of_the_truth(fits):
    assert not fits.failed.any()
    assert not fits.ambiguous.any()
    assert np.max(np.abs(fits.points.means - PROBLEM.truth.means)) < 1.0


@pytest.mark.slow
def test_intervals_are_those_of_the_data_set(xs, fits):
    one = em.fit_em_restarts(KEY, xs[1], PROBLEM.spec, n_restarts=2, config=many.CONFIG).best
    order = align(one.gmm, PROBLEM.truth)
    found = em.intervals(xs[1], one._replace(gmm=order), PROBLEM.spec)
    np.testing.assert_allclose(fits.intervals["transformed"].lower.means[1], found.transformed.lower.means, atol=1e-4)
    np.testing.assert_allclose(fits.intervals["raw"].upper.weights[1], found.raw.upper.weights, atol=1e-4)


def truth_again(n, shift=0.0):
    many_truths = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf, float)[None], n, axis=0), PROBLEM.truth)
    return replace(many_truths, means=many_truths.means + shift)


def test_an_interval_that_is_nan_covers_nothing_and_known_numbers_do_not_count():
    nothing = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), truth_again(2))
    names, hits = many.covered(Bounds(nothing, nothing), PROBLEM.truth, PROBLEM.spec)
    assert hits.shape == (2, len(names))
    assert not hits.any()
    fewer, _ = many.covered(Bounds(nothing, nothing), PROBLEM.truth, PROBLEM.knowing("weights"))
    assert len(names) - len(fewer) == PROBLEM.spec.n_components


def test_the_summary_counts_failures_and_leaves_them_out_of_errors(xs):
    points = truth_again(4, shift=0.5)
    points.means[0] = 1e6
    failed = np.array([True, False, False, False])
    ends = Bounds(truth_again(4, -1.0), truth_again(4, 1.0))
    found = many.Replications(points, failed, np.zeros(4, bool), {"wide": ends})
    bound = cramer_rao(KEY, PROBLEM.truth, PROBLEM.spec, n_samples=200, n_draws=2000)
    row = many.summary(KEY, found, PROBLEM, bound, "wide")
    assert (row["failed"], row["coverage"], row["ambiguous"]) == (0.25, 1.0, 0.0)
    assert row["rmse_means"] == pytest.approx(0.5)
    assert row["rmse_weights"] == 0.0


@pytest.mark.slow
def test_draws_give_means_and_quantiles_of_the_entries(xs, fits):
    draws = many.gibbs_draws(KEY, xs, PROBLEM, fits.points, n_warmup=20, n_draws=40, thin=1)
    found = many.by_draws(draws, PROBLEM)
    np.testing.assert_allclose(found.points.means, draws.means.mean(axis=1))
    np.testing.assert_allclose(found.intervals["equal-tailed"].lower.means, np.quantile(draws.means, 0.025, axis=1))
    # one posterior sd is about one standard error, and means differ from the optimum by much less than three
    assert np.max(np.abs(found.points.means - fits.points.means) / draws.means.std(axis=1)) < 3.0


@pytest.mark.slow
def test_the_labels_of_the_start_are_those_of_the_draws(xs, fits):
    start = permute(fits.points, np.tile(np.roll(np.arange(PROBLEM.spec.n_components), 1), (3, 1)))
    draws = many.gibbs_draws(KEY, xs, PROBLEM, start, n_warmup=20, n_draws=40, thin=1)
    assert np.max(np.abs(draws.means.mean(axis=1) - start.means)) < 1.0
    assert isinstance(draws, GMM)
