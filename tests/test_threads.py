"""Rows in parts, one for each core: the answer of one program, whatever the row annotations, and however it ends."""

import jax
import numpy as np
import pytest
from test_m_step import make_known
from test_optima import priors

from conftest import TYPES, assert_trees_close, random_gmm
from gmm_jax import MixtureSpec, Status
from gmm_jax.em import EMConfig, Interrupted, fit_em_restarts, restarts, sums
from gmm_jax.mixture import Known

KEY = jax.random.key(0)
SLOW = pytest.mark.slow
FIFTY = EMConfig(max_iter=50, tol=0.0, reg_covar=0.0)  # without a ridge the last iterate is the best
FULL_FIRST = ["full", *(pytest.param(kind, marks=SLOW) for kind in TYPES if kind != "full")]


def fit_in(n_parts, monkeypatch):
    def fit(x, spec, **options):
        monkeypatch.setattr(restarts, "n_parts", lambda *_: n_parts)
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
    """58 rows: the last of three parts is filled up."""
    assert_same(*both(x[:58], MixtureSpec(3, kind), init=random_gmm(5, 3, 2, kind), n_restarts=2))


def test_whatever_the_row_annotations(x, both):
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
def test_a_component_that_becomes_ill_conditioned_is_summed_exactly_from_there_on(x, both):
    close = np.concatenate([x, 3.0 + 1e-3 * x[:30]])
    one, shared = both(close, MixtureSpec(2), config=EMConfig(max_iter=60, tol=0.0, reg_covar=0.0))
    assert shared.best.status == one.best.status
    np.testing.assert_allclose(shared.best.trace, one.best.trace, rtol=1e-9)


@SLOW
def test_a_collapse_is_named_as_in_one_program(x, both):
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


def test_ctrl_c_keeps_every_fit_as_far_as_it_came_and_a_file_goes_on_from_there(x, shared, monkeypatch, tmp_path):
    looks = []

    def stop(done, n_fits, best):
        looks.append(done)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(sums, "SECONDS_BETWEEN_LOOKS", 0.0)
    keep = {"n_restarts": 2, "checkpoint": tmp_path / "fit.npz"}
    with pytest.raises(Interrupted) as caught:
        shared(x[:58], MixtureSpec(3), progress=stop, **keep)
    fits = caught.value.restarts.fits
    assert fits.n_iter.tolist() == [1, 1]
    assert np.all(fits.status == Status.RUNNING)
    resumed, whole = shared(x[:58], MixtureSpec(3), resume=True, **keep), shared(x[:58], MixtureSpec(3), n_restarts=2)
    assert_trees_close(resumed.fits, whole.fits, rtol=0.0, atol=0.0)
    assert resumed.effort.spent == whole.effort.spent


def test_progress_counts_fits_and_gives_the_likelihood_in_the_units_of_the_data(x, shared):
    seen = []
    found = shared(1e-3 * x[:58], MixtureSpec(3), n_restarts=2, progress=lambda *now: seen.append(now))
    assert seen[-1][:2] == (2, 2)
    np.testing.assert_allclose(seen[-1][2], found.fits.log_likelihood.max(), rtol=1e-12)


def test_rows_are_cut_where_few_fits_meet_much_data(monkeypatch):
    """On an accelerator, or one core, or for little work, one program does it all."""

    def parts(n_samples, n_fits, n_workers=2):
        monkeypatch.setattr(sums, "n_workers", lambda: n_workers)
        return sums.n_parts(n_samples, 2, 2, n_fits)

    much = sums.LEAST_WORK // (2 * 3) + 1
    assert parts(much, 1) == 2
    assert parts(much, 1, n_workers=64) == 3
    assert parts(much, 2, n_workers=64) == parts(much, 2) == parts(much, 1, n_workers=1) == parts(60, 1) == 1


def test_where_values_are_missing_one_program_does_it_all(x, shared):
    gaps = np.where(np.arange(len(x))[:, None] == 0, [[np.nan, 0.0]], x)
    assert np.isfinite(shared(gaps, MixtureSpec(2), missing="marginalise").best.log_likelihood)
