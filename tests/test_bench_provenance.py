"""Records that tell the truth: what made each row, an entry for each run, and nothing of an earlier run is changed."""

import json
import os
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gmm_jax import Fit, Status, problems
from gmm_jax.bench import compare, diff, methods, provenance, store
from gmm_jax.bench.provenance import STAMP, design_of, makers, read_provenance
from gmm_jax.bench.runner import Cell, run_grid
from gmm_jax.bench.study import Study
from shared.study import Experiment

TRUTH = problems.load("course_2d").truth
CELLS = [Cell("course_2d", n=60, seed=seed) for seed in range(4)]


@pytest.fixture
def instant(monkeypatch):
    """EM that gives the truth at once."""

    def fit(key, x, spec):
        return Fit(TRUTH, None, None, Status.CONVERGED, {})

    monkeypatch.setattr(methods, "load", lambda name: methods.Method(name, "", {}, fit))


@pytest.fixture
def at(monkeypatch):
    """at("abc") makes that the commit of the code that runs."""
    return lambda commit: monkeypatch.setattr(provenance, "commit", lambda: commit)


def one_row_a_seed(out, seeds, *, answer="as it is"):
    """A study that goes on where it was."""
    with Experiment("Is it?", "toy", out, {"seeds": seeds}, keep=True) as study:
        for seed in range(len(study.rows), seeds):
            study.add({"seed": seed})
    study.conclude(answer)
    return study.rows


# ---- rows


def test_each_row_of_a_grid_says_what_made_it(instant, tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    run_grid("grid", CELLS, results=tmp_path)
    for row in store.read_rows(tmp_path / "grid"):
        assert row["commit"] == provenance.commit()
        assert before <= datetime.fromisoformat(row["made"]) <= datetime.now(UTC)
        assert row["made"].endswith("+00:00")
        assert row["device"] == provenance.device()
        assert 0.0 < row["seconds"] < 60.0


def test_each_row_of_an_experiment_says_what_made_it(tmp_path, monkeypatch):
    """Rows that are added together share the time since those before; one that times itself keeps its own."""
    now = 0.0
    with Experiment("", "toy", tmp_path, {}) as study:
        monkeypatch.setattr("gmm_jax.bench.study.time.perf_counter", lambda: now)
        study.step()
        now = 6.0
        study.add({"a": 1}, {"a": 2})
        now = 8.0
        study.add({"a": 3})
        monkeypatch.undo()
        study.put({"a": 4, "seconds": 0.25, "device": "its own"})
    rows = store.read_rows(tmp_path / "toy")
    assert [row["seconds"] for row in rows] == [3.0, 3.0, 2.0, 0.25]
    assert [row["device"] for row in rows] == [*[provenance.device()] * 3, "its own"]
    assert {row["commit"] for row in rows} == {provenance.commit()}


def test_a_failed_trial_says_what_made_it_too(monkeypatch, tmp_path):
    def raising(key, x, spec):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(methods, "load", lambda name: methods.Method(name, "", {}, raising))
    (row,) = run_grid("grid", CELLS[:1], results=tmp_path)
    assert row["status"] == "FAILED"
    assert all(row[name] is not None for name in STAMP)


def test_the_commit_of_changed_code_is_told_from_that_of_the_checkout(monkeypatch):
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "a" * 40, "dirty": False})
    assert provenance.commit() == "a" * 12
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "a" * 40, "dirty": True})
    assert provenance.commit() == "a" * 12 + "+" + store.source()
    monkeypatch.setattr(provenance, "git", lambda: None)
    assert re.fullmatch(r"\d+\.\d+\.\d+\+[0-9a-f]{12}", provenance.commit())


# ---- runs


@pytest.mark.parametrize("kind", ["grid", "study"])
def test_a_run_that_goes_on_changes_nothing_of_what_was(kind, instant, at, tmp_path):
    """The second run adds two rows: the entry and the rows of the first stay as they were, byte for byte."""

    def run(n):
        if kind == "study":
            return one_row_a_seed(tmp_path, n)
        return run_grid("toy", CELLS[:n], results=tmp_path, command=f"compare {n}", answer=lambda rows: "as it is")

    at("one")
    run(2)
    first, rows = read_provenance(tmp_path / "toy"), store.read_rows(tmp_path / "toy")
    at("two")
    run(4)
    entries, after = read_provenance(tmp_path / "toy"), store.read_rows(tmp_path / "toy")
    assert entries[:1] == first
    assert after[:2] == rows
    assert [row["commit"] for row in after] == ["one", "one", "two", "two"]
    assert [each["rows"] for each in entries] == [2, 2]
    assert entries[0]["command"] != entries[1]["command"]
    text = (tmp_path / "toy" / "rows.csv").read_text()
    run(4)
    assert read_provenance(tmp_path / "toy") == entries  # it added nothing
    assert (tmp_path / "toy" / "rows.csv").read_text() == text


def test_an_answer_that_has_changed_is_an_entry_without_rows(tmp_path):
    one_row_a_seed(tmp_path, 2)
    one_row_a_seed(tmp_path, 2, answer="otherwise")
    found = [(each["rows"], each["answer"]) for each in read_provenance(tmp_path / "toy")]
    assert found == [(2, "as it is"), (0, "otherwise")]


def test_a_new_study_without_the_old_rows_is_without_their_entries(tmp_path):
    for _ in range(2):
        with Experiment("", "toy", tmp_path, {}) as study:
            study.add({"a": 1})
    assert len(read_provenance(tmp_path / "toy")) == 1


def test_what_a_killed_run_has_made_is_known(instant, at, tmp_path, monkeypatch):
    """Nothing runs after a kill: its entry stands there without an end, and the next run leaves it there."""
    at("one")
    study = Experiment("Is it?", "toy", tmp_path, {"seeds": 9}, keep=True)
    study.__enter__().add({"seed": 0})
    study._stack.close()
    (entry,) = read_provenance(tmp_path / "toy")
    assert (entry["ended"], entry["rows"]) == (None, None)
    at("two")
    one_row_a_seed(tmp_path, 2)
    entries = read_provenance(tmp_path / "toy")
    assert entries[0] == entry
    assert entries[1]["rows"] == 1
    assert [row["commit"] for row in store.read_rows(tmp_path / "toy")] == ["one", "two"]


# ---- folders that were made before


@pytest.fixture
def old_folder(instant, tmp_path):
    """Two trials as an earlier version wrote them: rows without what made them, one provenance and no list."""
    run_grid("old", CELLS[:2], results=tmp_path)
    folder = tmp_path / "old"
    for path in (folder / "cells").iterdir():
        kept = store.read_cell(path)
        row = {name: value for name, value in kept["row"].items() if name not in ("commit", "made", "device")}
        store.write_cell(folder, kept["config"], row)
    rows = [store.read_cell(path)["row"] for path in sorted((folder / "cells").iterdir())]
    store.write_rows(folder, sorted(rows, key=lambda row: row["seed"]))
    record = read_provenance(folder)[0]
    del record["rows"]
    store.write_json(folder / "provenance.json", record)
    return folder, record


def test_an_old_folder_goes_on_and_says_what_is_not_known(old_folder):
    folder, record = old_folder
    run_grid("old", CELLS, results=folder.parent)
    entries = read_provenance(folder)
    assert entries[0] == record
    assert [each.get("rows") for each in entries] == [None, 2]
    rows = store.read_rows(folder)
    assert [row["commit"] for row in rows] == [None, None, provenance.commit(), provenance.commit()]
    assert [line.partition(",")[0] for line in makers(rows)] == [
        "2 rows: commit not known",
        f"2 rows: {provenance.commit()}",
    ]


@pytest.mark.filterwarnings("ignore")
def test_an_old_folder_is_reported_and_compared(old_folder, capsys):
    folder, _ = old_folder
    assert compare.report_folder(folder) == 0
    page = (folder / "report.html").read_text()
    assert "2 rows: commit not known" in page
    assert "an unknown number of rows" in page
    capsys.readouterr()
    assert diff.diff(folder, folder) == 0
    assert "Before, 2 rows: commit not known, time not known" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[1].glob("results/*/provenance.json")), ids=str)
def test_every_committed_record_can_be_read(path):
    entries = read_provenance(path.parent)
    assert all(each["command"] and each["versions"] for each in entries)
    assert sum(int(line.split()[0]) for line in makers(store.read_rows(path.parent))) > 0


@pytest.mark.parametrize("text", ["[]", "3", '["a"]', "{"])
def test_what_is_no_provenance_is_named(text, tmp_path):
    (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(store.UnreadableResult, match=r"provenance\.json"):
        read_provenance(tmp_path)


# ---- one entry


def test_provenance_says_what_is_needed_and_not_where_or_who(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_TOKEN", "hidden-value")
    home = str(Path.home())
    words = [f"{home}/.venv/bin/gmm-jax", "fit", "/srv/my own/a b.csv", "--out=/srv/deep/x.csv", "--k", "2"]
    note = "from ~/a/b and C:\\Users\\me\\c.csv"
    config = {"seeds": range(3), "file": Path("/srv/data/x.csv"), "note": note, "r": 1 / 3}
    (tmp_path / "my own").mkdir()
    words[2] = words[2].replace("/srv", str(tmp_path))
    with Study("Is it?", "toy", tmp_path, config, command=shlex.join(words), seeds=range(3)) as study:
        study.put({"a": 1})
    (record,) = read_provenance(tmp_path / "toy")
    text = json.dumps(record, allow_nan=False)
    for secret in (home, "/srv", "deep", "Users", "hidden-value", "my own", os.uname().nodename + ".", "~"):
        assert secret not in text
    assert record["command"].split()[:2] == ["gmm-jax", "fit"]
    assert record["command"].endswith("'a b.csv' --out=x.csv --k 2")
    assert record["config"] == {"seeds": [0, 1, 2], "file": "x.csv", "note": "from b and c.csv", "r": 1 / 3}
    assert record["seeds"] == [0, 1, 2]
    assert record["started"].endswith("+00:00")
    assert {"gmm_jax", "python", "jax", "jaxlib", "numpyro", "blackjax", "numpy", "scipy"} <= record["versions"].keys()
    assert isinstance(record["machine"]["x64"], bool)
    assert record["git"] is None or len(record["git"]["commit"]) == 40


@pytest.mark.parametrize("text", ["gmm-jax compare em,nuts results/a 1/2", "a/b", "course_2d", "x - y", "2026-01-01"])
def test_relative_words_stay_as_they_are(text):
    assert provenance.bare(text) == text


def test_a_docstring_tells_the_question_and_the_design():
    doc = """Does it
work?

Data: one set,
of rows.
Methods: this: only.

Parts can be run alone. Data: are not named here.

Expected: yes. Found: see results/toy.
"""
    design = {"Data": "one set, of rows.", "Methods": "this: only.", "Expected": "yes."}
    assert design_of(doc) == {"question": "Does it work?", "design": design}
    assert design_of("") == {"question": None, "design": {}}
