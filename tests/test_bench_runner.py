"""Trials and grids: failures are rows, the seed decides the data, what is finished is never run again."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from gmm_jax import GMM, Fit, NotSupported, Status, problems
from gmm_jax.bench import Grid, compare, methods, provenance, runner, store
from gmm_jax.bench.provenance import read_provenance
from gmm_jax.bench.runner import Cell, run, run_grid

TRUTH = problems.load("course_2d").truth
SMALL = {"problem": "course_2d", "n": 60}


@pytest.fixture
def stub(monkeypatch):
    """Replaces a method's function: stub("em", function)."""
    real = methods.load

    made = {}

    def load(name):
        return methods.Method(name, "", {"value": 0.0}, made[name]) if name in made else real(name)

    def replace(name, function):
        monkeypatch.setattr(methods, "load", load)
        made[name] = function

    return replace


def truth_itself(key, x, spec, *, value=0.0):
    return Fit(TRUTH, None, None, Status.CONVERGED, {"seen": float(x.sum())})


def raising(error):
    def fit(key, x, spec, *, value=0.0):
        raise error

    return fit


# ---- one trial


def test_a_row_holds_problem_answer_and_time():
    trial = run(Cell(**SMALL, method="em", options=(("n_restarts", 4),)))
    row = trial.row
    head = {"problem": "course_2d", "case": "Case II", "method": "em", "seed": 0, "n_samples": 60}
    assert head.items() <= row.items()
    assert row["status"] == "CONVERGED"
    assert row["reason"] == ""
    assert json.loads(row["options"]) == {"n_restarts": 4}
    parts = sum(row[f"seconds_{part}"] for part in ("trace", "compile", "run"))
    assert math.isclose(row["seconds"], parts, rel_tol=1e-9)
    assert row["log_likelihood"] == pytest.approx(row["n_samples"] * np.mean(oracle_log_prob(trial.fit.point, trial.x)))
    np.testing.assert_array_equal(store.mixture_of(row["truth"]).means, TRUTH.means)
    np.testing.assert_array_equal(store.mixture_of(row["estimate"]).means, trial.fit.point.means)


def oracle_log_prob(gmm, x):
    import oracles
    from conftest import as_tuple

    return oracles.log_prob(as_tuple(gmm), x)


def test_what_a_method_raises_is_a_row(stub):
    stub("em", raising(RuntimeError("out of luck")))
    row = run(Cell(**SMALL)).row
    assert (row["status"], row["reason"]) == ("FAILED", "RuntimeError: out of luck")
    assert "kl" not in row
    stub("em", raising(NotSupported("cannot")))
    assert (run(Cell(**SMALL)).row["status"], run(Cell(**SMALL)).row["reason"]) == ("NOT_SUPPORTED", "cannot")


def test_ctrl_c_is_no_failure(stub):
    stub("em", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(Cell(**SMALL))


def test_nan_is_never_a_success(stub):
    broken = GMM(TRUTH.weights, TRUTH.means * np.nan, TRUTH.covariances)
    stub("em", lambda key, x, spec, *, value=0.0: Fit(broken, None, None, Status.CONVERGED, {}))
    row = run(Cell(**SMALL)).row
    assert row["status"] == "NON_FINITE"
    assert "not finite" in row["reason"]
    assert math.isnan(row["kl"])


def test_an_answer_of_another_shape_is_a_failed_row(stub):
    flat = GMM(np.ones(1), np.zeros((1, 3)), np.eye(3)[None])
    stub("em", lambda key, x, spec, *, value=0.0: Fit(flat, None, None, Status.CONVERGED, {}))
    assert run(Cell(**SMALL)).row["status"] == "FAILED"


def test_a_methods_info_cannot_change_the_judgement(stub):
    info = {"kl": 0.0, "status": "CONVERGED", "own": 1.5, "commit": "another", "made": "never", "device": "a dream"}
    wrong = GMM(TRUTH.weights, TRUTH.means + 1.0, TRUTH.covariances)
    stub("em", lambda key, x, spec, *, value=0.0: Fit(wrong, None, None, Status.MAX_ITER, info))
    row = run(Cell(**SMALL)).row
    assert row["kl"] > 0.1
    assert row["status"] == "MAX_ITER"
    assert row["own"] == 1.5
    assert (row["commit"], row["device"]) == (provenance.commit(), provenance.device())
    assert row["made"] != "never"


def test_all_methods_see_the_same_data_and_seeds_differ(stub):
    for name in ("em", "gibbs"):
        stub(name, truth_itself)
    seen = {(m, s): run(Cell(**SMALL, method=m, seed=s)).row["seen"] for m in ("em", "gibbs") for s in (0, 1)}
    assert seen["em", 0] == seen["gibbs", 0] != seen["em", 1] == seen["gibbs", 1]
    case_one = run(Cell(**SMALL, known=("weights", "covariances"))).row
    assert case_one["case"] == "Case I"
    assert case_one["seen"] == seen["em", 0]


def test_same_cell_same_row():
    options = {"n_chains": 2, "n_draws": 250, "n_restarts": 4, "n_warmup": 200}
    rows = [run(Cell(**SMALL, method="gibbs", options=tuple(options.items()))).row for _ in range(2)]
    assert told(rows[:1]) == told(rows[1:])


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ({"problem": "course2d"}, "course_2d"),
        ({"method": "emm"}, "did you mean 'em'"),
        ({"options": (("n_restart", 3),)}, "did you mean 'n_restarts'"),
        ({"known": ("weigths",)}, "knowing takes any of"),
        ({"counts": "random"}, "counts must be"),
        ({"n": 0}, "n must be"),
    ],
)
def test_a_cell_that_cannot_be_run_is_a_sentence_not_a_row(cell, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(Cell(**SMALL | cell))


# ---- a grid


def cells(seeds=3):
    return [Cell(**SMALL, seed=seed) for seed in range(seeds)]


def counting(calls, fail_at=None):
    def fit(key, x, spec, *, value=0.0):
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        calls.append(1)
        return truth_itself(key, x, spec)

    return fit


def test_a_finished_cell_is_not_run_again(stub, tmp_path):
    calls = []
    stub("em", counting(calls))
    first = run_grid("grid", cells(2), results=tmp_path)
    again = run_grid("grid", cells(3), results=tmp_path)
    assert len(calls) == 3
    assert store.plain(first) == store.plain(again[:2])
    assert [row["seed"] for row in store.read_rows(tmp_path / "grid")] == [0, 1, 2]


def test_trials_of_other_source_are_kept_and_told(stub, tmp_path, monkeypatch):
    calls = []
    stub("em", counting(calls))
    with monkeypatch.context() as patch:
        patch.setattr(store, "source", lambda: "another")
        run_grid("grid", cells(2), results=tmp_path)
    with pytest.warns(UserWarning, match="2 of 3 trials in .* were made by other source"):
        run_grid("grid", cells(3), results=tmp_path)
    assert len(calls) == 3


def test_large_mixtures_stay_in_their_cells(stub, tmp_path):
    def wide(key, x, spec):
        n_features = 70
        fit = truth_itself(key, x, spec)
        means, covariances = np.zeros((2, n_features)), np.broadcast_to(np.eye(n_features), (2, n_features, n_features))
        return fit._replace(standard_errors=GMM(fit.point.weights, means, np.pi * covariances))

    stub("em", wide)
    run_grid("grid", cells(1), results=tmp_path)
    (path,), (told,) = (tmp_path / "grid" / "cells").iterdir(), store.read_rows(tmp_path / "grid")
    kept = store.read_cell(path)["row"]
    assert np.shape(kept["standard_errors"]["covariances"]) == (2, 70, 70)
    assert told["standard_errors"] is None
    assert told["estimate"] == kept["estimate"]


def test_ctrl_c_keeps_what_is_finished(stub, tmp_path):
    calls = []
    stub("em", counting(calls, fail_at=2))
    with pytest.raises(KeyboardInterrupt):
        run_grid("grid", cells(), results=tmp_path)
    assert [row["seed"] for row in store.read_rows(tmp_path / "grid")] == [0, 1]
    stub("em", counting(calls))
    rows = run_grid("grid", cells(), results=tmp_path, answer=lambda rows: f"{len(rows)} rows")
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert len(calls) == 3
    assert [each["answer"] for each in read_provenance(tmp_path / "grid")] == [None, "3 rows"]


def test_an_interrupted_extension_loses_no_finished_row(stub, tmp_path):
    """All seeds of one method are on disk; a second method, interleaved with it, is interrupted at its first cell."""
    stub("em", truth_itself)
    run_grid("grid", cells(), results=tmp_path)
    stub("gibbs", raising(KeyboardInterrupt()))
    both = [Cell(**SMALL, seed=seed, method=method) for seed in range(3) for method in ("gibbs", "em")]
    with pytest.raises(KeyboardInterrupt):
        run_grid("grid", both, results=tmp_path)
    assert [row["method"] for row in store.read_rows(tmp_path / "grid")] == ["em"] * 3


def test_a_damaged_cell_is_named_and_nothing_is_touched(stub, tmp_path):
    stub("em", truth_itself)
    run_grid("grid", cells(), results=tmp_path)
    damaged = sorted((tmp_path / "grid" / "cells").iterdir())[0]
    damaged.write_text(damaged.read_text().replace("course_2d", "course_3d", 1))
    before = {path: path.read_bytes() for path in (tmp_path / "grid").rglob("*") if path.is_file()}
    with pytest.raises(store.UnreadableResult, match=damaged.name):
        run_grid("grid", cells(4), results=tmp_path)
    assert before == {path: path.read_bytes() for path in (tmp_path / "grid").rglob("*") if path.is_file()}


# ---- equal cells together


def together(calls, raising_at=None):
    """A method with a fit_many that records how many data sets it sees."""

    def fit_many(keys, xs, spec, *, value=0.0):
        calls.append(len(xs))
        if raising_at is not None:
            raise RuntimeError("all at once is too much")
        return [truth_itself(key, x, spec) for key, x in zip(keys, xs, strict=True)]

    return fit_many


@pytest.fixture
def with_many(monkeypatch):
    def replace(fit, many):
        method = methods.Method("em", "", {"value": 0.0}, fit, many)
        monkeypatch.setattr(methods, "load", lambda name: method)

    return replace


def told(rows):
    differ = ("together", "made")
    return [{name: v for name, v in row.items() if "seconds" not in name and name not in differ} for row in rows]


def test_cells_that_differ_in_their_seeds_are_fitted_together(with_many, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "TOGETHER", 3)
    calls = []
    with_many(truth_itself, together(calls))
    rows = run_grid("grid", cells(5), results=tmp_path)
    assert calls == [3, 2]
    assert [row["seed"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["together"] for row in rows] == [3, 3, 3, 2, 2]
    assert told(rows) == told([run(cell).row for cell in cells(5)])
    run_grid("grid", cells(6), results=tmp_path)
    assert calls == [3, 2]  # one cell is left, and is run alone


def test_where_together_fails_each_has_its_own_row(with_many, tmp_path):
    calls = []
    with_many(truth_itself, together(calls, raising_at=0))
    rows = run_grid("grid", cells(3), results=tmp_path)
    assert calls == [3]
    assert [(row["status"], row["together"]) for row in rows] == [("CONVERGED", 1)] * 3


@pytest.mark.slow
def test_em_together_gives_the_rows_of_em_alone(tmp_path):
    many = [Cell(**SMALL, seed=seed, options=(("n_restarts", 4),)) for seed in range(3)]
    rows, alone = run_grid("grid", many, results=tmp_path), [run(cell).row for cell in many]
    assert [row["together"] for row in rows] == [3, 3, 3]
    for one, other in zip(told(rows), told(alone), strict=True):
        assert one.keys() == other.keys()
        for name in ("status", "n_optima", "n_failed", "start", "message"):
            assert one[name] == other[name]
        for name in ("log_likelihood", "kl", "means_error"):
            assert one[name] == pytest.approx(other[name], rel=1e-6)


# ---- compare


SMALL_GRID = Grid(methods=("em",), n=(60,), seeds=1)


def test_exit_codes_of_compare(stub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "write_report", lambda folder: folder / "report.html")
    stub("em", truth_itself)
    assert compare.compare("good", SMALL_GRID, results=tmp_path) == 0
    stub("em", raising(RuntimeError("no")))
    assert compare.compare("bad", SMALL_GRID, results=tmp_path) == 3
    stub("em", raising(NotSupported("no")))
    assert compare.compare("unsupported", SMALL_GRID, results=tmp_path) == 0
    assert "0/1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"problems": ("course2d",)}, "course_2d"),
        ({"methods": ("emm",)}, "did you mean 'em'"),
        ({"option": ("em.n_restart=1",)}, "did you mean 'n_restarts'"),
        ({"option": ("em.n_restarts=x",)}, "takes a whole number"),
        ({"known": ("weigths",)}, "knowing takes any of"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"n": (0,)}, "n must be at least 1"),
        ({"name": "../up"}, "name of results"),
    ],
)
def test_what_cannot_be_compared_leaves_the_disk_as_it_was(tmp_path, change, sentence):
    name = change.pop("name", "n")
    with pytest.raises(ValueError, match=sentence):
        compare.compare(name, replace(SMALL_GRID, **change), results=tmp_path / "results")
    assert list(tmp_path.iterdir()) == []


def test_the_order_of_what_is_known_and_doubles_do_not_matter(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "write_report", lambda folder: folder / "report.html")
    calls = []
    stub("em", counting(calls))
    for known in (("weights", "covariances"), ("covariances", "weights", "weights")):
        grid = replace(SMALL_GRID, problems=("course_2d", "course_2d"), known=known)
        compare.compare("n", grid, results=tmp_path)
    assert len(calls) == 1
    assert [row["case"] for row in store.read_rows(tmp_path / "n")] == ["Case I"]


def test_the_data_do_not_depend_on_what_else_is_run():
    first, second = (runner.derive_key(0, *names) for names in (("data", "a"), ("data", "b")))
    assert first != second
    assert runner.derive_key(0, "data", "a") == first
