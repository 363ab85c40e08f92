"""Sweeps survive anything: killed at any moment, methods that raise, hang, die or answer NaN, one process or two.

Processes are tried with arithmetic, and whole trials on them, which compile in each, in a slow test; where kills are
many, processes are forked from one that has imported everything and computed nothing.
"""

import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gmm_jax.bench import Grid, compare, runner, store, workers
from gmm_jax.bench.runner import Cell, How, run_grid
from gmm_jax.bench.workers import Lost
from gmm_jax.shell import configure_jax
from shared.workers import alone, answers

SMALL = {"problem": "well_separated", "n": 60}
GOOD = [Cell(**SMALL, method="cheap_methods:split", seed=seed) for seed in range(3)]
MISHAPS = {
    "raises": "RuntimeError: out <b>of</b> luck",
    "gives_nan": "the log-likelihood is not finite; check the start and the scale of the data",
    "hangs": "took longer than 90 s",
    "dies": "its process ended with code -9",
}
BAD = [Cell(**SMALL, method=f"cheap_methods:{name}") for name in MISHAPS]


def told(rows):
    """Without what differs from run to run: seconds and the time."""
    return [{n: value for n, value in row.items() if "seconds" not in n and n != "made"} for row in store.plain(rows)]


def cells_of(folder):
    """Rows of all trials on disk; a damaged one raises."""
    return [store.read_cell(path)["row"] for path in sorted((folder / "cells").glob("*.json"))]


def square(number):
    """Work that dies of 3, never ends with 5 and fails with 7."""
    if number == 7:
        raise ArithmeticError("no seven")
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        time.sleep(3600.0)
    return number**2


def test_a_process_that_dies_or_hangs_and_a_job_that_fails_cost_one_job():
    jobs = [1, 3, 5, 7, 2]
    found = dict(workers.in_processes(square, jobs, 2, timeout=1.0))
    lost = {3: Lost("its process ended with code -9"), 5: Lost("took longer than 1 s")}
    lost[7] = Lost("ArithmeticError: no seven")
    assert found == {place: lost.get(number, number**2) for place, number in enumerate(jobs)}
    assert not multiprocessing.active_children()


def test_no_more_processes_than_jobs(monkeypatch):
    import pebble

    sizes, real = [], pebble.ProcessPool
    monkeypatch.setattr(pebble, "ProcessPool", lambda n, **more: sizes.append(n) or real(n, **more))
    assert list(workers.in_processes(square, [], 4)) == []
    assert list(workers.in_processes(square, [2], 4)) == [(0, 4)]
    assert sizes == [1, 1]


class Adds:
    """Work that keeps a sum, starts a process of its own when it is asked to add 0, and dies of 3."""

    total = 0

    def __call__(self, number):
        self.total += square(number)
        if number == 0:
            return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]).pid
        return self.total


def test_a_process_alone_keeps_what_it_knows_and_ends_with_all_that_it_has_started():
    with alone(Adds()) as ask:
        child = ask(0)
        assert [ask(1), ask(2)] == [1, 5]
        os.kill(child, 0)  # it lives
        assert ask(3, 60.0) == Lost("its process ended with code -9")
    deadline = time.monotonic() + 30.0
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not multiprocessing.active_children()


def alive(pid):
    """Whether it runs: one that has ended may wait for somebody to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_process_alone_that_dies_between_two_questions_is_lost_at_the_next():
    with alone(Adds()) as ask:
        assert ask(2) == 4
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        assert ask(2) == Lost("its process has ended")
    with alone(Adds(), prepare=leave) as ask:
        assert ask(2) == Lost("its process has ended")


@pytest.mark.slow
def test_a_process_alone_that_hangs_is_lost_in_time():
    with alone(Adds()) as ask:
        assert ask(5, 0.5) == Lost("took longer than 0.5 s")
        assert ask(2) == 4  # by a fresh process
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_who_asks_no_more_leaves_no_process_behind():
    coming = workers.in_processes(square, [1, 2, 5, 5], 2)
    next(coming)
    coming.close()
    assert not multiprocessing.active_children()


@pytest.fixture
def half_lost(monkeypatch):
    """Cells asked for, of which every second is lost."""
    asked = []

    def in_processes(work, cells, n_workers, **_):
        for place, cell in enumerate(cells):
            asked.append(cell)
            yield place, Lost("out of luck") if place % 2 else {"seed": cell.seed, "status": "CONVERGED"}

    monkeypatch.setattr(runner, "in_processes", in_processes)
    return asked


def test_what_was_lost_is_a_failed_row_and_is_tried_again(half_lost, tmp_path):
    rows = run_grid("sweep", GOOD, results=tmp_path, how=How(workers=2))
    assert [(row["seed"], row["status"]) for row in rows] == [(0, "CONVERGED"), (1, "FAILED"), (2, "CONVERGED")]
    assert rows[1]["reason"] == "out of luck"
    assert rows[1]["method"] == "cheap_methods:split"
    assert rows[1]["n_samples"] == 60
    assert [row["status"] for row in store.read_rows(tmp_path / "sweep")] == [row["status"] for row in rows]
    half_lost.clear()
    assert {row["status"] for row in run_grid("sweep", GOOD, results=tmp_path, how=How(timeout=1.0))} == {"CONVERGED"}
    assert half_lost == [GOOD[1]]


@pytest.mark.slow
def test_a_sweep_on_two_processes_gives_the_rows_of_one_and_a_row_for_every_mishap(tmp_path):
    how = How(workers=2, timeout=90.0, prepare=configure_jax)
    rows = run_grid("sweep", [*BAD, *GOOD], results=tmp_path, how=how)
    assert {row["method"].partition(":")[2]: row["reason"] for row in rows[: len(BAD)]} == MISHAPS
    assert {row["status"] for row in rows[: len(BAD)]} == {"FAILED", "NON_FINITE"}
    assert told(rows[len(BAD) :]) == told(run_grid("alone", GOOD, results=tmp_path))
    grid = Grid(("well_separated",), ("cheap_methods:dies",), n=(60,), seeds=1)
    assert compare.compare("bad", grid, results=tmp_path, how=how) == 3


@pytest.mark.slow
def test_a_process_that_cannot_start_is_an_error_at_once(tmp_path):
    with pytest.raises(RuntimeError, match="a worker process ended before it was ready"):
        run_grid("n", GOOD, results=tmp_path, how=How(workers=1, prepare=leave))


def leave():
    raise SystemExit(7)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [({"workers": -1}, "workers must not be negative"), ({"timeout": 0.0}, "timeout must be a positive number")],
)
def test_a_senseless_how_is_a_sentence(how, sentence):
    with pytest.raises(ValueError, match=sentence):
        How(**how)


def test_a_cluster_keeps_no_time():
    with pytest.raises(ValueError, match="a cluster keeps no time"):
        How(scheduler="local", timeout=1.0)


@pytest.mark.skipif(importlib.util.find_spec("distributed") is not None, reason="Dask is here")
def test_without_dask_a_scheduler_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"pip install 'gmm-jax\[cluster\]'"):
        run_grid("n", GOOD, results=tmp_path, how=How(scheduler="local"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_gives_the_rows_of_one(tmp_path):
    pytest.importorskip("distributed")
    cells = [*BAD[:2], *GOOD]
    here = run_grid("here", cells, results=tmp_path)
    on_cluster = run_grid("cluster", cells, results=tmp_path, how=How(scheduler="local", prepare=configure_jax))
    assert told(here) == told(on_cluster)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_of_a_cluster_killed_in_the_middle_costs_its_running_cells_only(tmp_path):
    """Dask runs them again on the other worker: every cell has a row, and what was on disk stays as it was."""
    distributed = pytest.importorskip("distributed")
    log = tmp_path / "log"
    options = (("log", str(log)),)
    cells = [Cell(**SMALL, method="cheap_methods:takes_a_second", options=options, seed=seed) for seed in range(12)]
    killed = {}

    def kill_who_works():
        while not killed:
            time.sleep(0.01)
            done = {path: path.read_bytes() for path in (tmp_path / "cluster" / "cells").glob("*.json")}
            if len(done) >= 4:
                killed.update(pid=int(log.read_text().split()[-1]), done=done)
                os.kill(killed["pid"], signal.SIGKILL)

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        threading.Thread(target=kill_who_works, daemon=True).start()
        how = How(scheduler=cluster.scheduler_address, prepare=configure_jax)
        rows = run_grid("cluster", cells, results=tmp_path, how=how)
    pids = log.read_text().split()
    assert [(row["seed"], row["status"]) for row in rows] == [(seed, "CONVERGED") for seed in range(12)]
    assert len(killed["done"]) < 12
    assert all(path.read_bytes() == content for path, content in killed["done"].items())
    # what it ran, and at most one whose answer had not been fetched from it
    assert 12 < len(pids) <= 12 + 2
    assert len(set(pids)) >= 2
    assert told(run_grid("cluster", cells, results=tmp_path)) == told(rows)
    assert log.read_text().split() == pids  # nothing was missing


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cell_that_kills_every_worker_of_a_cluster_is_a_failed_row_until_it_is_resumed(tmp_path):
    pytest.importorskip("distributed")
    there = tmp_path / "there"
    there.touch()
    cell = Cell(**SMALL, method="cheap_methods:dies_while", options=(("there", str(there)),))
    rows = run_grid("sweep", [cell, *GOOD], results=tmp_path, how=How(scheduler="local", prepare=configure_jax))
    assert [row["status"] for row in rows] == ["FAILED"] + ["CONVERGED"] * len(GOOD)
    assert rows[0]["reason"] == "the cluster lost it: KilledWorker"
    kept = {path: path.read_bytes() for path in (tmp_path / "sweep" / "cells").glob("*.json")}
    assert len(kept) == len(GOOD)
    there.unlink()
    again = run_grid("sweep", [cell, *GOOD], results=tmp_path)
    assert [row["status"] for row in again] == ["CONVERGED"] * 4
    assert told(again[1:]) == told(rows[1:])
    assert all(path.read_bytes() == content for path, content in kept.items())


# ---- killed at any moment

KILLS = """
import json, os, random, signal, sys, time
from dataclasses import asdict
from pathlib import Path
from gmm_jax.bench import compare, provenance, runner, store, workers

results, n_cells, n_kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cells = [runner.Cell("course_2d", method="oracle", seed=seed) for seed in range(n_cells)]
log = results / "calls"

def counted(cell):
    with open(log, "a") as file:
        file.write(f"{cell.seed}\\n")
    time.sleep(0.001)
    return runner.Trial({"seed": cell.seed, "value": cell.seed / 3}, None, None, None, None, None)

runner.run = counted
provenance.here = lambda: {}
provenance.commit()
provenance.device = lambda: "here"
paths = [store.cell_path(results / "sweep", asdict(cell) | {"schema": store.SCHEMA}) for cell in cells]
random.seed(0)

def calls_so_far():
    return len(log.read_text().split()) if log.exists() else 0

kills, before = 0, set()
while kills < n_kills:
    child = os.fork()
    if child == 0:
        runner.run_grid("sweep", cells, results=results)
        os._exit(0)
    # by cells and not by the clock, whatever else runs on the machine: some before the first, most between two
    enough, ended = calls_so_far() + random.randint(0, 3 * n_cells // (2 * n_kills)), 0
    while calls_so_far() < enough and not ended:
        ended = os.waitpid(child, os.WNOHANG)[0]
        time.sleep(0.0005)
    if not ended:
        time.sleep(random.uniform(0.0, 0.005))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    kills += 1
    now = {store.read_cell(path)["row"]["seed"] for path in (results / "sweep" / "cells").glob("*.json")}
    assert before <= now, "a finished cell was lost"
    before = now
calls = calls_so_far()
begin = time.perf_counter()
rows = runner.run_grid("sweep", cells, results=results)
made = calls_so_far() - calls
begin = time.perf_counter()
runner.run_grid("sweep", cells, results=results)
print(json.dumps({
    "finished_before": len(before), "made": made, "seeds": [row["seed"] for row in rows],
    "calls": calls + made, "again": calls_so_far() - calls - made, "seconds": time.perf_counter() - begin,
}))
"""


@pytest.mark.parametrize(("n_cells", "n_kills"), [(150, 15), pytest.param(1000, 100, marks=pytest.mark.slow)])
def test_a_sweep_killed_at_random_moments_loses_nothing_finished(n_cells, n_kills, tmp_path):
    arguments = [str(tmp_path), str(n_cells), str(n_kills)]
    program = [sys.executable, "-W", "ignore", "-c", KILLS, *arguments]
    done = subprocess.run(program, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seeds"] == list(range(n_cells))
    assert found["finished_before"] > 0
    assert found["made"] == n_cells - found["finished_before"]  # only what was missing
    assert found["calls"] <= n_cells + n_kills  # each kill costs the running cell at most
    assert found["again"] == 0
    assert found["seconds"] < 2.0


def test_answers_of_one_worker_come_from_this_process_and_a_lost_one_is_a_sentence():
    assert list(answers(lambda job: os.getpid() + job, [0, 1], 1)) == [os.getpid(), os.getpid() + 1]
    coming = answers(square, [2, 3], 2)
    with pytest.raises(RuntimeError, match="job 3: its process ended with code -9; run again, what was done is kept"):
        assert set(coming) <= {4}


def test_a_folder_that_refuses_writing_keeps_what_it_has(tmp_path, monkeypatch):
    """As a full disk or a read-only folder does: the file is named, the rest can still be read."""
    monkeypatch.setattr(runner, "run", lambda cell: runner.Trial({"seed": cell.seed}, *[None] * 5))
    run_grid("sweep", GOOD[:2], results=tmp_path)

    def refuse(source, target):
        raise OSError(30, "Read-only file system", str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="Read-only file system"):
        run_grid("sweep", GOOD, results=tmp_path)
    assert [row["seed"] for row in cells_of(tmp_path / "sweep")] in ([0, 1], [1, 0])
    assert not list((tmp_path / "sweep").rglob("*.tmp"))


def test_a_cell_of_a_later_schema_is_named(tmp_path):
    later = store.write_cell(tmp_path, {"seed": 1, "schema": store.SCHEMA + 1}, {"seed": 1})
    with pytest.raises(store.UnreadableResult, match=f"{later.name}.*newer gmm_jax"):
        store.read_cell(later)
