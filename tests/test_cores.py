"""Programs side by side: in the precision of who calls, whatever was compiled before and in whatever thread."""

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from conftest import assert_trees_close
from gmm_jax import MixtureSpec
from gmm_jax.em import fit_em_restarts
from gmm_jax.mixture.cores import in_batches


def test_fits_in_any_order_threads_and_precision_are_those_alone(x):
    def fit(wide):
        with jax.enable_x64(wide):
            return fit_em_restarts(jax.random.key(0), x, MixtureSpec(2), n_restarts=6).best

    alone = {wide: fit(wide) for wide in (True, False)}
    assert abs(alone[True].log_likelihood - alone[False].log_likelihood) > 0.0  # else nothing would be shown
    order = np.random.default_rng(0).random(25) < 0.5
    with ThreadPoolExecutor(5) as threads:
        together = list(threads.map(fit, order.tolist()))
    for wide, found in zip(order.tolist(), together, strict=True):
        assert_trees_close(found, alone[wide], rtol=0.0, atol=0.0)
    for wide in (False, True, False):
        assert_trees_close(fit(wide), alone[wide], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("n_rows", [1, 4, 8, 10])
def test_batches_answer_row_by_row_and_trace_the_function_once(n_rows):
    """Ten rows in batches of at most four are four, four and two to `lax.map`, which would be two programs."""
    rows, traced = {"a": np.arange(float(n_rows)), "b": np.ones((n_rows, 2))}, []

    def one(row):
        traced.append(row)
        return row["a"] + row["b"]

    found = jax.jit(lambda rows: in_batches(one, rows, 4))(rows)
    np.testing.assert_array_equal(found, rows["a"][:, None] + rows["b"])
    assert len(traced) == 1
