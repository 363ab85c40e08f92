"""Ranks of truths among draws: exact p-values by enumeration, and what they reject."""

from itertools import product

import jax
import numpy as np
import pytest

from shared.ranks import counts_below, ranks, uniform_band, uniform_p_value

KEY = jax.random.key(0)
N, L, LEVEL = 100, 19, 0.99


def leaves_the_band(found, level=LEVEL):
    low, high = uniform_band(len(found), L, level)
    counts = counts_below(found, L)
    return bool(np.any((counts < low) | (counts > high)))


@pytest.mark.parametrize(("n", "n_draws"), [(1, 4), (4, 2), (5, 3)])
def test_the_p_value_is_the_share_of_all_outcomes_that_are_as_far_from_uniform(n, n_draws):
    p = np.array([uniform_p_value(np.array(found), n_draws) for found in product(range(n_draws + 1), repeat=n)])
    share = np.mean(p[None] <= p[:, None] + 1e-12, axis=1)
    np.testing.assert_allclose(p, share, atol=1e-12)


def test_uniform_ranks_leave_the_band_in_one_per_cent():
    n_times = 4000
    found = np.random.default_rng(0).integers(0, L + 1, (n_times, N))
    rate = np.mean([leaves_the_band(one) for one in found])
    error = np.sqrt(LEVEL * (1.0 - LEVEL) / n_times)
    assert 0.5 * (1.0 - LEVEL) - 5 * error < rate <= 1.0 - LEVEL + 5 * error
    assert rate > 0.0


@pytest.mark.parametrize("level", [0.9, 0.99, 0.999])
def test_the_p_value_is_small_exactly_where_ranks_leave_the_band(level):
    rng = np.random.default_rng(1)
    for tilt in np.linspace(0.0, 0.6, 40):
        found = np.floor((L + 1) * rng.random(N) ** (1.0 + tilt)).astype(int)
        assert (uniform_p_value(found, L) <= 1.0 - level) == leaves_the_band(found, level)


def test_shifted_narrow_and_wide_posteriors_are_rejected():
    """Truths from a standard normal; draws from a normal that is right, shifted, too narrow or too wide."""
    rng = np.random.default_rng(2)
    truth, noise = rng.standard_normal((500, 1)), rng.standard_normal((500, L, 1))
    for shift, scale, rejected in ((0.0, 1.0, False), (0.5, 1.0, True), (0.0, 0.6, True), (0.0, 1.6, True)):
        found = ranks(KEY, truth, shift + scale * noise)[:, 0]
        assert (uniform_p_value(found, L) < 1e-3) == rejected


def test_ranks_count_the_draws_below():
    truth, draws = np.array([[0.5, 2.0]]), np.array([[[0.0, 0.0], [0.1, 1.0], [0.9, 1.0]]])
    assert ranks(KEY, truth, draws).tolist() == [[2, 3]]


def test_draws_that_equal_the_truth_are_put_on_either_side_at_random():
    found = ranks(KEY, np.ones((3000, 1)), np.ones((3000, L, 1)))[:, 0]
    assert uniform_p_value(found, L) > 1e-3
    assert (found.min(), found.max()) == (0, L)


def test_what_has_no_rank_is_refused():
    draws = np.zeros((2, 3, 1))
    draws[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="quantity 0 of simulation 1 is not finite"):
        ranks(KEY, np.zeros((2, 1)), draws)
    with pytest.raises(ValueError, match=r"draws must have shape \(N, L, Q\)"):
        ranks(KEY, np.zeros((2, 1)), np.zeros((3, 3, 1)))
