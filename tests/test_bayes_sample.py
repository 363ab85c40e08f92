"""Chains that go on until they have mixed: what they draw is the posterior, and what they could not do is said."""

import jax
import numpy as np
import pytest
from test_bayes_evidence import SPECS, X, assert_exact
from test_bayes_references import mcse

from conftest import random_gmm
from gmm_jax import GMM, Known, MixtureSpec, NotSupported, Prior, Status, bayes, em, judge
from gmm_jax import sample as draw
from gmm_jax.bayes.model import assemble
from gmm_jax.bayes.target import constrain, first_that, prepare, run_chunks, unconstrained_starts
from gmm_jax.mixture import structure

KEY = jax.random.key(0)


def three_groups(n_each):
    """Three groups and two components: the middle one goes with the left or with the right, by a wall between."""
    groups = np.repeat([[-6.0, 0.0], [0.0, 0.0], [6.0, 0.0]], n_each, axis=0)
    return groups + np.random.default_rng(0).standard_normal(groups.shape)


# ---- longer runs of the same chains


def counted(n_warmup, n_draws, size, n_looks):
    """Indices of the steps that are kept at each look, by chains that report the step they make."""
    parts = np.zeros((3, 1))

    def advance(parts, start):
        steps = np.arange(start, start + size)
        return [(part, np.broadcast_to(steps, (len(part), size))) for part in parts]

    looks = run_chunks(advance, parts, n_warmup, n_draws, size)
    return [next(looks)[0] for _ in range(n_looks)]


@pytest.mark.parametrize("size", [1, 4, 7, 50])
def test_each_look_keeps_as_many_steps_evenly_spread_over_the_same_part_of_a_run_twice_as_long(size):
    for look, kept in enumerate(counted(5, 10, size, 4)):
        np.testing.assert_array_equal(kept, 2**look * np.arange(5, 15))


def test_without_a_condition_the_first_look_is_the_last():
    assert first_that(None, iter([1, 2, 3])) == 1
    assert first_that(lambda value: value > 1, iter([1, 2, 3])) == 2


@pytest.mark.parametrize("engine", ["gibbs", "nuts"])
def test_chains_that_go_on_are_those_of_a_longer_run(engine):
    """Where a chain is after 500 steps does not depend on whether somebody looked at it in between."""
    x, looks = X, []
    options = {"init": em.fit_em_restarts(KEY, x, SPECS["free"], n_restarts=4).best.gmm}
    run, n_warmup = getattr(bayes, engine), 125 if engine == "gibbs" else 0
    n_draws = 250 - n_warmup
    until = lambda posterior: looks.append(posterior) or len(looks) == 2  # noqa: E731
    found = run(KEY, x, SPECS["free"], n_warmup=n_warmup, n_draws=n_draws, until=until, **options)
    longer = run(KEY, x, SPECS["free"], n_warmup=2 * n_warmup, n_draws=2 * n_draws, **options)
    np.testing.assert_array_equal(found.draws.means, longer.draws.means[:, ::2])
    np.testing.assert_allclose(found.log_density, longer.log_density[:, ::2], rtol=1e-12)


# ---- the posterior


def test_it_draws_the_exact_posterior_and_says_what_it_cost():
    found = bayes.sample(KEY, X, SPECS["free"], n_draws=2000)
    assert found.status == Status.SAMPLED
    assert_exact(found, "free", mcse)
    table = judge.invariant_diagnostics(found, SPECS["free"], X)
    assert table.worst["r_hat"] <= 1.01
    assert min(table.worst["ess_bulk"], table.worst["ess_tail"]) >= 400
    n_looks = np.log2(found.stats["passes"] / 3000)
    np.testing.assert_array_equal(n_looks, np.round(n_looks))
    assert "mixed (gibbs" in found.message


def test_the_same_key_gives_the_same_draws():
    one, again = (bayes.sample(KEY, X, SPECS["free"], n_draws=200, engine="gibbs") for _ in range(2))
    np.testing.assert_array_equal(one.draws.means, again.draws.means)
    assert one.message == again.message


def test_an_engine_is_chosen_that_the_prior_allows():
    import numpyro.distributions as dist

    prior = Prior(means=dist.StudentT(3.0, np.zeros(2), np.full(2, 5.0)).to_event(1))
    spec = MixtureSpec(1, prior=prior)
    x = draw(KEY, random_gmm(0, 1, 2, "full"), 60)[0]
    found = bayes.sample(KEY, x, spec, n_chains=2, n_draws=300, max_passes=1)
    assert "nuts" in found.message
    assert "n_steps" in found.stats
    with pytest.raises(NotSupported, match="gibbs needs a semi-conjugate prior; means has none"):
        bayes.sample(KEY, x, spec, engine="gibbs")


@pytest.mark.slow
def test_a_wall_that_gibbs_does_not_pass_is_passed_by_tempering():
    x, spec = three_groups(30), MixtureSpec(2)
    assert bayes.sample(KEY, x, spec, engine="gibbs", max_passes=50_000).status == Status.UNMIXED
    found = bayes.sample(KEY, x, spec, max_passes=1e6)
    assert found.status == Status.SAMPLED
    assert "tempered gibbs" in found.message
    wide = np.argmax(found.draws.covariances[..., 0, 0], axis=-1)[..., None]
    left = np.mean(np.take_along_axis(found.draws.means[..., 0], wide, -1) < 0.0)
    assert 0.2 < left < 0.8


# ---- bad luck: a status with a reason, and the draws so far


LEFT = GMM(np.array([2, 1]) / 3, np.array([[-3.0, 0], [6, 0]]), np.stack([np.diag([10.0, 1]), np.eye(2)]))
RIGHT = GMM(LEFT.weights, -LEFT.means, LEFT.covariances)
ON_BOTH_SIDES = jax.tree.map(lambda a, b: np.stack([a, a, b, b]), LEFT, RIGHT)


def test_chains_behind_a_wall_jump_over_it():
    found = bayes.sample(KEY, three_groups(150), MixtureSpec(2), init=ON_BOTH_SIDES, n_draws=300, max_passes=40_000)
    assert found.status == Status.SAMPLED, found.message
    assert np.all(found.stats["jumps"] > 10)


def test_chains_behind_a_wall_are_unmixed_and_it_is_said_where_they_lie():
    spec = MixtureSpec(2, known=Known(weights=LEFT.weights))  # with known parts nothing jumps
    found = bayes.sample(KEY, three_groups(150), spec, init=ON_BOTH_SIDES, n_draws=300, max_passes=4000)
    assert found.status == Status.UNMIXED
    assert np.all(np.isfinite(found.log_density))
    assert found.draws.means.shape == (4, 300, 2, 2)
    assert "not mixed (gibbs" in found.message
    assert "50 % to number 1 (by chain 100, 100, 0, 0)" in found.message


@pytest.mark.parametrize(("budget", "most"), [({"max_passes": 1}, 1), ({"budget_seconds": 1e-3}, 1), ({}, 8)])
def test_a_budget_ends_a_run_after_its_first_look(budget, most):
    budget = {"max_passes": 1200 * 8} | budget
    found = bayes.sample(KEY, X, SPECS["free"], engine="gibbs", n_draws=200, **budget)
    assert found.stats["passes"][0] <= 300 * most
    assert found.draws.means.shape[:2] == (4, 200)
    if found.status != Status.SAMPLED:
        assert "not mixed" in found.message


def test_ctrl_c_keeps_the_draws_of_the_last_look():
    def stop(done, total):
        if total > 300:
            raise KeyboardInterrupt

    with pytest.raises(bayes.Interrupted) as caught:
        bayes.sample(KEY, X, SPECS["free"], n_draws=200, progress=stop)
    found = caught.value.posterior
    assert found.draws.means.shape[:2] == (4, 200)
    assert found.message.startswith("interrupted; not mixed")
    assert found.status == Status.UNMIXED

    def at_once(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        bayes.sample(KEY, X, SPECS["free"], n_draws=200, progress=at_once)
    assert not isinstance(caught.value, bayes.Interrupted)


def test_duplicated_rows_and_too_many_components_end_with_a_reason():
    x = np.repeat(np.random.default_rng(0).standard_normal((6, 2)), 8, axis=0)
    found = bayes.sample(KEY, x, MixtureSpec(7), engine="gibbs", n_draws=200, max_passes=3000)
    assert found.status in (Status.SAMPLED, Status.UNMIXED)
    assert "mixed (" in found.message
    assert np.all(np.isfinite(found.draws.means))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": "smc"}, "engine must be one of auto, gibbs, nuts; got 'smc'"),
        ({"n_chains": 1}, "n_chains must be .*2"),
        ({"n_draws": 0}, "n_draws must be"),
        ({"max_passes": 0}, "max_passes must be a positive number, or None for the default; got 0"),
        ({"budget_seconds": np.nan}, "budget_seconds must be a positive number"),
        ({"max_passes": "many"}, "max_passes must be a positive number.*got 'many'"),
        ({"init": X}, "init must be a GMM or None"),
        ({"labels": [5]}, "labels"),
    ],
)
def test_what_cannot_be_is_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        bayes.sample(KEY, X, SPECS["free"], **options)


def test_labels_keep_their_components_and_gaps_are_drawn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    x = rng.standard_normal((60, 2)) + 5.0 * labels[:, None]
    x[::7, 0] = np.nan
    found = bayes.sample(
        KEY, x, MixtureSpec(2), labels=np.where(np.arange(60) < 10, labels, -1), missing="marginalise", n_draws=300
    )
    groups = [np.nanmean(x[labels == k], axis=0) for k in (0, 1)]
    np.testing.assert_allclose(found.draws.means.mean((0, 1)), groups, atol=0.4)
    np.testing.assert_array_equal(found.named, [0, 1])


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_chains_start_near_the_start_that_is_given_in_sds_of_each_component(covariance_type):
    """A jitter in units of the data leaves a narrow component, and a chain may never come back."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0.0, 1.0, (60, 2)), 5.0 + 1e-4 * rng.normal(0.0, 1.0, (60, 2))])
    spec = MixtureSpec(2, covariance_type)
    init = em.fit_em_restarts(KEY, x, spec, n_restarts=4, init="kmeans").best.gmm
    problem, scaling = prepare(x, spec, 3)
    starts = unconstrained_starts(KEY, problem, scaling, init, 3)
    near = [scaling.outward(assemble(problem, constrain(problem, u)[0])) for u in starts]
    for gmm in near:
        for k in range(2):
            covariance = structure(covariance_type).dense(np.asarray(init.covariances), 2, 2)[k]
            away = np.linalg.solve(np.linalg.cholesky(covariance), np.asarray(gmm.means)[k] - init.means[k])
            assert 0.0 < np.linalg.norm(away) < 1.0
        ratio = np.asarray(gmm.covariances) / np.where(init.covariances == 0.0, 1.0, init.covariances)
        assert np.all(ratio[init.covariances != 0.0] < 2.0)
        np.testing.assert_allclose(gmm.weights, init.weights, atol=0.2)
    assert not np.array_equal(near[0].means, near[1].means)
