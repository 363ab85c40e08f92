"""Diff: no false alarm in 95 of 100, real losses are seen, and intervals say the same as Holm's p-values."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gmm_jax import GMM
from gmm_jax.bench import diff, store
from gmm_jax.bench.compare import report_folder
from gmm_jax.bench.grid import Grid
from gmm_jax.bench.runner import run_grid
from gmm_jax.cli import main

EVERY = diff.MARGINS


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """The shell sets jax.config; tests that follow must not see it."""
    monkeypatch.setattr("gmm_jax.cli.configure_jax", lambda: None)


def trials(rng, seeds, *, n_problems=10, worse=1.0, failing=0.1, data=0):
    """Rows as compare writes them: errors that are skew, have a part that belongs to the data, and local optima."""
    rows = []
    for problem in range(n_problems):
        for method in ("em", "gibbs"):
            for seed in seeds:
                of_data = np.random.default_rng([data, problem, seed]).lognormal(0.0, 0.5)
                failed = rng.random() < failing
                size = of_data * rng.lognormal(0.0, 0.1) * (8.0 if rng.random() < 0.05 else 1.0)
                row = {"problem": f"p{problem}", "case": "Case II", "method": method, "seed": seed, "n_samples": 100}
                row |= {"counts": "fixed", "options": "{}", "status": "FAILED" if failed else "CONVERGED"}
                if not failed:
                    row |= {"kl": 0.01 * worse * size, "means_error": 0.1 * size, "ari": rng.beta(20, 2)}
                    row |= {"seconds_run": rng.lognormal(0.0, 0.3)}
                rows.append(row)
    return rows


def verdicts(a, b):
    return {record["verdict"] for record in diff.compare_rows(a, b, EVERY)}


@pytest.mark.parametrize("new_seeds", [False, True])
def test_two_runs_of_one_program_hardly_ever_differ(new_seeds):
    """At most 5 % of 200 pairs of runs, and its own error 2·sqrt(0.05·0.95/200)."""
    alarms = 0
    for repeat in range(200):
        rng = np.random.default_rng(repeat)
        a = trials(rng, range(5), n_problems=3, data=repeat)
        b = trials(rng, range(5, 10) if new_seeds else range(5), n_problems=3, data=repeat)
        alarms += "regression" in verdicts(a, b)
    assert alarms <= 200 * (0.05 + 2.0 * np.sqrt(0.05 * 0.95 / 200))


@pytest.mark.slow
def test_two_real_runs_of_one_program_hardly_ever_differ(tmp_path):
    """95 of 100 is the promise: EM, which fits equal cells together, on three problems, no seed twice."""
    grid = Grid(("course_2d", "unbalanced", "overlapping"), ("em",), ("em.n_restarts=4",), n=(150,), seeds=5)
    for run in range(200):
        run_grid(str(run), replace(grid, first_seed=5 * run).cells(), results=tmp_path)
    codes = [diff.diff(tmp_path / str(run), tmp_path / str(run + 1)) for run in range(0, 200, 2)]
    assert codes.count(0) >= 95
    assert set(codes) <= {0, 3}


def test_a_time_that_trials_share_is_one_measurement_and_no_regression():
    """One lot of ten takes three times as long as another; so does each of ten that ran alone, or took milliseconds."""
    head = {"problem": "p", "case": "c", "method": "m", "status": "CONVERGED"}
    lots = [[head | {"seed": i, "seconds_run": s, "together": 10} for i in range(10)] for s in (0.1, 0.3)]
    slow = [[row | {"seconds_run": row["seconds_run"] + 0.001 * row["seed"], "together": 1} for row in s] for s in lots]
    fast = [[row | {"seconds_run": 0.02 * row["seconds_run"]} for row in s] for s in slow]
    for a, b, verdict, n in (
        (*slow, "regression", 10),
        (*lots, "too few", 1),
        (lots[0], slow[1], "too few", 1),
        (*fast, "same", 10),
        (fast[0], slow[1], "regression", 10),
    ):
        (found,) = diff.compare_rows(a, b, {"seconds_run": EVERY["seconds_run"]})
        assert (found["verdict"], found["n"]) == (verdict, n)


def test_a_real_loss_is_a_regression_and_its_reverse_an_improvement():
    rng = np.random.default_rng(0)
    a, b = trials(rng, range(30), n_problems=3), trials(rng, range(30), n_problems=3, worse=3.0)
    for before, after, verdict in ((a, b, "regression"), (b, a, "improvement")):
        found = diff.compare_rows(before, after, EVERY)
        assert {r["metric"] for r in found if r["verdict"] == verdict} == {"kl"}
        assert sum(r["verdict"] == verdict for r in found) == 6  # of 6 cells, each some 8 standard errors
        assert verdict in {r["verdict"] for r in found} <= {verdict, "same"}


def test_failures_that_were_none_are_a_regression():
    rng = np.random.default_rng(0)
    a, b = trials(rng, range(12), failing=0.0, n_problems=1), trials(rng, range(12), failing=1.0, n_problems=1)
    assert {(r["metric"], r["verdict"]) for r in diff.compare_rows(a, b, EVERY) if r["metric"] == "failures"} == {
        ("failures", "regression")
    }
    others = [r for r in diff.compare_rows(a, b, EVERY) if r["metric"] != "failures"]
    assert {r["verdict"] for r in others} == {"too few"}  # what failed has no error to compare


def test_a_certain_difference_below_the_margin_is_none():
    rng = np.random.default_rng(0)
    a = trials(rng, range(10), n_problems=1, failing=0.0)
    b = [row | {"kl": 1.05 * row["kl"]} for row in a]
    (kl,) = (r for r in diff.compare_rows(a, b, {"kl": EVERY["kl"]}) if r["method"] == "em")
    assert kl["change"] == pytest.approx(1.05)
    assert kl["low"] > 1.0
    assert kl["verdict"] == "same"
    tight = {"kl": EVERY["kl"]._replace(value=0.01)}
    assert {r["verdict"] for r in diff.compare_rows(a, b, tight)} == {"regression"}


def test_the_same_rows_are_the_same():
    a = trials(np.random.default_rng(0), range(3), n_problems=2)
    assert verdicts(a, a) <= {"same", "too few"}
    assert verdicts(a[:1], a[:1]) == {"too few"}


@pytest.mark.parametrize("metric", ["kl", "ari"])
def test_one_comparison_is_students_or_welchs(metric):
    rng = np.random.default_rng(1)
    x, y = rng.lognormal(size=8), rng.lognormal(size=8)
    ratio = metric == "kl"
    of, back = (np.log, np.exp) if ratio else (np.array, np.array)
    head = {"problem": "p", "case": "c", "method": "m", "status": "CONVERGED"}
    a = [head | {"seed": i, metric: float(v)} for i, v in enumerate(x)]
    paired, welch = stats.ttest_rel(of(y), of(x)), stats.ttest_ind(of(y), of(x), equal_var=False)
    for seeds, test in ((range(8), paired), (range(8, 16), welch)):
        b = [head | {"seed": seed, metric: float(v)} for seed, v in zip(seeds, y, strict=True)]
        (found,) = diff.compare_rows(a, b, {metric: EVERY[metric]})
        low, high = map(back, test.confidence_interval())
        np.testing.assert_allclose([found["p"], found["low"], found["high"]], [test.pvalue, low, high], rtol=1e-9)
        assert found["scale"] == ("ratio" if ratio else "difference")


def test_errors_below_what_is_known_of_them_are_no_change():
    """A divergence below its Monte-Carlo error, and rounding where something is known exactly."""
    rng = np.random.default_rng(0)
    head = {"problem": "p", "case": "c", "method": "m", "status": "CONVERGED", "kl_se": 1e-3}
    a, b = (
        [head | {"seed": i, "kl": size * rng.random(), "weights_error": size * 1e-14} for i in range(9)]
        for size in (1e-5, -1e-3)
    )
    assert {r["change"] for r in diff.compare_rows(a, b, EVERY) if r["scale"] == "ratio"} == {1.0}


@given(st.lists(st.tuples(st.floats(-5, 5), st.sampled_from([0.0, 0.5, 1.0, np.nan])), max_size=8))
def test_an_interval_excludes_0_exactly_where_holm_rejects(pairs):
    value, error = (np.array(leaf) for leaf in zip(*pairs, strict=True)) if pairs else (np.zeros(0), np.zeros(0))
    p, low, high = diff.holm_intervals(value, error, np.full(value.size, 7.0))
    np.testing.assert_array_equal(np.isnan(p), np.isnan(error))
    known = ~np.isnan(error)
    np.testing.assert_array_equal((p < 0.05)[known], ((low > 0.0) | (high < 0.0))[known])
    np.testing.assert_allclose(p[known], holm(value[known], error[known], 7.0), rtol=1e-9)


def holm(value, error, dof):
    """Holm's adjusted p-values, by the book: each is the largest of (m − i)·p over those before it."""
    raw = [
        1.0 if v == 0.0 else 2.0 * stats.t.sf(np.inf if e == 0.0 else abs(v) / e, dof)
        for v, e in zip(value, error, strict=True)
    ]
    order = sorted(range(len(raw)), key=lambda i: raw[i])
    adjusted = np.zeros(len(raw))
    for place, i in enumerate(order):
        adjusted[i] = max(min(1.0, (len(raw) - j) * raw[order[j]]) for j in range(place + 1))
    return adjusted


# ---- the command


@pytest.fixture
def folders(tmp_path):
    """write(rows, ...) -> folders."""

    def write(*runs):
        for i, rows in enumerate(runs):
            store.write_rows(tmp_path / str(i), rows)
        return [str(tmp_path / str(i)) for i in range(len(runs))]

    return write


def test_exit_codes_and_one_document(folders, capsys):
    rng = np.random.default_rng(0)
    a, b = trials(rng, range(30), n_problems=2), trials(rng, range(30), n_problems=2, worse=3.0)
    first, second = folders(a, b + [row | {"problem": "new"} for row in b[:2]])
    assert main(["diff", first, first]) == 0
    assert "regression" in capsys.readouterr().out
    assert main(["diff", first, second, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["cells"] == {"only before": 0, "only after": 1}
    assert {r["metric"] for r in document["comparisons"] if r["verdict"] == "regression"} == {"kl"}
    assert main(["diff", first, second, "--margin", "kl=5.0"]) == 0
    assert main(["diff", first, second, "--metric", "ari", "failures"]) == 0
    capsys.readouterr()
    assert main(["diff", first, second]) == 3
    out = capsys.readouterr().out
    assert "KL from truth" in out
    assert "p1" in out


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (["--metric", "kll"], 2, "a metric must be one of kl"),
        (["--margin", "kl=-1"], 2, "margin of kl must be a number that is not negative"),
        (["--margin", "kl=NaN"], 2, "margin of kl must be a number"),
        (["--margin", "kl"], 2, "NAME=VALUE"),
    ],
)
def test_bad_margins_are_one_sentence(folders, capsys, more, code, sentence):
    (folder,) = folders(trials(np.random.default_rng(0), range(2), n_problems=1))
    assert main(["diff", folder, folder, *more]) == code
    assert sentence in capsys.readouterr().err


def test_what_cannot_be_compared_is_said(folders, tmp_path, capsys):
    rows = trials(np.random.default_rng(0), range(2), n_problems=1)
    first, other, strange = folders(rows, [row | {"problem": "q"} for row in rows], [{"a": 1}])
    assert main(["diff", first, other]) == 2
    assert "no cell in common" in capsys.readouterr().err
    for folder in (strange, str(tmp_path / "none")):
        assert main(["diff", first, folder]) == 4
        assert "rows.csv" in capsys.readouterr().err


MIXTURE = GMM(np.full(2, 0.5), np.full((2, 2), 0.1), np.stack([np.eye(2)] * 2))
MIXTURES = dict.fromkeys(("estimate", "truth", "standard_errors"), store.mixture_record(MIXTURE))


@pytest.mark.slow
def test_ten_thousand_rows_are_compared_in_seconds(folders):
    """5 s is the promise."""
    rows = [row | MIXTURES for row in trials(np.random.default_rng(0), range(10), n_problems=500)]
    assert len(rows) == 10_000
    first, second = folders(rows, rows)
    begin = time.process_time()
    assert diff.diff(first, second) == 0
    assert time.process_time() - begin < 5.0


@pytest.mark.slow
def test_ten_thousand_rows_are_reported_in_seconds(folders):
    """10 s is the promise: tables, pictures and page of 20 problems, 2 methods and 250 seeds."""
    rows = [{"reason": ""} | row | MIXTURES for row in trials(np.random.default_rng(0), range(250), n_problems=20)]
    assert len(rows) == 10_000
    (first,) = folders(rows)
    store.write_json(Path(first) / "provenance.json", {"question": "Is it fast?", "command": "none"})
    begin = time.process_time()
    assert report_folder(Path(first)) == 0
    assert time.process_time() - begin < 10.0
