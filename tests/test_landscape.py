"""The landscape of optima: every fit is in one row, the numbers are their definitions, a plateau is no optimum."""

import jax
import numpy as np
import pytest
import scipy.linalg

from gmm_jax import GMM, MixtureSpec, em
from gmm_jax.bench.landscape import table
from gmm_jax.judge.landscape import rows_of
from shared.stationary import curvature, polished

SPEC = MixtureSpec(3)
N_STARTS = 12


@pytest.fixture(scope="module")
def stopped(x):
    """Lanes that were stopped long before their ends."""
    config = em.EMConfig(max_iter=20, tol=0.0)
    return em.fit_em_restarts(jax.random.key(0), x, SPEC, n_restarts=N_STARTS, init="random_points", config=config)


@pytest.fixture(scope="module")
def rows(stopped, x):
    return rows_of(stopped.optima, stopped.fits.status, x)


def test_every_lane_is_counted_once_and_gaps_are_to_the_best_that_may_be_believed(rows, stopped):
    assert sum(row["count"] for row in rows) == N_STARTS
    optima = [row for row in rows if row["optimum"] is not None]
    assert [row["optimum"] for row in optima] == list(range(1, len(optima) + 1))
    assert all(row["share"] == row["count"] / N_STARTS for row in rows)
    best = max((row["log_likelihood"] for row in optima if not row["spurious"]), default=optima[0]["log_likelihood"])
    assert all(row["gap"] == best - row["log_likelihood"] for row in optima)
    assert [bool(row["reason"]) for row in optima] == stopped.optima.spurious.tolist()


def test_narrowness_is_the_least_eigenvalue_beside_the_data(rows, stopped, x):
    spread = np.cov(x.T, bias=True)
    for row in rows:
        if row["optimum"] is None:
            continue
        gmm = jax.tree.map(lambda leaf, i=row["optimum"] - 1: leaf[i], stopped.optima.gmm)
        least = np.array([scipy.linalg.eigh(matrix, spread, eigvals_only=True)[0] for matrix in gmm.covariances])
        assert row["smallest_eigenvalue"] == pytest.approx(least.min(), rel=1e-9)
        assert row["narrow_count"] == pytest.approx(len(x) * gmm.weights[least.argmin()])
        assert row["smallest_count"] == pytest.approx(len(x) * gmm.weights.min())


def test_lanes_that_failed_have_a_row_and_no_optimum_is_no_error(x):
    nothing = GMM(np.zeros((0, 3)), np.zeros((0, 3, 2)), np.zeros((0, 3, 2, 2)))
    none, lane = np.zeros(0), np.zeros(0, int)
    optima = em.Optima(nothing, none, none, lane, none.astype(bool), none.astype(object), lane, np.full(4, -1))
    rows = rows_of(optima, np.array([5, 5, 6, 1]), x)
    assert [(row["reason"], row["count"]) for row in rows] == [
        ("no optimum: lost when polished", 1),
        ("no optimum: COLLAPSED", 2),
        ("no optimum: NON_FINITE", 1),
    ]
    assert len(table(rows).rows) == 3
    assert curvature(optima, x, SPEC) == []


@pytest.mark.slow
def test_polished_optima_are_stationary_fewer_and_no_lower(stopped, x):
    """At a stationary point Newton's next step gains nothing; each lane ends at least as high as it was stopped."""
    ends = polished(jax.random.key(1), x, SPEC, stopped)
    assert 0 < ends.count.size < stopped.optima.count.size
    assert ends.count.sum() == np.sum(ends.of_fit >= 0)
    reached = ends.of_fit >= 0
    gain = ends.log_likelihood[ends.of_fit[reached]] - stopped.fits.log_likelihood[reached]
    assert gain.min() > -1e-6
    for m, lane in enumerate(ends.fit):
        assert ends.of_fit[lane] == m
    kinds = set(curvature(ends, x, SPEC))
    assert "maximum" in kinds
    assert "NOT_STATIONARY" not in kinds


def test_the_table_says_how_many_are_left_out(rows):
    shown = table(rows, most=1)
    n_optima = sum(row["optimum"] is not None for row in rows)
    assert shown.rows[1][0] == f"{n_optima - 1} more"
    assert sum(int(line[3]) for line in shown.rows) == N_STARTS
