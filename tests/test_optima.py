"""Many data sets, and what may be called an optimum."""

import jax
import numpy as np
import pytest
from scipy.stats import invwishart

import oracles
from conftest import as_tuple
from gmm_jax import GMM, Known, MixtureSpec, Status
from gmm_jax.em import EMConfig, fit_em_restarts, m_step, spurious
from gmm_jax.em.optima import reasons, unseen
from gmm_jax.mixture import Hyperparameters, e_step
from gmm_jax.problems import datasets

KEY = jax.random.key(0)
SPEC = MixtureSpec(3)


@pytest.fixture(scope="module")
def three():
    """(90, 2): three groups, so that restarts with K = 3 reach several optima."""
    rng = np.random.default_rng(3)
    centres = np.array([[0.0, 0.0], [4.0, 0.5], [1.0, 4.0]])
    return centres[np.repeat([0, 1, 2], 30)] + rng.standard_normal((90, 2))


@pytest.fixture(scope="module")
def whole(three):
    return fit_em_restarts(KEY, three, SPEC, n_restarts=40)


def test_good_turing_counts_what_was_seen_once():
    assert unseen(np.array([0, 0, 0, 1, 1, 2, -1])).estimate == 1 / 6
    nothing_new = unseen(np.zeros(59, int))
    assert nothing_new.estimate == 0.0
    np.testing.assert_allclose(nothing_new.upper, 1.0 - 0.05 ** (1 / 59))
    assert unseen(np.array([-1, -1])) == (1.0, 1.0, 0)


def test_a_batch_is_restarts_on_each_data_set(three):
    sets = np.stack([three, 3.0 * three[:, ::-1] + 7.0])
    batch = fit_em_restarts(KEY, sets, SPEC, n_restarts=8)
    assert batch.log_likelihood.shape == batch.status.shape == batch.n_iter.shape == (2, 8)
    for p, x in enumerate(sets):
        best = jax.tree.map(lambda leaf, p=p: leaf[p], batch.best)
        np.testing.assert_allclose(best.log_likelihood, oracles.log_likelihood(as_tuple(best.gmm), x), rtol=1e-10)
        again = fit_em_restarts(KEY, x, SPEC, n_restarts=1, init=best.gmm).best
        np.testing.assert_allclose(best.log_likelihood, again.log_likelihood, atol=1e-4)


def test_a_batch_is_filled_up_with_rows_of_weight_zero(three):
    padded = np.concatenate([three[:60], np.full((30, 2), 1e9)])
    weight = (np.arange(90) < 60).astype(float)
    weights = np.stack([np.ones(90), weight])
    batch = fit_em_restarts(KEY, np.stack([three, padded]), SPEC, n_restarts=8, sample_weight=weights)
    best = jax.tree.map(lambda leaf: leaf[1], batch.best)
    np.testing.assert_allclose(best.log_likelihood, oracles.log_likelihood(as_tuple(best.gmm), three[:60]), rtol=1e-10)


def test_a_batch_names_the_data_set_at_fault(three):
    with pytest.raises(ValueError, match=r"data set 1: x must be finite; .* row 4"):
        fit_em_restarts(KEY, np.stack([three, np.where(np.arange(90)[:, None] == 4, np.nan, three)]), SPEC)
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(2, 90\)"):
        fit_em_restarts(KEY, np.stack([three, three]), SPEC, sample_weight=np.ones(90))


def test_data_sets_of_different_size_are_each_as_alone(three):
    sets = [three, three[:50], 2.0 * three[:71]]
    found = fit_em_restarts(jax.random.split(KEY, 3), sets, SPEC, n_restarts=4)
    for p, x in enumerate(sets):
        best, reached = found[p].best, jax.tree.map(lambda leaf, p=p: leaf[p], found.best)
        assert best.log_likelihood == reached.log_likelihood
        np.testing.assert_allclose(best.log_likelihood, oracles.log_likelihood(as_tuple(best.gmm), x), rtol=1e-10)
    with pytest.raises(IndexError, match="there are 3 data sets"):
        found[3]


# ---- spurious optima


def test_an_optimum_is_one_in_any_units(whole, three):
    best = whole.best.gmm
    assert spurious(three, best, SPEC) == ""
    stretch = np.array([1e-3, 50.0])
    moved = GMM(best.weights, best.means * stretch + 9.0, best.covariances * np.outer(stretch, stretch))
    assert spurious(three * stretch + 9.0, moved, SPEC) == ""


def test_what_is_not_an_optimum_has_a_reason(three, whole):
    best = whole.best.gmm
    shifted = GMM(best.weights, best.means + 0.5, best.covariances)
    assert spurious(three, shifted, SPEC) == "not stationary"
    few = GMM(np.array([0.98, 0.02]), np.array([[1.5, 1.5], three[0]]), np.stack([4.0 * np.eye(2), 0.01 * np.eye(2)]))
    assert spurious(three, few, MixtureSpec(2)) == "tiny component"


def test_where_variances_are_known_few_samples_are_a_component():
    """SAS, PROC FMM, getting started: five components of one variance, two of them with about three samples."""
    x, known = datasets.load("galaxies_roeder")[0] / 1000.0, Known(covariances=np.full((5, 1, 1), 0.9025))
    found = fit_em_restarts(KEY, x, MixtureSpec(5, known=known), n_restarts=20)
    assert found.optima.spurious.sum() < found.optima.spurious.size
    np.testing.assert_allclose(found.best.log_likelihood, -206.104443, atol=1e-5)
    assert not any(found.optima.spurious[found.optima.log_likelihood >= found.best.log_likelihood - 1e-6])


def test_an_optimum_held_up_by_its_ridge_is_not_stationary(three):
    """With a ridge the likelihood has optima that are none without it."""
    data = np.concatenate([three, three[:1] + 1e-4 * np.random.default_rng(0).standard_normal((40, 2))])
    found = fit_em_restarts(KEY, data, SPEC, n_restarts=10, config=EMConfig(reg_covar=1e-2))
    assert "not stationary" in set(found.optima.reason)
    bare = fit_em_restarts(KEY, data, SPEC, n_restarts=10, config=EMConfig(reg_covar=0.0))
    assert spurious(data, bare.best.gmm, SPEC) == ""  # a tight component that 40 samples support is real


def test_a_narrow_component_of_which_a_ridge_makes_a_small_part_is_an_optimum():
    """Of 40 random truths with K = 4, D = 10, n = 400 the optimum at the truth was refused in 9: one far lower won."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((36, 3))
    narrow = rng.standard_normal((36, 3)) * np.array([1.0, 1.0, 0.0025]) + np.array([8.0, 0.0, 0.0])
    data = np.concatenate([wide, narrow])
    found = fit_em_restarts(KEY, data, MixtureSpec(2), n_restarts=5)
    least = np.linalg.eigvalsh(found.best.gmm.covariances).min()
    assert 0.05 < 1e-6 * data[:, 2].var() / least < 0.15  # the share of the ridge, 1e-6 of the variance
    assert found.optima.reason[0] == ""
    assert np.sort(found.best.gmm.weights * 72) == pytest.approx([36.0, 36.0], abs=0.5)


# ---- a prior


def priors(covariance_type):
    size = {"full": 0.5 * np.eye(2), "tied": 0.5 * np.eye(2), "diag": np.full(2, 0.5), "spherical": np.array(0.5)}
    dof = {"full": np.array(6.0), "tied": np.array(6.0), "diag": np.full(2, 3.0), "spherical": np.array(3.0)}
    precision = np.array([[0.3, 0.1], [0.1, 0.2]])
    return Hyperparameters(np.full(3, 2.0), np.ones(2), precision, dof[covariance_type], size[covariance_type])


@pytest.mark.parametrize(
    "covariance_type", ["full", "diag", *(pytest.param(t, marks=pytest.mark.slow) for t in ("tied", "spherical"))]
)
def test_the_log_posterior_never_falls(covariance_type, three):
    spec = MixtureSpec(3, covariance_type)
    config = EMConfig(max_iter=60, tol=0.0, reg_covar=0.0)
    found = fit_em_restarts(KEY, three, spec, n_restarts=4, config=config, prior=priors(covariance_type))
    assert np.all(found.fits.status == Status.MAX_ITER)
    gains = np.diff(found.fits.trace, axis=1)
    assert np.all(gains >= -1e-9)
    gmm = found.best.gmm
    np.testing.assert_allclose(found.best.log_likelihood, oracles.log_likelihood(as_tuple(gmm), three), rtol=1e-10)


def test_one_component_with_known_mean_has_the_closed_form(three):
    """The mode of IW(ν + n, Ψ + S) is (Ψ + S) / (ν + n + D + 1)."""
    prior = priors("full")._replace(alpha=np.ones(1))
    mean = np.array([[1.0, 1.0]])
    start = GMM(np.ones(1), mean, np.eye(2)[None])
    sums = e_step(start, three)
    got = m_step(sums, start, known=Known(means=mean), prior=prior).covariances[0]
    scatter = (three - mean).T @ (three - mean)
    np.testing.assert_allclose(got, (prior.size + scatter) / (prior.dof + 90 + 3), rtol=1e-12)
    posterior = invwishart(df=float(prior.dof) + 90, scale=prior.size + scatter)
    assert posterior.logpdf(got) > max(posterior.logpdf(1.01 * got), posterior.logpdf(0.99 * got))


def test_a_prior_cures_the_collapse(three):
    """K = 20 on 30 rows: the likelihood is unbounded, the posterior is not."""
    x, spec = three[::3], MixtureSpec(20)
    prior = priors("full")._replace(alpha=np.ones(20))
    found = fit_em_restarts(KEY, x, spec, n_restarts=4, config=EMConfig(reg_covar=0.0), prior=prior)
    assert np.all(found.fits.status == Status.CONVERGED)
    assert np.linalg.eigvalsh(found.fits.gmm.covariances).min() > 1e-3
    without = fit_em_restarts(KEY, x, spec, n_restarts=4, config=EMConfig(reg_covar=0.0))
    assert not np.all(without.fits.status == Status.CONVERGED)


def test_what_makes_a_fit_spurious_is_counted_by_what_the_structure_needs():
    """A spherical covariance in 60 dimensions is determined by few samples: groups of 50 are no artefact."""
    rng = np.random.default_rng(0)
    centres = 1.5 * rng.standard_normal((3, 60))
    x = np.concatenate([c + rng.standard_normal((n, 60)) for c, n in zip(centres, (50, 120, 250), strict=True)])
    found = fit_em_restarts(KEY, x, MixtureSpec(3, "spherical"), n_restarts=10)
    assert found.optima.reason[0] == ""
    assert found.best.log_likelihood == found.optima.log_likelihood[0]
    np.testing.assert_allclose(np.sort(found.best.gmm.weights) * 420, (50, 120, 250), atol=2.0)


@pytest.mark.parametrize("covariance_type", ["full", "diag", "tied"])
def test_the_verdict_does_not_depend_on_the_unit_of_a_column(covariance_type, three):
    rng = np.random.default_rng(1)
    x = np.column_stack([three, 0.1 * rng.standard_normal(90)])
    spec = MixtureSpec(3, covariance_type)
    found = [
        fit_em_restarts(KEY, x * [1.0, 1.0, unit], spec, n_restarts=8).optima.reason.tolist()
        for unit in (1e-6, 1.0, 1e6)
    ]
    assert found[0] == found[1] == found[2]


def test_a_higher_optimum_that_was_set_aside_is_named(three):
    found = fit_em_restarts(KEY, three[::2], MixtureSpec(4), n_restarts=60)
    best = int(np.argmax(np.where(found.optima.spurious, -np.inf, found.optima.criterion)))
    assert best > 0
    gap = found.optima.log_likelihood[0] - found.optima.log_likelihood[best]
    assert f"a fit that is {gap:.4g} nats higher was set aside because" in found.message
    how = {"n_restarts": 60, "criterion": "likelihood", "swaps": False, "config": EMConfig(acceleration="lbfgs")}
    highest = fit_em_restarts(KEY, three[::2], MixtureSpec(4), **how)
    assert highest.best.log_likelihood == max(found.optima.log_likelihood[~found.optima.spurious])


def test_values_that_repeat_are_a_component_of_their_own():
    """Zero-inflated data: what a person wants is the zeros apart."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.zeros((150, 1)), rng.normal(-4.0, 1.0, (150, 1)), rng.normal(5.0, 1.5, (200, 1))])
    found = fit_em_restarts(KEY, x, MixtureSpec(3), n_restarts=20)
    best = found.best
    k = int(np.argmin(np.abs(best.gmm.means[:, 0])))
    np.testing.assert_allclose([best.gmm.weights[k], best.gmm.means[k, 0]], [0.3, 0.0], atol=1e-3)
    assert f"in component(s) {k} (from 0) samples repeat one value" in found.message
    without = fit_em_restarts(KEY, x[150:], MixtureSpec(2), n_restarts=5)
    assert without.message == f"{Status.CONVERGED.advice}."


def test_optima_with_a_shared_covariance_are_judged_as_each_alone():
    apart = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    means, covariances = np.stack([apart, apart[[0, 0, 2]]]), np.stack([np.eye(2), 4.0 * np.eye(2)])
    gmms = GMM(np.full((2, 3), 1.0 / 3.0), means, covariances, "tied")
    found = reasons(gmms, gmms, MixtureSpec(3, "tied"), np.eye(2), 100.0)
    assert found.tolist() == ["", "coinciding components"]


def test_components_that_coincide_are_a_saddle_that_is_named(three):
    one = GMM(np.full(2, 0.5), np.ones((2, 2)), np.stack([np.eye(2)] * 2))
    found = fit_em_restarts(KEY, three, MixtureSpec(2), init=one)
    assert found.optima.reason.tolist() == ["coinciding components"]
    assert "saddle point" in found.message


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_a_saddle_is_named_for_every_structure_and_number_of_optima(three, covariance_type):
    spread = {"full": np.stack([np.eye(2)] * 3), "tied": np.eye(2), "diag": np.ones((3, 2)), "spherical": np.ones(3)}
    means = np.array([[0.0, 0.0], [0.0, 0.0], [4.0, 2.0]])
    one = GMM(np.array([0.2, 0.3, 0.5]), means, spread[covariance_type], covariance_type)
    two = GMM(one.weights, means[[0, 2, 1]] * np.array([[1.0], [1.0], [-1.0]]) + 1.0, one.covariances, covariance_type)
    init = jax.tree.map(lambda *leaves: np.stack(leaves), one, two)
    found = fit_em_restarts(KEY, three, MixtureSpec(3, covariance_type), init=init)
    assert found.optima.reason[found.optima.of_fit[0]] == "coinciding components"


def test_crossing_components_with_equal_means_and_variances_do_not_coincide():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2)) @ np.array([[1.0, 0.9], [0.0, np.sqrt(0.19)]])
    x[200:, 1] *= -1.0
    x = np.concatenate([x, x * np.array([1.0, -1.0])])  # both components have the same variances to the last digit
    crossing = np.array([[[1.0, 0.9], [0.9, 1.0]], [[1.0, -0.9], [-0.9, 1.0]]])
    init = GMM(np.full(2, 0.5), np.zeros((2, 2)), crossing)
    found = fit_em_restarts(KEY, x, MixtureSpec(2, known=Known(means=np.zeros((2, 2)))), init=init)
    np.testing.assert_allclose(found.best.gmm.covariances[0, 0, 0], found.best.gmm.covariances[1, 0, 0], rtol=1e-6)
    assert found.optima.reason.tolist() == [""]


def test_known_equal_means_under_a_shared_covariance_are_fitted():
    """Nothing tells these two apart, so all rows nearest to both would go to one."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((200, 2)), rng.standard_normal((200, 2)) + 8.0])
    known = Known(means=np.array([[0.0, 0.0], [0.0, 0.0], [8.0, 8.0]]))
    found = fit_em_restarts(KEY, x, MixtureSpec(3, "tied", known), n_restarts=3)
    assert found.best.status == Status.CONVERGED
    np.testing.assert_allclose(found.best.gmm.weights, [0.25, 0.25, 0.5], atol=1e-3)
    assert not found.optima.spurious.any()


@pytest.mark.parametrize("init", ["kmeans++", "random_points", "kmeans", "random"])
def test_known_equal_means_do_not_start_on_a_saddle(init):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 2)) * np.where(np.arange(600) < 300, 0.3, 3.0)[:, None]
    spec = MixtureSpec(2, "spherical", Known(means=np.zeros((2, 2))))
    best = fit_em_restarts(KEY, x, spec, n_restarts=4, init=init).best
    np.testing.assert_allclose(np.sort(np.sqrt(best.gmm.covariances)), [0.3, 3.0], rtol=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_more_starts_are_never_worse_even_before_they_converge(three, seed):
    """Starts are nested: the first of many is the one alone."""
    config = EMConfig(max_iter=1)
    one, two = (fit_em_restarts(jax.random.key(seed), three, SPEC, n_restarts=n, config=config).best for n in (1, 2))
    assert two.log_likelihood >= one.log_likelihood
