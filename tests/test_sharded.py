"""EM over devices and over processes: the same numbers as in one memory, whatever becomes of a rank.

Ranks are real processes of jax.distributed on loopback, each under the launcher's watch, so that no test can hang.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import rank_program
from gmm_jax import MixtureSpec
from gmm_jax.bench.ranks import fit_ranks
from gmm_jax.em import EMConfig, Interrupted, fit_em_restarts, fit_em_sharded, local_rows, mesh_of, sharded

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
LIMIT = "400"  # seconds for all ranks of a test; on a quiet machine they take less than 40
SHELL = [sys.executable, "-m", "gmm_jax"]


def run(command, **options):
    return subprocess.run(
        [str(part) for part in command], env=ENVIRONMENT, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, rank_program.data()[0])
    return path


FIT = {"n_restarts": 2, "config": EMConfig(max_iter=50, tol=0.0)}


@pytest.fixture(scope="module")
def in_memory():
    return fit_em_restarts(jax.random.key(0), rank_program.data()[0], MixtureSpec(2), **FIT)


# ---- one process


def test_one_device_is_fit_em_restarts(in_memory):
    here = fit_em_sharded(jax.random.key(0), rank_program.data()[0], MixtureSpec(2), **FIT)
    assert_same_lanes(here.fits, in_memory.fits, rtol=1e-10)
    assert here.message == in_memory.message
    np.testing.assert_array_equal(here.optima.count, in_memory.optima.count)


def test_labels_are_for_one_device_what_they_are_in_memory():
    x, weight = rank_program.data()
    labels = np.where(np.arange(len(x)) % 9 == 0, np.arange(len(x)) % 2, -1)  # any two of three classes
    options = {"labels": labels, "sample_weight": weight, "n_restarts": 3, "config": EMConfig(max_iter=30, tol=0.0)}
    here, there = (fit(jax.random.key(0), x, MixtureSpec(3), **options) for fit in (fit_em_sharded, fit_em_restarts))
    assert_same_lanes(here.fits, there.fits, rtol=1e-10)
    np.testing.assert_array_equal(here.optima.of_fit, there.optima.of_fit)
    with pytest.raises(ValueError, match="labels must be integers from 0"):
        fit_em_sharded(jax.random.key(0), x, MixtureSpec(2), labels=labels + 2)


def test_a_fit_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("gmm_jax.em.sharded.LOOK", 1)  # so that the host looks after every iteration
    x = rank_program.data()[0]
    whole = fit_em_sharded(jax.random.key(0), x, MixtureSpec(2), **FIT)
    file, calls = tmp_path / "fit.npz", []

    def leave(*_):
        calls.append(_)
        if len(calls) == 7:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as left:
        fit_em_sharded(jax.random.key(0), x, MixtureSpec(2), checkpoint=file, progress=leave, **FIT)
    assert left.value.restarts.best.n_iter == 7
    keep = {"checkpoint": file, "resume": True}
    again = fit_em_sharded(jax.random.key(0), x, MixtureSpec(2), progress=leave, **keep, **FIT)
    assert len(calls) == 50  # no iteration was taken twice
    assert_same_lanes(again.fits, whole.fits, rtol=0.0)
    with pytest.raises(ValueError, match="belongs to another fit, whose data were different"):
        fit_em_sharded(jax.random.key(0), x + 1.0, MixtureSpec(2), **keep, **FIT)
    with pytest.raises(ValueError, match="is there already"):
        fit_em_sharded(jax.random.key(0), x, MixtureSpec(2), checkpoint=file, **FIT)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match="is no whole checkpoint"):
        fit_em_sharded(jax.random.key(0), x, MixtureSpec(2), **keep, **FIT)


def test_a_rank_alone_holds_all_rows_and_a_mesh_must_have_all_devices():
    assert local_rows(1003) == slice(0, 1003)
    with pytest.raises(ValueError, match="n_groups=2 does not divide the 1 devices"):
        mesh_of(2)
    with pytest.raises(ValueError, match="mesh must have the axes"):
        fit_em_sharded(jax.random.key(0), np.zeros((5, 2)), MixtureSpec(1), mesh=jax.make_mesh((1,), ("x",)))


def test_an_iteration_adds_over_the_devices_once(monkeypatch):
    """And once before all, for the number of samples."""
    seen = []
    keep = sharded._advance
    monkeypatch.setattr(sharded, "_advance", lambda *a, **k: (seen.append(keep.lower(*a, **k)), keep(*a, **k))[1])
    fit_em_sharded(jax.random.key(0), rank_program.data()[0], MixtureSpec(2), **FIT)
    assert seen[0].as_text().count("stablehlo.all_reduce") == 2


def test_a_file_that_is_cut_off_is_named(tmp_path, table):
    damaged = tmp_path / "cut.npy"
    damaged.write_bytes(table.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"cut\.npy is no whole \.npy file"):
        fit_ranks(damaged, n_components=2)
    with pytest.raises(ValueError, match=r"none.npy: No such file"):
        fit_ranks(tmp_path / "none.npy", n_components=2)


@pytest.mark.parametrize(
    ("x", "options", "sentence"),
    [
        (np.ones((2, 2)), {}, "n_components=3 is more than the 2 rows of x on all ranks"),
        (np.ones((9, 2)), {"sample_weight": np.zeros(9)}, "n_components=3 is more than the 0 rows"),
        (np.full((9, 2), np.inf), {}, "^x must be finite"),
        (np.ones((9, 2)), {"n_restarts": 0}, "^n_restarts must be an integer"),
    ],
)
def test_bad_input_is_one_sentence(x, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_em_sharded(jax.random.key(0), x, MixtureSpec(3), **options)


# ---- many processes


def test_two_ranks_find_what_one_memory_finds(table, in_memory):
    """The whole way, through the shell: rows by memory map, one document on stdout, and the watch."""
    options = ["--option", "n_restarts=2", "max_iter=50", "tol=0"]
    done = run([*SHELL, "launch", "-n", "2", "--timeout", LIMIT, "--", "fit", table, "-k", "2", "--json", *options])
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    there = in_memory.best
    assert answer["info"]["n_ranks"] == 2
    assert answer["info"]["n_iter"] == there.n_iter
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(answer["estimate"][name], getattr(there.gmm, name), rtol=1e-10)
    np.testing.assert_allclose(answer["log_likelihood"], there.log_likelihood, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_ranks", "n_groups", "n_devices", "names"),
    [
        (2, 1, 0, ["full", "known", "tolerance"]),
        (3, 1, 0, ["diag", "labels", "tolerance"]),
        (4, 1, 0, ["full", "tolerance"]),
        (4, 2, 0, ["spherical", "tolerance"]),
        (1, 1, 3, list(rank_program.cases())),
        (1, 2, 4, list(rank_program.cases())),
    ],
    ids=["2 ranks", "3 ranks", "4 ranks", "2 by 2 ranks", "3 devices", "2 by 2 devices"],
)
def test_every_case_is_what_it_is_in_one_memory(tmp_path, n_ranks, n_groups, n_devices, names):
    program = [sys.executable, REPOSITORY / "tests" / "rank_program.py", tmp_path, n_groups, n_devices, *names]
    watched = [] if n_devices else [*SHELL, "launch", "-n", n_ranks, "--timeout", LIMIT, "--"]
    start = time.monotonic()
    done = run([*watched, *program], timeout=600)
    assert done.returncode == 0, done.stderr
    print(f"{n_ranks} ranks, {n_devices} devices: {time.monotonic() - start:.1f} s")
    found = [dict(np.load(path)) for path in sorted(tmp_path.glob("rank*.npz"))]
    assert len(found) == n_ranks
    for other in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)  # to the last bit
    for name in names:
        spec, options = rank_program.cases()[name]
        there = fit_em_restarts(jax.random.key(3), rank_program.rows(name), spec, n_restarts=3, **options).fits
        assert_as_in_memory(name, found[0], there, N=rank_program.N_SAMPLES)
    broken, other_key = found[0]["sentences"]
    if n_ranks > 1:
        assert broken.startswith("rank 1: x must be finite; 2 of")
        assert other_key.startswith("rank 1 has another key than rank 0")


def assert_as_in_memory(name, found, there, N):
    """tol = 0: parameters to 1e-10; else iterations ± 1 and the mean log-likelihood within the tolerance."""
    here = {leaf: found[f"{name}/{leaf}"] for leaf in ("weights", "means", "covariances", "n_iter", "log_likelihood")}
    if name in ("tolerance", "accelerated"):
        assert np.abs(here["n_iter"] - there.n_iter).max() <= 1, name
        np.testing.assert_allclose(here["log_likelihood"] / N, there.log_likelihood / N, rtol=0.0, atol=1e-7)
        return
    rtol = 1e-3 if name == "float32" else 1e-10
    for leaf in ("weights", "means", "covariances"):
        np.testing.assert_allclose(here[leaf], getattr(there.gmm, leaf), rtol=rtol, atol=rtol, err_msg=f"{name}/{leaf}")


def assert_same_lanes(here, there, rtol):
    for leaf in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(here.gmm, leaf), getattr(there.gmm, leaf), rtol=rtol, atol=0.0)
    np.testing.assert_array_equal(here.n_iter, there.n_iter)
    np.testing.assert_array_equal(here.status, there.status)
    np.testing.assert_allclose(here.trace, there.trace, rtol=max(rtol, 1e-15))


@pytest.mark.slow
def test_ranks_find_each_other_under_slurm(table):
    """SLURM as JAX knows it, by its environment."""
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    command = [*SHELL, "fit", str(table), "-k", "3", "--distributed", "--json", "--option", "n_restarts=1"]
    ranks = []
    for rank in "01":
        place = ENVIRONMENT | slurm | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        ranks.append(subprocess.Popen(command, env=place, stdout=subprocess.PIPE, text=True))
    try:
        said = [rank.communicate(timeout=200)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert json.loads(said[0])["info"]["n_ranks"] == 2
    assert said[1] == ""


# ---- a rank that fails


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fate", "said"), [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "is stopped (SIGSTOP)")]
)
def test_a_rank_that_dies_or_stops_is_named_and_its_checkpoint_goes_on(tmp_path, table, fate, said):
    file = tmp_path / "fit.npz"
    fit = [
        "fit",
        table,
        "-k",
        "3",
        "--json",
        "--checkpoint",
        file,
        "--option",
        "n_restarts=1",
        "tol=0",
        "max_iter=3000",
    ]
    command = [*SHELL, "launch", "--timeout", LIMIT, "--silence", "5", "--", *fit]
    with subprocess.Popen(
        [str(part) for part in command], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            versions = set()
            _when(lambda: versions.update([file.stat().st_ino] if file.exists() else []) or len(versions) > 2)
            groups = _ranks_of(process.pid)  # in the middle of the fit
            os.kill(groups[1], fate)
            assert process.wait(60) == 1
            message = process.stderr.read()
        finally:
            process.kill()
    assert f"rank 1 (process {groups[1]}) {said}" in message
    for group in groups:
        with pytest.raises(ProcessLookupError):
            os.killpg(group, 0)
    went_on = run([*command, "--resume"])
    assert went_on.returncode == 0, went_on.stderr
    file.unlink()
    whole = run(command)
    assert json.loads(went_on.stdout)["estimate"] == json.loads(whole.stdout)["estimate"]


@pytest.mark.slow
def test_a_rank_whose_coordinator_never_comes_says_so(tmp_path, table):
    """Rank 1 of 2, and nobody listens where rank 0 should be."""
    program = (
        "import os, sys; hears, says = os.pipe(); os.environ['GMM_JAX_RANK'] = f'1 2 127.0.0.1:9 5 {says} '; "
        "from gmm_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    start = time.monotonic()
    done = run([sys.executable, "-c", program, "fit", table, "--distributed"], timeout=100)
    assert time.monotonic() - start < 40.0
    assert done.returncode == 2
    assert "rank 1: the coordinator, rank 0 at 127.0.0.1:9, did not come within 5 s" in done.stderr


def _when(there, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def _ranks_of(launcher):
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [int(child) for child in children]
