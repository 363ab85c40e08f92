"""Gibbs with parallel tempering: the exact posterior still, exchanges by the formula, and chains that are let go."""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from test_bayes_evidence import SPECS, X, assert_exact
from test_bayes_references import mcse

import oracles
from conftest import as_tuple, random_gmm
from gmm_jax import GMM, MixtureSpec, NotSupported, bayes, judge
from gmm_jax.bayes.tempering import exchange, first_temperatures, powers, respaced, spread_order

ROWS = np.array([0.0, 0.4, 2.0, 3.7, 8.0])
Z = np.random.default_rng(0).standard_normal((8, 2))


def test_gibbs_with_tempering_has_the_exact_posterior():
    posterior = bayes.gibbs(jax.random.key(2), X, SPECS["free"], n_draws=4000, n_temperatures=4)
    assert_exact(posterior, "free", mcse)
    assert np.all(posterior.stats["arrivals"] > 20)
    rates = posterior.stats["exchange_rate"]
    assert rates.shape == (4, 3)
    assert np.ptp(rates.mean(axis=0)) < 0.2  # placed so that all pairs are refused alike


def test_exchanges_leave_the_product_of_the_temperatures_laws_invariant():
    """The acceptance is that of the ratio of the four likelihoods, with parts of rows inside the sum."""
    gmms = [random_gmm(seed, 2, 2, "full") for seed in range(len(ROWS))]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gmms)
    weight = np.clip(ROWS[:, None] - np.arange(len(Z)), 0.0, 1.0)
    np.testing.assert_allclose(powers(ROWS, len(Z)), weight)

    def log_likelihood(gmm, weight):
        log_phi = np.log(gmm.weights)
        density = np.asarray(oracles.log_joint(as_tuple(gmm), Z)) - log_phi
        return logsumexp(log_phi + weight[:, None] * density, axis=1).sum()

    table = np.array([[log_likelihood(gmm, w) for w in weight] for gmm in gmms])
    for turn in (0, 1):
        source, chance = jax.jit(exchange)(jax.random.key(turn), Z, ROWS, both, turn)
        for low, high in itertools.pairwise(range(len(ROWS))):
            ratio = table[low, high] + table[high, low] - table[low, low] - table[high, high]
            np.testing.assert_allclose(chance[low], min(1.0, np.exp(ratio)), rtol=1e-8)
        moved = np.flatnonzero(np.asarray(source) != np.arange(len(ROWS)))
        np.testing.assert_array_equal(np.sort(source), np.arange(len(ROWS)))
        assert all(low % 2 == turn for low in moved[::2])  # pairs of neighbours, of this turn


def test_temperatures_are_placed_where_exchanges_are_refused():
    rows = first_temperatures(9, 500)
    assert (rows[0], rows[-1]) == (0.0, 500.0)
    np.testing.assert_allclose(respaced(rows, np.full(8, 0.3)), rows)
    shifted = respaced(rows, np.array([0.1] * 4 + [0.9] * 4))
    assert shifted[6] < rows[4]  # most of the barrier lies in the lower half
    assert np.all(np.diff(shifted) > 0.0)
    np.testing.assert_array_equal(first_temperatures(1, 500), [500.0])


@pytest.mark.parametrize("n", [1, 7, 64])
def test_every_beginning_of_the_rows_is_spread_evenly(n):
    order = spread_order(n)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    for some in range(1, n + 1):
        gaps = np.diff(np.concatenate([[-1], np.sort(order[:some]), [n]]))
        assert gaps.max() <= 4 * n / some + 1


@pytest.mark.parametrize("n_temperatures", [0, True, 2.5])
def test_a_bad_number_of_temperatures_is_a_sentence(n_temperatures):
    with pytest.raises(ValueError, match="n_temperatures must be a positive integer"):
        bayes.gibbs(jax.random.key(0), X, SPECS["free"], n_temperatures=n_temperatures)


def test_known_labels_stay_with_their_rows_and_need_gibbs_without_tempering():
    """Tempering puts rows in an order of its own."""
    labels = np.random.default_rng(0).integers(0, 2, 60)
    x = np.random.default_rng(1).standard_normal((60, 1)) + 5.0 * labels[:, None]
    found = bayes.gibbs(jax.random.key(0), x, MixtureSpec(2), labels=labels, n_warmup=10, n_draws=90)
    groups = [x[labels == k].mean() for k in (0, 1)]
    np.testing.assert_allclose(found.draws.means.mean((0, 1))[:, 0], groups, atol=0.2)  # shrunk a little by the prior
    with pytest.raises(NotSupported, match=r"tempering .n_temperatures > 1. has neither labels nor missing values"):
        bayes.gibbs(jax.random.key(0), x, MixtureSpec(2), labels=labels, n_temperatures=4)


# ---- three groups, two components: the middle group goes with the left or with the right one


WIDE, ROUND = np.diag([10.0, 1.0]), np.eye(2)
LEFT = GMM(np.array([2 / 3, 1 / 3]), np.array([[-3.0, 0.0], [6.0, 0.0]]), np.stack([WIDE, ROUND]))
RIGHT = GMM(np.array([1 / 3, 2 / 3]), np.array([[-6.0, 0.0], [3.0, 0.0]]), np.stack([ROUND, WIDE]))
STARTS = jax.tree.map(lambda *leaves: np.stack(leaves), LEFT, LEFT, RIGHT, RIGHT)


def share_of_left(posterior):
    """(C,): draws whose wider component is the left one."""
    wide = np.argmax(posterior.draws.covariances[..., 0, 0], axis=-1)[..., None]
    return np.mean(np.take_along_axis(posterior.draws.means[..., 0], wide, -1) < 0.0, axis=(1, 2))


@pytest.mark.slow
def test_chains_forced_into_two_modes_are_let_go():
    """Without tempering they are stuck; with one they are not, and each mode has the share that smc gives it."""
    verdicts, gaps = Counter(), []
    for seed in range(3):
        groups = np.repeat([[-6.0, 0.0], [0.0, 0.0], [6.0, 0.0]], 30, axis=0)
        x = groups + np.random.default_rng(seed).standard_normal(groups.shape)
        spec, key = MixtureSpec(2), jax.random.key(seed)
        stuck = bayes.gibbs(key, x, spec, init=STARTS)
        freed = bayes.gibbs(key, x, spec, init=STARTS, n_warmup=2000, n_draws=8000, n_temperatures=20)
        verdicts["stuck", judge.mixing(stuck, judge.relabel(stuck), spec, x).verdict] += 1
        verdicts["freed", judge.mixing(freed, judge.relabel(freed), spec, x).verdict] += 1
        ours = share_of_left(freed)
        theirs = share_of_left(bayes.smc(key, x, spec, n_chains=16, n_draws=2000))
        error = np.hypot(np.std(ours, ddof=1) / 2.0, np.std(theirs, ddof=1) / 4.0)
        gaps.append((ours.mean() - theirs.mean()) / max(error, 0.01))
        print(seed, np.round(ours, 3), freed.stats["arrivals"], round(theirs.mean(), 3), round(error, 3), flush=True)
    assert verdicts["freed", "stuck"] == 0
    assert verdicts["stuck", "stuck"] >= 2
    assert np.max(np.abs(gaps)) < 4.0
