"""The bookkeeping of an experiment: rows at once on disk, the command that repeats it, its question and answer."""

import pytest

from gmm_jax.bench import store
from gmm_jax.bench.provenance import read_provenance
from shared.study import Experiment

DOC = """Does it
work?

Data: one set,
of rows.
Methods: this: only.

Parts can be run alone. Data: are not named here.

Expected: yes. Found: see results/toy.
"""


def test_rows_are_on_disk_after_each_step_even_if_the_work_fails(tmp_path):
    def work():
        with Experiment(DOC, "toy", tmp_path, {}) as study:
            study.add({"a": 1})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert [row["a"] for row in store.read_rows(tmp_path / "toy")] == [1]
    assert [each["answer"] for each in read_provenance(tmp_path / "toy")] == [None]


def test_the_provenance_repeats_the_command_and_the_question(tmp_path, capsys):
    options = {"data_sets": 3, "names": ("a", "b"), "none": (), "full": True, "not": False}
    with Experiment(DOC, "toy", tmp_path, options, seeds=3) as study:
        study.add({"a": 1}, {"a": 2})
    assert study.conclude("It works.", met=False) == 3
    (record,) = read_provenance(tmp_path / "toy")
    assert record["command"] == "python experiments/toy.py --data-sets 3 --names a b --full"
    assert (record["question"], record["answer"], record["seeds"]) == ("Does it work?", "It works.", [0, 2])
    assert capsys.readouterr().out == "It works.\n"


def test_a_smoke_run_meets_no_expectation(tmp_path):
    with Experiment(DOC, "toy", tmp_path, {}, smoke=True) as study:
        study.add({"a": 1})
    assert study.conclude("no.", met=False) == 0


def test_a_kept_study_goes_on_where_it_was(tmp_path):
    for row in ({"a": 1}, {"a": 2}):
        with Experiment(DOC, "toy", tmp_path, {}, keep=True) as study:
            study.add(row)
    assert [row["a"] for row in study.rows] == [1, 2]
