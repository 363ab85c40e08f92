"""A grid is one thing in Python, in JSON and on the command line."""

import json
from dataclasses import asdict

import pytest

from gmm_jax.bench import Grid, compare, runner
from gmm_jax.bench.options import read_grid
from gmm_jax.cli import main

GRID = Grid(
    problems=("well_separated", "course_2d"),
    methods=("em", "cheap_methods:split"),
    option=("em.n_restarts=4", "cheap_methods:split.value=0.5"),
    known=("covariances", "weights"),
    n=(60, 80),
    seeds=2,
    first_seed=5,
)


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """The shell sets jax.config; tests that follow must not see it."""
    monkeypatch.setattr("gmm_jax.cli.configure_jax", lambda: None)


def test_cells_are_the_product_of_the_axes():
    cells = GRID.cells()
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2
    assert {cell.seed for cell in cells} == {5, 6}
    assert {cell.known for cell in cells} == {("weights", "covariances")}
    options = {cell.method: dict(cell.options) for cell in cells}
    assert options == {"em": {"n_restarts": 4}, "cheap_methods:split": {"value": 0.5}}
    assert Grid(problems=("course_2d",) * 2).cells() == Grid().cells()


def test_python_json_and_the_shell_say_the_same(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(compare, "run_grid", lambda name, cells, **more: seen.append((cells, more["config"])) or [])
    monkeypatch.setattr(compare, "write_report", lambda folder: folder)
    path = tmp_path / "grid.json"
    path.write_text(json.dumps(asdict(GRID)))
    assert read_grid(path) == GRID
    words = ["--problems", *GRID.problems, "--methods", *GRID.methods, "--option", *GRID.option]
    words += ["--known", *GRID.known, "--n", "60", "80", "--seeds", "2", "--first-seed", "5"]
    assert main(["compare", *words, "--out", str(tmp_path)]) == 0
    assert main(["compare", "--file", str(path), "--out", str(tmp_path)]) == 0
    assert seen[0] == seen[1]
    path.write_text(json.dumps(seen[0][1]["grid"]))
    assert read_grid(path) == GRID  # as the provenance keeps it
    assert [cell.seed for cell in seen[0][0][:2]] == [5, 5]


def test_a_grid_that_is_not_there_is_a_wrong_argument(tmp_path, capsys):
    assert main(["compare", "--file", str(tmp_path / "grid.json")]) == 2
    assert "grid.json: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "must hold a JSON object with any of problems, methods"),
        ('{"problem": []}', 'methods, option, known, n, seeds, first_seed; got {"problem": []}'),
        ('{"seeds": "3"}', "'seeds' of a grid must be whole numbers; got '3'"),
        ('{"seeds": true}', "'seeds' of a grid must be whole numbers"),
        ('{"methods": "em"}', "'methods' of a grid must be a list of text; got 'em'"),
        ('{"n": [60, 1.5]}', "'n' of a grid must be a list of whole numbers"),
        ('{"problems": ["../up"]}', "must be one of problems.names"),
        ('{"first_seed": -1}', "first_seed must be at least 0"),
        ('{"known": ["all"]}', "knowing takes any of"),
    ],
)
def test_a_grid_that_is_none_is_a_sentence(text, sentence, tmp_path, capsys):
    path = tmp_path / "grid.json"
    path.write_text(text)
    assert main(["compare", "--file", str(path), "--out", str(tmp_path / "results")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"problems": "course_2d"}, "'problems' of a grid must be a list of text; got 'course_2d'"),
        ({"methods": ("em", 3)}, "'methods' of a grid must be a list of text"),
        ({"known": "weights"}, "'known' of a grid must be a list of text; got 'weights'"),
        ({"n": 60}, "'n' of a grid must be a list of whole numbers; got 60"),
        ({"n": (60, 0)}, "n must be at least 1; got 0"),
        ({"seeds": 2.0}, "'seeds' of a grid must be whole numbers; got 2.0"),
        ({"seeds": None}, "'seeds' of a grid must be whole numbers; got None"),
    ],
)
def test_a_grid_of_other_kinds_is_a_sentence_in_python_too(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Grid(**change).cells()


def test_a_grid_twice_or_damaged_is_said(tmp_path, capsys):
    path = tmp_path / "grid.json"
    path.write_text(json.dumps(asdict(GRID))[:-9])
    assert main(["compare", "--file", str(path), "--seeds", "4"]) == 2
    assert "would say twice" in capsys.readouterr().err
    assert main(["compare", "--file", str(path)]) == 2
    assert "is not JSON" in capsys.readouterr().err


MARKUP = "<script>alert(1)</script> ../../etc [red]x[/red]"


def test_markup_in_reasons_and_names_is_shown_as_it_is(tmp_path, monkeypatch, capsys):
    """In the page it is escaped, in the terminal no style, and no file is made outside the folder."""
    row = runner._head(runner.Cell("course_2d", method="cheap_methods:raises"))
    row |= {"status": "FAILED", "reason": MARKUP, "method": MARKUP}
    monkeypatch.setattr(runner, "run", lambda cell: runner.Trial(row, *[None] * 5))
    grid = Grid(methods=("cheap_methods:raises",), seeds=1)
    assert compare.compare("n", grid, results=tmp_path) == 3
    page = (tmp_path / "n" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert MARKUP in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["n"]
