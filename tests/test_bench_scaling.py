"""Scaling over processes: a row has its times, and a run that fails is a row too."""

import pytest

from gmm_jax.bench.scaling import measure
from gmm_jax.shell import configure_jax, join_ranks

PREPARE = (configure_jax, join_ranks)


@pytest.mark.slow
@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_measurement_is_a_row(n_processes):
    row = measure(n_processes, 2001, prepare=PREPARE, n_features=2, n_components=2, n_iter=5)
    assert (row["status"], row["n_processes"], row["n_samples"]) == ("OK", n_processes, 2001)
    assert row["seconds_cold"] > row["seconds_iteration"]
    assert row["peak_bytes"] > 1e7


@pytest.mark.slow
def test_a_run_that_fails_is_a_row_with_a_reason():
    row = measure(2, 2001, prepare=PREPARE, n_components=3000, n_iter=5)
    assert row["status"] == "FAILED"
    assert "n_components=3000 is more than" in row["reason"]
