"""Chains that switched labels are told from chains that are stuck; co-clustering against the formula."""

from collections import Counter

import jax
import numpy as np
import pytest

import oracles
from conftest import as_tuple, near, posterior_of, random_gmm, scrambled
from gmm_jax import GMM, Known, MixtureSpec, bayes, judge, permute
from gmm_jax.bayes.diagnostics import N_SPREAD, disagree, spread_pairs

K, D, S = 3, 2, 250
SPEC = MixtureSpec(K)
TRUTH = random_gmm(0, K, D, "full")
ORDERS = np.array([[0, 1, 2], [2, 0, 1], [1, 0, 2], [0, 2, 1]])[:, None, :] * np.ones((4, S, 1), int)


def independent(seed, gmm=TRUTH):
    return near(gmm, seed, n_chains=4, n_draws=S, noise=0.1)


def half_elsewhere(seed, gmm):
    """Two chains about TRUTH and two about another mixture."""
    return jax.tree.map(lambda a, b: np.concatenate([a[:2], b[2:]]), independent(seed), independent(seed + 100, gmm))


def moved(k, step):
    means = np.array(TRUTH.means)
    means[k] += step
    return GMM(TRUTH.weights, means, TRUTH.covariances)


def mixing(draws, x=None, seed=0, spec=SPEC):
    posterior = posterior_of(draws, np.random.default_rng(seed).standard_normal(draws.weights.shape[:2]))
    return judge.mixing(posterior, judge.relabel(posterior, spec=spec), spec, x)


@pytest.mark.parametrize("seed", range(3))
def test_mixed_switched_and_stuck_chains_are_told_apart(seed, x):
    assert mixing(independent(seed), x, seed).verdict == "mixed"
    assert mixing(permute(independent(seed), ORDERS), x, seed).verdict == "switched"
    found = mixing(half_elsewhere(seed, moved(2, 0.3)), x, seed)
    assert found.verdict == "stuck"
    assert "chains disagree in sorted means" in found.reason


def test_labels_switched_at_every_draw_leave_chains_mixed(x):
    assert mixing(scrambled(independent(0), 1)[0], x).verdict == "mixed"


def test_the_tables_are_those_of_the_diagnostics(x):
    posterior = posterior_of(permute(independent(0), ORDERS))
    relabelled = judge.relabel(posterior, spec=SPEC)
    found = judge.mixing(posterior, relabelled, SPEC, x)
    for table, expected in (
        (found.invariant, judge.invariant_diagnostics(posterior, SPEC, x)),
        (found.before, judge.diagnostics(posterior, SPEC)),
        (found.after, judge.diagnostics(relabelled.posterior, SPEC)),
    ):
        assert table.names == expected.names
        np.testing.assert_array_equal(table.r_hat, expected.r_hat)
    assert found.before.worst["r_hat"] > 1.5 > 1.02 > found.after.worst["r_hat"]


def test_modes_that_differ_only_in_what_goes_with_what_are_seen():
    """Each sorted coordinate is the same in both modes; the pairs of coordinates are not."""
    means = np.array([[-3.0, -3.0], [0.0, 0.0], [3.0, 3.0]])
    ways = [
        GMM(np.full(K, 1 / K), m, np.stack([np.eye(D)] * K))
        for m in (means, means[[0, 2, 1]] * [1, 0] + means * [0, 1])
    ]
    draws = jax.tree.map(
        lambda a, b: np.concatenate([a[:2], b[2:]]), *(independent(s, way) for s, way in enumerate(ways))
    )
    found = mixing(draws)
    assert found.invariant.worst["r_hat"] < 1.05
    assert found.verdict == "stuck"


def test_a_chain_that_does_not_move_is_stuck():
    draws = independent(0)
    still = jax.tree.map(lambda leaf: np.concatenate([leaf[:3], np.broadcast_to(leaf[3:, :1], leaf[3:].shape)]), draws)
    means = still.means.copy()
    means[3] += 0.3
    assert mixing(GMM(still.weights, means, still.covariances)).verdict == "stuck"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda leaf: leaf[:1], "one chain alone"),
        (lambda leaf: leaf[:, :50], "too little to tell, with"),
        (lambda leaf: np.where(np.arange(S).reshape(1, S, *[1] * (leaf.ndim - 2)) == 3, np.nan, leaf), "is not finite"),
    ],
)
def test_what_cannot_be_told_is_unclear(change, sentence):
    found = mixing(jax.tree.map(change, independent(0)))
    assert found.verdict == "unclear"
    assert sentence in found.reason


def test_known_means_are_not_among_the_sorted_ones(x):
    """They never vary: their R-hat would be NaN, and the chains never called mixed."""
    means = np.full((K, D), np.nan)
    means[1] = TRUTH.means[1]
    draws = independent(0)
    fixed = draws.means.copy()
    fixed[..., 1, :] = means[1]
    found = mixing(GMM(draws.weights, fixed, draws.covariances), x, spec=MixtureSpec(K, known=Known(means=means)))
    assert "sorted means[1,1]" in found.invariant.names
    assert "sorted means[2,0]" not in found.invariant.names
    assert found.verdict == "mixed"


def test_co_clustering_is_the_formula_and_knows_no_labels(x):
    draws = near(TRUTH, 1, n_draws=5)
    pairs = np.array([[0, 7], [7, 3], [59, 0]])
    found = judge.co_clustering(posterior_of(draws), x, pairs)
    for at in np.ndindex(2, 5):
        r = oracles.responsibilities(as_tuple(jax.tree.map(lambda leaf, at=at: leaf[at], draws)), x)
        np.testing.assert_allclose(found[at], [np.sum(r[a] * r[b]) for a, b in pairs], rtol=1e-10)
    again = judge.co_clustering(posterior_of(scrambled(draws, 2)[0]), x, pairs)
    np.testing.assert_allclose(again, found, rtol=1e-12)


def test_pairs_are_spread_over_the_data_and_the_certain_ones_left_out(x):
    pairs = spread_pairs(x)
    assert len(pairs) == N_SPREAD * (N_SPREAD - 1) // 2
    assert len(np.unique(pairs)) == N_SPREAD
    np.testing.assert_array_equal(spread_pairs(1e3 * x - 5.0), pairs)
    assert len(spread_pairs(x[:2])) == 1
    far = GMM(TRUTH.weights, 1e3 * np.arange(K)[:, None] * np.ones(D), np.stack([np.eye(D)] * K))
    certain = judge.invariant_diagnostics(posterior_of(independent(0, far)), SPEC, np.repeat(far.means, 20, axis=0))
    assert not any("co-clustering" in name for name in certain.names)


# ---- the rule under study


def autoregressive(rng, correlation, shape):
    """Chains with variance 1 and this correlation from draw to draw."""
    q = rng.standard_normal(shape)
    for t in range(1, shape[-1]):
        q[..., t] = correlation * q[..., t - 1] + np.sqrt(1.0 - correlation**2) * q[..., t]
    return q


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.9, 0.95, 0.98])
def test_slow_chains_are_hardly_ever_called_different(correlation):
    """At 0.98 a chain has some ten effective draws, which is the least that the rule trusts."""
    rng = np.random.default_rng(0)
    flagged = [disagree(autoregressive(rng, correlation, (10, 4, 1000))).any() for _ in range(60)]
    assert np.sum(flagged) <= 3


def gibbs_verdict(seed, x, starts):
    init = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # NumPyro's priors promote
        posterior = bayes.gibbs(jax.random.key(seed), x, MixtureSpec(2), n_draws=1000, init=init)
    return judge.mixing(posterior, judge.relabel(posterior), MixtureSpec(2), x).verdict


@pytest.mark.slow
def test_gibbs_chains_in_two_modes_are_stuck_in_20_of_20():
    """Three groups, two components: the middle group goes with the left or with the right one.

    Of 60 rows each: with 30 a chain was seen to change over, which is then no stuck one.
    """
    wide, round_ = np.diag([10.0, 1.0]), np.eye(2)
    left = GMM(np.array([2 / 3, 1 / 3]), np.array([[-3.0, 0.0], [6.0, 0.0]]), np.stack([wide, round_]))
    right = GMM(np.array([1 / 3, 2 / 3]), np.array([[-6.0, 0.0], [3.0, 0.0]]), np.stack([round_, wide]))
    groups = np.repeat([[-6.0, 0.0], [0.0, 0.0], [6.0, 0.0]], 60, axis=0)
    verdicts = Counter(
        gibbs_verdict(
            seed, groups + np.random.default_rng(seed).standard_normal(groups.shape), [left, left, right, right]
        )
        for seed in range(20)
    )
    assert verdicts["stuck"] == 20


@pytest.mark.slow
@pytest.mark.parametrize("separation", [5.0, 3.0, 2.0])
@pytest.mark.parametrize("case", ["mixed", "switched"])
def test_gibbs_chains_in_one_mode_are_stuck_in_at_most_1_of_20(separation, case):
    """Also where components overlap so much that chains mix slowly."""
    centres = np.array([[-separation / 2, 0.0], [separation / 2, 0.0]])
    one = GMM(np.full(2, 0.5), centres, np.stack([np.eye(2)] * 2))
    other = permute(one, np.array([1, 0])) if case == "switched" else one
    groups = np.repeat(centres, 50, axis=0)
    verdicts = Counter(
        gibbs_verdict(seed, groups + np.random.default_rng(seed).standard_normal(groups.shape), [one, other] * 2)
        for seed in range(20)
    )
    assert verdicts["stuck"] <= 1
    assert separation < 5.0 or verdicts[case] >= 18
