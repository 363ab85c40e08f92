"""Rows shared out over the cores: the answer of one program, whatever is told of the rows, and however it ends."""

import jax
import numpy as np
import pytest
from test_m_step import make_known
from test_race import priors

from conftest import TYPES, assert_trees_close, random_gmm
from gmm_jax import MixtureSpec, Status
from gmm_jax.em import EMConfig, Interrupted, fit_em_restarts, restarts, shares
from gmm_jax.em.inputs import prepare
from gmm_jax.mixture import Known

KEY = jax.random.key(0)
SLOW = pytest.mark.slow
FIFTY = EMConfig(max_iter=50, tol=0.0, reg_covar=0.0)  # without a ridge the last iterate is the best
FULL_FIRST = ["full", *(pytest.param(kind, marks=SLOW) for kind in TYPES if kind != "full")]


def fit_in(n_parts, monkeypatch):
    def fit(x, spec, **options):
        monkeypatch.setattr(restarts, "n_shares", lambda data, n_lanes: n_parts)
        return fit_em_restarts(KEY, x, spec, **{"n_restarts": 1, "config": FIFTY, **options})

    return fit


@pytest.fixture
def shared(monkeypatch):
    """A fit with its rows in three parts."""
    return fit_in(3, monkeypatch)


@pytest.fixture
def both(shared, monkeypatch):
    """The same fit in one program, and shared out."""
    alone = fit_in(1, monkeypatch)
    return lambda *data, **options: (alone(*data, **options), shared(*data, **options))


def assert_same(one, shared):
    """To rounding."""
    assert_trees_close(shared.fits, one.fits, rtol=1e-10, atol=1e-10)
    assert shared.message == one.message
    assert shared.effort.spent == one.effort.spent


@pytest.mark.parametrize("kind", FULL_FIRST)
def test_fifty_iterations_are_those_of_one_program(kind, x, both):
    """58 rows: the last of three shares is filled up."""
    assert_same(*both(x[:58], MixtureSpec(3, kind), init=random_gmm(5, 3, 2, kind), n_restarts=2))


def test_whatever_is_told_of_the_rows(x, both):
    spec = MixtureSpec(3, known=Known(**make_known(random_gmm(0, 3, 2, "full"), ("one", "one", "free"))))
    weight = np.random.default_rng(0).integers(0, 3, len(x)).astype(float)
    labels = np.where(np.arange(len(x)) % 7 == 0, np.arange(len(x)) % 3, -1)
    assert_same(*both(x, spec, sample_weight=weight, labels=labels))


@SLOW
@pytest.mark.parametrize("stop", ["gain", "relative", "aitken", "gradient"])
def test_accelerated_steps_under_a_prior_stop_where_they_stop_in_one_program(stop, x, both):
    config = EMConfig(tol=1e-6, acceleration="lbfgs", stop=stop, reg_covar=0.0)
    one, shared = both(x, MixtureSpec(3), config=config, prior=priors("full")._replace(alpha=np.ones(3)))
    assert shared.best.status == one.best.status == Status.CONVERGED
    assert abs(shared.best.n_iter - one.best.n_iter) <= 1
    np.testing.assert_allclose(shared.best.log_likelihood, one.best.log_likelihood, rtol=1e-8)


@SLOW
def test_a_component_that_becomes_narrow_is_summed_exactly_from_there_on(x, both):
    close = np.concatenate([x, 3.0 + 1e-3 * x[:30]])
    one, shared = both(close, MixtureSpec(2), config=EMConfig(max_iter=60, tol=0.0, reg_covar=0.0))
    assert shared.best.status == one.best.status
    np.testing.assert_allclose(shared.best.trace, one.best.trace, rtol=1e-9)


@SLOW
def test_a_collapse_is_told_as_in_one_program(x, both):
    known = Known(weights=np.array([3e-37, 1.0]), covariances=np.stack([np.eye(2)] * 2))
    one, shared = both(x, MixtureSpec(2, known=known))
    assert shared.best.status == one.best.status == Status.COLLAPSED
    assert shared.message == one.message


@SLOW
@pytest.mark.parametrize("wide", [True, False], ids=["x64", "x64 off"])
def test_workers_compute_in_the_precision_of_the_caller(wide, x, both):
    with jax.enable_x64(wide):
        one, shared = both(x.astype(np.float32), MixtureSpec(3), config=EMConfig(max_iter=20, tol=0.0))
    assert shared.best.gmm.means.dtype == np.float32
    assert_trees_close(shared.best.gmm, one.best.gmm, rtol=1e-3, atol=1e-3)


def test_ctrl_c_keeps_every_lane_as_far_as_it_came_and_a_file_goes_on_from_there(x, shared, monkeypatch, tmp_path):
    def stop(done, lanes, best):
        raise KeyboardInterrupt

    monkeypatch.setattr(shares, "SECONDS_BETWEEN_LOOKS", 0.0)
    keep = {"n_restarts": 2, "checkpoint": tmp_path / "fit.npz"}
    with pytest.raises(Interrupted) as caught:
        shared(x[:58], MixtureSpec(3), progress=stop, **keep)
    lanes = caught.value.restarts.fits
    assert lanes.n_iter.tolist() == [1, 0]
    assert np.all(lanes.status == Status.RUNNING)
    resumed, whole = shared(x[:58], MixtureSpec(3), resume=True, **keep), shared(x[:58], MixtureSpec(3), n_restarts=2)
    assert_trees_close(resumed.fits, whole.fits, rtol=0.0, atol=0.0)
    assert resumed.effort.spent == whole.effort.spent


def test_progress_counts_lanes_and_tells_the_likelihood_in_the_units_of_the_data(x, shared):
    told = []
    found = shared(1e-3 * x[:58], MixtureSpec(3), n_restarts=2, progress=lambda *now: told.append(now))
    assert told[-1][:2] == (2, 2)
    np.testing.assert_allclose(told[-1][2], found.fits.log_likelihood.max(), rtol=1e-12)


def test_rows_are_shared_where_few_lanes_meet_much_data(monkeypatch, x):
    """On an accelerator, or one core, or for little work, one program does it all; and where values are missing."""

    def parts(x, n_lanes, n_workers=2):
        monkeypatch.setattr(shares, "n_workers", lambda: n_workers)
        data = prepare(x, MixtureSpec(2), None, EMConfig(), None, missing="marginalise")
        return shares.n_shares(data, n_lanes)

    much = np.tile(x, (shares.LEAST_WORK // (len(x) * 2 * 3) + 1, 1))
    assert parts(much, 1) == 2
    assert parts(much, 1, n_workers=64) == 3
    assert parts(much, 2, n_workers=64) == parts(much, 2) == parts(much, 1, n_workers=1) == parts(x, 1) == 1
    assert parts(np.where(np.arange(len(much))[:, None] == 0, np.array([[np.nan, 0.0]]), much), 1) == 1
