"""The mixture nearest to the posterior predictive: it is an EM fit of it, free of labels, with its known parts."""

import jax
import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, near, posterior_of, random_gmm, scrambled
from gmm_jax import GMM, Known, MixtureSpec, Status, affine, align, bayes, judge
from gmm_jax.bayes.point import predictive_rows

K, D = 3, 2
KEY = jax.random.key(0)
TRUTH = random_gmm(0, K, D, "full")
SPEC = MixtureSpec(K)


def flat(draws):
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)


def mean_of(draws):
    return jax.tree.map(lambda leaf: leaf.mean(axis=(0, 1)), draws)


def score(gmm, rows):
    return oracles.log_prob(as_tuple(gmm), rows)


# ---- rows of the predictive


@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_have_the_moments_of_the_mean_density(covariance_type):
    """Within 5 standard errors of independent rows, which scatter more."""
    draws = near(random_gmm(1, K, D, covariance_type), 0, noise=0.3)
    rows = predictive_rows(KEY, flat(draws), 4000)
    assert rows.shape == (4096, D)
    mixtures = [as_tuple(jax.tree.map(lambda leaf, m=m: leaf[m], flat(draws))) for m in range(100)]
    dense = [judge.dense_covariances(GMM(*gmm)) for gmm in mixtures]
    mean = np.mean([gmm[0] @ gmm[1] for gmm in mixtures], axis=0)
    second = np.mean(
        [
            np.einsum("k,kij->ij", g[0], c + g[1][:, :, None] * g[1][:, None])
            for g, c in zip(mixtures, dense, strict=True)
        ],
        axis=0,
    )
    assert np.all(np.abs(rows.mean(axis=0) - mean) < 5 * rows.std(axis=0) / np.sqrt(len(rows)))
    products = rows[:, :, None] * rows[:, None]
    assert np.all(np.abs(products.mean(axis=0) - second) < 5 * products.std(axis=0) / np.sqrt(len(rows)))


def test_other_keys_give_other_rows_and_one_key_the_same():
    draws = flat(near(TRUTH, 0))
    one, again, other = (predictive_rows(jax.random.key(seed), draws, 200) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.any(one == other)


# ---- the estimate


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_posterior_at_one_mixture_gives_it_back(covariance_type):
    """KL within what maximum likelihood loses on so many independent rows, p / 2n in the mean: 3 times that."""
    truth = random_gmm(2, K, D, covariance_type)
    draws = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (2, 5, *leaf.shape)), truth)
    found = bayes.point_estimate(KEY, posterior_of(draws), MixtureSpec(K, covariance_type), n_draws=1 << 13)
    assert found.status == Status.CONVERGED
    kl, error, *_ = judge.divergences(KEY, truth, found.gmm, 100_000)
    assert kl < 3 * 17 / 2 / (1 << 13) + 5 * error
    np.testing.assert_allclose(found.gmm.means, truth.means, atol=0.15)


def test_it_is_nearer_to_the_predictive_than_any_relabelled_mean():
    draws = near(TRUTH, 0, n_chains=4, n_draws=100, noise=0.4)
    posterior = posterior_of(draws)
    found = bayes.point_estimate(KEY, posterior, SPEC).gmm
    rows = predictive_rows(jax.random.key(1), flat(draws), 20_000)
    for method in ("pivot", "stephens"):
        mean = mean_of(judge.relabel(posterior, method=method, spec=SPEC, x=rows[:100]).posterior.draws)
        gain = score(found, rows) - score(mean, rows)
        assert gain.mean() > 5 * gain.std() / np.sqrt(len(rows))
    apart = random_gmm(5, K, D, "full")
    again = bayes.point_estimate(KEY, posterior, SPEC, init=apart).gmm  # a bad start does no harm: the mean is another
    assert abs(np.mean(score(found, rows) - score(again, rows))) < 1e-3


@pytest.mark.parametrize("given", [True, False])
def test_a_component_without_samples_takes_none_from_the_others(given):
    """In a tenth of the draws two components are one, and the third, 0.3 %, is a draw from the prior."""
    truth = GMM(np.full(3, 1 / 3), np.array([[0.0], [4.0], [16.0]]), np.ones((3, 1, 1)))
    weights, means = np.array([1 / 3, 2 / 3 - 0.003, 0.003]), np.array([[16.0], [2.0], [60.0]])
    empty = GMM(weights, means, np.array([1.0, 5.0, 1e4])[:, None, None])
    draws = posterior_of(jax.tree.map(lambda *leaves: np.stack([[*[leaves[0]] * 9, leaves[1]]] * 2), truth, empty))
    draws = draws._replace(log_density=np.tile(np.append(np.zeros(9), -1.0), (2, 1)))
    point = align(bayes.point_estimate(KEY, draws, SPEC, init=truth if given else None).gmm, truth)
    np.testing.assert_allclose(point.means, truth.means, atol=0.2)


def test_labels_of_the_draws_do_not_matter():
    """Scrambled draws have the same estimate up to what the rows of another key change."""
    draws = near(TRUTH, 0, n_chains=2, n_draws=200, noise=0.2)
    one, two, other = (
        bayes.point_estimate(key, posterior_of(some), SPEC).gmm
        for key, some in ((KEY, draws), (KEY, scrambled(draws, 3)[0]), (jax.random.key(1), draws))
    )
    rows = predictive_rows(jax.random.key(2), flat(draws), 20_000)
    by_labels, by_key = np.std(score(one, rows) - score(two, rows)), np.std(score(one, rows) - score(other, rows))
    assert by_labels < 3 * by_key + 1e-9
    same = bayes.point_estimate(KEY, posterior_of(scrambled(draws, 3)[0]), SPEC, init=TRUTH).gmm
    np.testing.assert_array_equal(
        same.means, bayes.point_estimate(KEY, posterior_of(draws), SPEC, init=TRUTH).gmm.means
    )
    np.testing.assert_allclose(align(same, TRUTH).means, same.means)  # in the order of init


def test_it_moves_with_the_units():
    draws = near(TRUTH, 0, noise=0.2)
    scale, shift = np.array([1e3, 1e-3]), np.array([1e6, -5.0])
    moved = jax.tree.map(
        lambda *leaves: np.stack(leaves).reshape(2, 50, *leaves[0].shape),
        *[affine(jax.tree.map(lambda leaf, m=m: leaf[m], flat(draws)), scale, shift) for m in range(100)],
    )
    here, there = (bayes.point_estimate(KEY, posterior_of(some), SPEC, n_draws=4096).gmm for some in (draws, moved))
    want = affine(here, scale, shift)
    np.testing.assert_allclose((there.means - shift) / scale, (want.means - shift) / scale, atol=1e-5)
    np.testing.assert_allclose(there.covariances, want.covariances, rtol=1e-4, atol=1e-5)


def test_known_parts_stay_as_they_are():
    known = Known(TRUTH.weights, np.array([TRUTH.means[0], [np.nan] * D, [np.nan] * D]))
    draws = near(TRUTH, 0, noise=0.2)
    means = draws.means.copy()
    means[..., 0, :] = TRUTH.means[0]
    draws = GMM(np.broadcast_to(TRUTH.weights, draws.weights.shape), means, draws.covariances)
    found = bayes.point_estimate(KEY, posterior_of(draws), MixtureSpec(K, known=known), n_draws=4096).gmm
    np.testing.assert_array_equal(found.weights, TRUTH.weights)
    np.testing.assert_array_equal(found.means[0], TRUTH.means[0])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spec": MixtureSpec(2)}, "posterior holds mixtures of 3 components with full covariances, and spec says 2"),
        ({"spec": MixtureSpec(K, "diag")}, "and spec says 3 and diag: pass the spec by which it was drawn"),
        ({"n_draws": 10}, "n_draws must be an integer of at least 100; got 10"),
        ({"init": random_gmm(0, 2, D, "full")}, "init must be one mixture of 3 components and full covariances"),
        ({"init": random_gmm(0, K, 1, "full")}, "init has 1 features, where 2 are needed"),
        ({"posterior": posterior_of(near(TRUTH, 0, noise=np.nan))}, "posterior has draws that are not finite"),
    ],
)
def test_what_cannot_be_is_a_sentence(change, sentence):
    arguments = {"posterior": posterior_of(near(TRUTH, 0)), "spec": SPEC} | change
    with pytest.raises(ValueError, match=sentence):
        bayes.point_estimate(KEY, arguments.pop("posterior"), arguments.pop("spec"), **arguments)


# ---- distances of the predictive itself


def test_a_predictive_is_as_far_from_the_truth_as_quadrature_says():
    p, draws = random_gmm(0, 3, 1, "full", spread=2.0), near(random_gmm(1, 2, 1, "full", spread=2.0), 0, noise=0.3)
    grid = np.linspace(-60.0, 60.0, 100_001)[:, None]
    step = grid[1, 0] - grid[0, 0]
    a = np.exp(oracles.log_prob(as_tuple(p), grid))
    each = [as_tuple(jax.tree.map(lambda leaf, m=m: leaf[m], flat(draws))) for m in range(100)]
    log_b = np.logaddexp.reduce([oracles.log_prob(gmm, grid) for gmm in each], axis=0) - np.log(100)
    found = judge.divergences(KEY, p, posterior_of(draws))
    kl = np.sum(np.where(a > 0, a * (np.log(np.maximum(a, 1e-300)) - log_b), 0.0)) * step
    hellinger = np.sqrt(np.sum((np.sqrt(a) - np.exp(log_b / 2)) ** 2) * step / 2.0)
    assert abs(found.kl - kl) < 5 * found.kl_se
    assert abs(found.hellinger - hellinger) < 5 * found.hellinger_se


def test_recovery_has_the_predictive_beside_the_point(x):
    draws = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (2, 5, *leaf.shape)), TRUTH)
    fit = judge.summary(posterior_of(draws), SPEC)
    found = judge.recovery(KEY, fit, random_gmm(1, K, D, "full"), x_test=x)
    for name in (
        "kl",
        "hellinger",
        "l1",
        "test_log_likelihood",
        "kl_se",
        "hellinger_se",
        "l1_se",
        "test_log_likelihood_se",
    ):
        of_predictive = found[f"{name.removesuffix('_se')}_predictive" + "_se" * name.endswith("_se")]
        error = 0.0 if name.endswith("_se") else 5 * found[f"{name}_se"]  # rows of the fit are others
        assert abs(of_predictive - found[name]) <= error + 0.3 * found[name] * name.endswith("_se") + 1e-9
    assert found["kl_predictive"] == pytest.approx(found["kl"], rel=1e-9)  # at the same rows of the truth
    assert not any("predictive" in name for name in judge.recovery(KEY, fit.point, TRUTH))
