"""The mean density of mixtures: in standardised units, to the limit far away, in one process only."""

import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, near, posterior_of, random_gmm
from gmm_jax import GMM, GaussianMixture, MixtureSpec, Posterior, Status, em, judge
from gmm_jax.mixture.predictive import predictive

SECONDS = 1.6e9 + 1e3 * np.concatenate([np.random.default_rng(0).normal(m, 1.0, (60, 1)) for m in (-3.0, 3.0)])


def one(gmm):
    return jax.tree.map(lambda leaf: leaf[None], gmm)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_predictive_is_the_mean_over_mixtures(covariance_type, x):
    posterior = posterior_of(near(random_gmm(0, 3, 2, covariance_type), 1, n_draws=5))
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), posterior.draws)
    each = [as_tuple(jax.tree.map(lambda leaf, m=m: leaf[m], flat)) for m in range(10)]
    found = predictive(flat, x)
    expected = np.log(np.mean([np.exp(oracles.log_prob(gmm, x)) for gmm in each], axis=0))
    np.testing.assert_allclose(found.log_density, expected, rtol=1e-12)
    np.testing.assert_allclose(posterior.log_predictive(x), expected, rtol=1e-12)
    r = np.mean([oracles.responsibilities(gmm, x) for gmm in each], axis=0)
    np.testing.assert_allclose(found.responsibilities, r, atol=1e-13)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_of_rows_with_gaps_it_is_the_mean_of_what_was_seen(covariance_type, x):
    gmm, gaps = random_gmm(0, 3, 2, covariance_type), np.array(x[:12])
    gaps[:5, 0], gaps[4:7, 1] = np.nan, np.nan  # one row without any number
    posterior = posterior_of(near(gmm, 1, n_draws=4))
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), posterior.draws)
    found = predictive(flat, gaps, missing="marginalise")
    for row, log_density, p in zip(gaps, found.log_density, found.responsibilities, strict=True):
        seen, densities, r = ~np.isnan(row), [], []
        for m in range(8):
            weights, means = flat.weights[m], flat.means[m][:, seen]
            covariances = oracles.dense(flat.covariances[m], covariance_type, 3, 2)[:, seen][:, :, seen]
            z = (row[seen] - means)[:, None]
            square = np.sum(z @ np.linalg.inv(covariances) * z, axis=(1, 2)) if seen.any() else np.zeros(3)
            joint = weights * np.exp(-0.5 * square) / np.sqrt(np.linalg.det(2.0 * np.pi * covariances))
            densities.append(joint.sum())
            r.append(joint / joint.sum())
        np.testing.assert_allclose(log_density, np.log(np.mean(densities)), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(p, np.mean(r, axis=0), atol=1e-13)
    np.testing.assert_array_equal(posterior.log_predictive(gaps, missing="marginalise"), found.log_density)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("x64", [False, True])
def test_far_rows_belong_to_the_component_that_the_limit_names(covariance_type, x64):
    """As in extended precision: exact log densities of Python integers would be too long."""
    gmm = random_gmm(3, 3, 2, covariance_type)
    rows = np.array([[1e25, 0.0], [-1e25, 3.0], [0.0, 1e120], [1.0, 1.0], [1e200, -1e200]])
    with jax.enable_x64(x64):
        found = predictive(one(gmm), rows)
    np.testing.assert_allclose(found.responsibilities.sum(axis=1), 1.0, atol=1e-6)
    wide = np.longdouble
    dense = oracles.dense(gmm.covariances, covariance_type, 3, 2) if hasattr(oracles, "dense") else None
    if dense is None:
        dense = np.array(judge.dense_covariances(gmm))
    for row, p, log_p in zip(rows, found.responsibilities, found.log_density, strict=True):
        d = row.astype(wide) - gmm.means.astype(wide)
        inverse = np.linalg.inv(dense).astype(wide)
        log_joint = (
            np.log(gmm.weights)
            - 0.5 * np.linalg.slogdet(dense)[1]
            - np.log(2.0 * np.pi)
            - 0.5 * np.einsum("kd,kde,ke->k", d, inverse, d)
        )
        if np.ptp(log_joint) > 1.0:  # else rounding of the longdouble decides
            assert np.argmax(p) == np.argmax(log_joint)
        expected = float(np.logaddexp.reduce(log_joint))
        if np.isfinite(expected):
            np.testing.assert_allclose(log_p, expected, rtol=1e-5)


def test_with_one_covariance_far_rows_go_by_their_direction():
    gmm = GMM(np.array([0.5, 0.5]), np.array([[-1.0, 0.0], [1.0, 0.0]]), np.eye(2), "tied")
    found = predictive(one(gmm), np.array([[1e25, 0.0], [-1e25, 0.0], [0.0, 1e25]]))
    np.testing.assert_allclose(found.responsibilities, [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], atol=1e-9)


def test_a_component_without_weight_never_gets_a_row():
    gmm = GMM(np.array([1.0, 0.0]), np.array([[0.0], [5.0]]), np.array([[[1.0]], [[100.0]]]))
    np.testing.assert_array_equal(predictive(one(gmm), np.array([[1e30], [5.0]])).responsibilities, [[1, 0], [1, 0]])


@pytest.mark.parametrize("mode", ["under", "over", "invalid"])
def test_the_callers_floating_point_mode_changes_nothing(mode):
    gmm = random_gmm(0, 3, 2, "full")
    rows = np.array([[1e25, 0.0], [0.0, 1.0], [1e200, 1.0]])
    with np.errstate(**{mode: "raise"}):
        found = predictive(one(gmm), rows)
    np.testing.assert_array_equal(found.responsibilities, predictive(one(gmm), rows).responsibilities)


def test_criteria_of_seconds_since_1970_are_those_of_seconds_from_their_mean():
    """In float32, which cannot hold the seconds: every density is taken in standardised units."""
    found = em.fit_em_restarts(jax.random.key(0), SECONDS, MixtureSpec(2), n_restarts=5)
    with jax.enable_x64(False):
        scores = judge.information_criteria(found.best.gmm, SECONDS, MixtureSpec(2))
        metrics = judge.recovery(
            jax.random.key(1), found, found.best.gmm, x=SECONDS, labels=np.repeat([0, 1], 60), x_test=SECONDS
        )
        at_home = GMM(found.best.gmm.weights, found.best.gmm.means - 1.6e9, found.best.gmm.covariances)
        other = GMM(at_home.weights, at_home.means + 300.0, at_home.covariances)
        moved = GMM(other.weights, other.means + 1.6e9, other.covariances)
        far, here = (
            judge.divergences(jax.random.key(2), *pair) for pair in ((found.best.gmm, moved), (at_home, other))
        )
    exact = oracles.log_likelihood(as_tuple(at_home), SECONDS - 1.6e9)
    assert scores["log_likelihood"] == pytest.approx(exact, abs=1e-3)
    assert scores["bic"] == pytest.approx(-2.0 * exact + 5 * np.log(120), abs=2e-3)
    assert metrics["log_likelihood"] == pytest.approx(exact, abs=1e-3)
    assert metrics["test_log_likelihood"] == pytest.approx(exact / 120, abs=1e-5)
    assert metrics["ari"] == 1.0
    assert float(far.kl) == pytest.approx(float(here.kl), rel=1e-3)
    assert float(here.kl) > 0.01


def test_float32_of_a_scale_that_it_cannot_hold_is_a_sentence_and_of_the_largest_it_can_a_fit():
    base = (SECONDS - 1.6e9) / 1e3
    with pytest.raises(ValueError, match=r"column 0 has standard deviation .*e\+30, whose square float32 cannot hold"):
        GaussianMixture(2, random_state=0).fit((1e30 * base).astype(np.float32))
    model = GaussianMixture(2, random_state=0).fit((1e17 * base).astype(np.float32))
    assert np.isfinite([model.lower_bound_, model.score((1e17 * base).astype(np.float32))]).all()
    plain = GaussianMixture(2, random_state=0).fit(base.astype(np.float32))
    assert model.lower_bound_ + np.log(1e17) == pytest.approx(plain.lower_bound_, abs=1e-3)


FORKED = """
import multiprocessing, sys, warnings
import numpy as np
import jax
from gmm_jax import GaussianMixture, MixtureSpec, bayes, em, log_prob, problems, sample
warnings.simplefilter("ignore")
x = np.random.default_rng(0).standard_normal((50, 2))
model, key = GaussianMixture(1).fit(x), jax.random.key(0)
problem = problems.load('course_2d')
def work(pipe):
    for call in (lambda: model.predict(x), lambda: model.sample(3), lambda: GaussianMixture(1).fit(x),
                 lambda: bayes.default_prior(x, MixtureSpec(1)), lambda: log_prob(model.mixture_, x),
                 lambda: em.fit_em(x, model.mixture_), lambda: sample(key, model.mixture_, 3),
                 lambda: problem.sample(key)):
        try:
            pipe.send(repr(call()))
        except RuntimeError as error:
            pipe.send(str(error))
ours, theirs = multiprocessing.get_context("fork").Pipe()
child = multiprocessing.get_context("fork").Process(target=work, args=(theirs,), daemon=True)
child.start()
for _ in range(8):
    print(ours.recv() if ours.poll(60) else "it hangs")
"""


def test_rows_of_another_size_than_the_draws_are_refused():
    draws = GMM(np.ones((1, 1, 1)), np.zeros((1, 1, 1, 2)), np.eye(2)[None, None, None])
    posterior = Posterior(draws, np.zeros((1, 1)), {}, Status.SAMPLED)
    assert posterior.log_predictive(np.zeros((3, 2))).shape == (3,)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 2\), as the draws have it; got \(3, 1\)"):
        posterior.log_predictive(np.zeros((3, 1)))


def test_a_forked_child_says_to_spawn_and_does_not_hang():
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=200, cwd=Path(__file__).parents[1]
    )
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 8, done.stderr
    assert all("get_context('spawn')" in line and "loky" in line for line in lines), lines


def test_a_fork_before_jax_computes_is_no_error():
    program = (
        "import os, gmm_jax.mixture as m, numpy as np\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    m.check_data(np.zeros((3, 1)))\n"
        "    os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "7", done.stderr


def test_icl_is_one_number_for_the_library_and_the_estimator(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GaussianMixture(3, random_state=0, max_iter=50).fit(x)
    scores = judge.information_criteria(model, x, MixtureSpec(3))
    for name in ("aic", "bic", "icl"):
        assert getattr(model, name)(x) == pytest.approx(scores[name], rel=1e-12)
    joint = np.asarray(oracles.log_joint(as_tuple(model.mixture_), x))
    assert scores["icl"] == pytest.approx(-2.0 * joint.max(axis=1).sum() + 17 * np.log(60), rel=1e-12)
