"""Every experiment, found by its file: it runs at its smoke size and leaves rows, provenance and an answer."""

import importlib.util
import json
from pathlib import Path

import pytest

from gmm_jax.bench import store

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))


def load(name):
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """name -> folder of its smoke run, each run once."""
    folders = {}

    def once(name):
        if name not in folders:
            out = tmp_path_factory.mktemp("results")
            assert load(name).main(out=out, smoke=True) in (0, 3)
            folders[name] = out / name
        return folders[name]

    return once


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_at_its_smoke_size(name, run, capsys):
    folder = run(name)
    rows = store.read_rows(folder)
    assert rows
    record = json.loads((folder / "provenance.json").read_text())
    assert record["question"]
    assert record["answer"]
    assert f"experiments/{name}.py" in record["command"]
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_asks_a_question_and_says_what_it_expects(name):
    doc = load(name).__doc__
    assert "?" in doc
    assert "Expected:" in doc
    assert f"results/{name}" in doc


def test_the_course_leaves_its_pictures_and_a_report_without_any_outside_address(run):
    folder = run("course_2d")
    for case in ("case_i", "case_ii"):
        for picture in ("iterations.png", "iterations.gif", "log_likelihood.png", "recovered.png", "errors.png"):
            assert (folder / f"course_2d_{case}_{picture}").stat().st_size > 2000
    html = (folder / "report.html").read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert list((folder / "draws").glob("*.nc"))
