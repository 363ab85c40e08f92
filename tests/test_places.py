"""One fit wherever its rows lie: in memory, in blocks, on the devices of one or many processes, on a Dask cluster.

Processes are real ones of jax.distributed on loopback, started as JAX documents it.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import process_program
from gmm_jax import MixtureSpec
from gmm_jax.em import EMConfig, Interrupted, fit_em_restarts

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
LIMIT = 300  # seconds for all processes of a test; on a quiet machine they take less than 40
KEY = jax.random.key(3)


def in_memory(name):
    spec, options = process_program.cases()[name]
    return fit_em_restarts(KEY, process_program.rows(name), spec, n_restarts=3, **options).fits


def assert_as_in_memory(name, here, there):
    """tol = 0: parameters to 1e-10; else iterations ± 1 and the mean log-likelihood within the tolerance."""
    n_samples = process_program.N_SAMPLES
    if name in ("tolerance", "accelerated"):
        assert np.abs(here["n_iter"] - there.n_iter).max() <= 1, name
        np.testing.assert_allclose(here["log_likelihood"] / n_samples, there.log_likelihood / n_samples, atol=1e-7)
        return
    rtol = 1e-3 if name == "float32" else 1e-10
    for leaf in ("weights", "means", "covariances"):
        np.testing.assert_allclose(here[leaf], getattr(there.gmm, leaf), rtol=rtol, atol=rtol, err_msg=f"{name}/{leaf}")


def leaves_of(fits):
    return fits.gmm.__dict__ | fits._asdict()


# ---- on devices


def run_processes(folder, n_processes, names, *, devices=False):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = 0 if devices else probe.getsockname()[1]
    program = [sys.executable, REPOSITORY / "tests" / "process_program.py", folder, port, n_processes]
    numbers = [0] if devices else range(n_processes)
    started = [
        subprocess.Popen([*map(str, program), str(i), *names], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        for i in numbers
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
    return [dict(np.load(folder / f"{i}.npz")) for i in numbers]


@pytest.mark.parametrize(
    ("n_processes", "names", "devices"),
    [
        (2, ["full", "labels"], False),
        pytest.param(3, ["diag", "known", "tolerance"], False, marks=pytest.mark.slow),
        pytest.param(3, list(process_program.cases()), True, marks=pytest.mark.slow),
    ],
    ids=["2 processes", "3 processes", "3 devices"],
)
def test_a_sharded_array_is_fitted_as_one_in_memory(tmp_path, n_processes, names, devices):
    found = run_processes(tmp_path, n_processes, names, devices=devices)
    for other in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)  # to the last bit
    for name in names:
        here = {leaf: found[0][f"{name}/{leaf}"] for leaf in leaves_of(in_memory(name)) if f"{name}/{leaf}" in found[0]}
        assert_as_in_memory(name, here, in_memory(name))
    broken, other_key = found[0]["sentences"]
    if not devices:
        assert broken.startswith(f"process {n_processes - 1}: x from row ")
        assert "must be finite" in broken
        assert other_key.startswith("key, spec or options differ between processes")


# ---- on a cluster


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        yield client


def dask_array(x, n_rows=300):
    return pytest.importorskip("dask.array").from_array(x, chunks=(n_rows, -1))


@pytest.mark.parametrize(
    "name", ["full", "labels", *(pytest.param(n, marks=pytest.mark.slow) for n in ("diag", "known", "float32"))]
)
def test_a_dask_array_is_fitted_as_one_in_memory(name):
    """By threads of this process, where there is no cluster."""
    spec, options = process_program.cases()[name]
    here = fit_em_restarts(KEY, dask_array(process_program.rows(name)), spec, n_restarts=3, **options).fits
    assert_as_in_memory(name, leaves_of(here), in_memory(name))


def test_a_data_frame_of_dask_is_one_too():
    frames, pandas = pytest.importorskip("dask.dataframe"), pytest.importorskip("pandas")
    x = process_program.rows("full")
    frame = frames.from_pandas(pandas.DataFrame(x, columns=["a", "b"]), npartitions=3)
    spec, options = process_program.cases()["full"]
    here = fit_em_restarts(KEY, frame, spec, n_restarts=3, **options).fits
    assert_as_in_memory("full", leaves_of(here), in_memory("full"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_is_killed_costs_a_recomputation(cluster):
    spec, options = process_program.cases()["full"]
    pids = list(cluster.run(os.getpid).values())
    calls = []

    def kill(*_):
        calls.append(_)
        if len(calls) == 1:
            os.kill(pids[0], 9)

    x = dask_array(process_program.rows("full"))
    here = fit_em_restarts(KEY, x, spec, n_restarts=3, progress=kill, **options).fits
    assert calls
    assert_as_in_memory("full", leaves_of(here), in_memory("full"))


def test_bad_rows_are_named_wherever_they_lie():
    x = process_program.rows("full")
    broken = np.where(np.arange(len(x))[:, None] == 700, np.nan, x)
    with pytest.raises(ValueError, match=r"x from row 600 on must be finite; .* row 100, column 0"):
        fit_em_restarts(KEY, dask_array(broken), MixtureSpec(2))
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(1008,\)"):
        fit_em_restarts(KEY, dask_array(x), MixtureSpec(2), sample_weight=np.ones(5))
    with pytest.raises(ValueError, match="labels must be integers from 0"):
        fit_em_restarts(KEY, dask_array(x), MixtureSpec(2), labels=np.full(len(x), 2))


def test_a_fit_on_partitions_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("gmm_jax.em.sums.SECONDS_BETWEEN_LOOKS", 0.0)
    x, file = dask_array(process_program.rows("full")), tmp_path / "fit.npz"
    options = {"n_restarts": 2, "config": EMConfig(max_iter=12, tol=0.0)}
    whole, calls = fit_em_restarts(KEY, x, MixtureSpec(2), **options), []

    def leave(*_):
        calls.append(_)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        fit_em_restarts(KEY, x, MixtureSpec(2), checkpoint=file, progress=leave, **options)
    again = fit_em_restarts(KEY, x, MixtureSpec(2), checkpoint=file, resume=True, **options)
    np.testing.assert_array_equal(again.fits.log_likelihood, whole.fits.log_likelihood)
    with pytest.raises(ValueError, match="belongs to another fit, whose data were different"):
        fit_em_restarts(KEY, x + 1.0, MixtureSpec(2), checkpoint=file, resume=True, **options)
