"""Every experiment, found by its file: it runs at its smoke size and leaves rows, provenance and an answer."""

import inspect
import shutil
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import pytest

import readme
from gmm_jax import GMM, Fit, Posterior, Status, problems
from gmm_jax.bench import methods, plots, store
from gmm_jax.bench.course import run_courses
from gmm_jax.bench.demo import demo
from gmm_jax.bench.draws import read_draws
from gmm_jax.bench.provenance import STAMP, read_provenance
from gmm_jax.bench.runner import HERE, How
from gmm_jax.bench.study import Study
from gmm_jax.shell import configure_jax
from shared import pictures
from shared.cells import Run, ask

ROOT = Path(__file__).parents[1]
IN_EVERY_RUN = ("course_2d", "real_data", "recovery")  # of the others the smoke runs are slow tests
EXPERIMENTS = readme.experiments()


TAKEN = ("coverage",)  # packages of which others make use where they are installed
STARTS_ANEW = ("course_2d", "course_3d", "recovery")


def where(name, out, *, smoke):
    """The argument that says where results go."""
    main = inspect.signature(EXPERIMENTS[name].main).parameters
    return {"run" if "run" in main else "place": Run(out, smoke=smoke)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """name -> folder of its smoke run, each run once."""
    folders = {}

    def once(name):
        if name not in folders:
            out = tmp_path_factory.mktemp("results")
            assert EXPERIMENTS[name].main(**where(name, out, smoke=True)) in (0, 3)
            folders[name] = out / name
        return folders[name]

    return once


@pytest.mark.parametrize(
    "name", [n if n in IN_EVERY_RUN else pytest.param(n, marks=pytest.mark.slow) for n in EXPERIMENTS]
)
def test_every_experiment_runs_at_its_smoke_size(name, run, capsys):
    folder = run(name)
    rows = store.read_rows(folder)
    assert rows
    assert all(row[name] is not None for row in rows for name in ("commit", "made", "device"))
    record = read_provenance(folder)[-1]
    assert record["question"]
    assert record["answer"]
    assert f"experiments/{name}.py" in record["command"]
    assert capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("part", EXPERIMENTS["speed_em"].PARTS)
def test_every_part_of_the_speed_experiment_runs(part, tmp_path):
    assert EXPERIMENTS["speed_em"].main(parts=(part,), run=Run(tmp_path, smoke=True)) == 0


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_asks_a_question_and_says_what_it_expects(name):
    doc = EXPERIMENTS[name].__doc__
    assert "?" in doc
    assert "Expected:" in doc
    assert f"results/{name}" in doc


@pytest.mark.parametrize("name", [*EXPERIMENTS, *readme.NO_EXPERIMENTS, "shared", "speed"])
def test_no_file_of_the_experiments_hides_a_package(name):
    """experiments/coverage.py stood for the package that numba imports, and every fit by PyMC failed."""
    elsewhere = [place for place in sys.path if Path(place or ".").resolve() != ROOT / "experiments"]
    assert PathFinder.find_spec(name, elsewhere) is None
    assert name not in {*sys.stdlib_module_names, *TAKEN}


@pytest.mark.parametrize("name", [n for n in EXPERIMENTS if n not in STARTS_ANEW])
def test_with_the_committed_rows_the_default_arguments_have_nothing_left_to_measure(name, tmp_path, monkeypatch):
    """README's commands make README's numbers: defaults were those of other runs in seven of twenty experiments."""
    shutil.copytree(ROOT / "results" / name, tmp_path / name)
    before = store.read_rows(tmp_path / name)
    monkeypatch.setattr(Study, "put", never)
    monkeypatch.setattr(plots, "landscape", drawn)
    for plot in ("curves", "calibration", "scaling"):
        monkeypatch.setattr(pictures, plot, drawn)
    assert EXPERIMENTS[name].main(run=Run(tmp_path)) in (0, 3)
    after = store.read_rows(tmp_path / name)
    assert [{**row, "commit": row.get("commit")} for row in before] == after


def drawn(*arguments, **options):
    return None


def never(study, *rows, **_):
    raise AssertionError(f"measures again: {rows[:1]}")


def test_recovery_has_as_many_data_sets_as_it_makes_without_arguments():
    rows = store.read_rows(ROOT / "results" / "recovery")
    default = inspect.signature(EXPERIMENTS["recovery"].main).parameters["seeds"].default
    assert sorted({row["seed"] for row in rows}) == list(range(default))


def toy(out, cells, **options):
    """An experiment whose rows double a number; how often it measured."""
    measured = []

    def measure(a, b):
        measured.append((a, b))
        return [{"twice": 2 * a}, {"twice": 2 * b}]

    about = {key: options.pop(key) for key in ("fresh", "smoke") if key in options}
    verdict = lambda rows: (len(rows) == 2 * len(cells), f"{len(rows)} rows")  # noqa: E731
    names = [dict(zip("ab", cell, strict=True)) for cell in cells]
    return ask("Is it?", "toy", names, measure, verdict, Run(out, **about), {}, **options), measured


def test_an_experiment_goes_on_where_it_was_and_answers_about_its_own_cells(tmp_path):
    assert toy(tmp_path, [(1, 2), (3, 4)]) == (0, [(1, 2), (3, 4)])
    assert toy(tmp_path, [(3, 4), (5, 6)]) == (0, [(5, 6)])
    rows = store.read_rows(tmp_path / "toy")
    assert [(row["a"], row["b"], row["twice"]) for row in rows] == [
        *((1, 2, 2), (1, 2, 4), (3, 4, 6), (3, 4, 8)),
        *((5, 6, 10), (5, 6, 12)),
    ]
    assert len(read_provenance(tmp_path / "toy")) == 2


def test_fresh_measures_again_what_was_asked_for_and_keeps_the_rest(tmp_path):
    toy(tmp_path, [(1, 2), (3, 4)])
    assert toy(tmp_path, [(3, 4)], fresh=True) == (0, [(3, 4)])
    assert [row["a"] for row in store.read_rows(tmp_path / "toy")] == [1, 1, 3, 3]


def test_a_smoke_run_does_not_add_its_rows_to_those_of_a_full_one(tmp_path):
    toy(tmp_path, [(1, 2)])
    with pytest.raises(ValueError, match="choose another --out"):
        toy(tmp_path, [(1, 2)], smoke=True)


def test_a_part_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match=r"parts must be among iteration, .*; got 'speed'"):
        EXPERIMENTS["speed_em"].main(parts=("speed",), run=Run(tmp_path))


def test_the_course_leaves_its_pictures_and_a_report_without_any_outside_address(run):
    folder = run("course_2d")
    for case in ("case_i", "case_ii"):
        for picture in ("iterations.png", "iterations.gif", "log_likelihood.png", "recovered.png", "errors.png"):
            assert (folder / f"course_2d_{case}_{picture}").stat().st_size > 2000
    html = (folder / "report.html").read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html


def test_the_course_is_the_same_on_two_processes():
    """Every number that is no time."""
    here, beside = (
        run_courses(("course_2d",), {}, n_random_starts=4, how=how) for how in (HERE, How(2, prepare=configure_jax))
    )
    for one, other in zip(here[0].rows, beside[0].rows, strict=True):
        for name, value in one.items():
            if not name.startswith("seconds") and name not in STAMP:
                assert value == other[name] or np.allclose(value, other[name], rtol=1e-9, atol=1e-12), name


def test_the_course_leaves_the_draws_of_a_sampler_and_their_picture(tmp_path, monkeypatch):
    """A sampler that needs no program: noise about the truth."""
    truth = problems.load("course_2d").truth

    def noise(key, x, spec):
        means = truth.means + 0.1 * np.random.default_rng(0).standard_normal((2, 50, *truth.means.shape))
        weights, covariances = (np.broadcast_to(v, (2, 50, *v.shape)) for v in (truth.weights, truth.covariances))
        posterior = Posterior(GMM(weights, means, covariances), np.zeros((2, 50)), {}, Status.SAMPLED)
        return Fit(truth, posterior, None, Status.SAMPLED, {})

    load = methods.load
    stub = methods.from_function("noise", noise)
    monkeypatch.setattr(methods, "load", lambda name: stub if name == "noise" else load(name))
    size = {"cases": ("Case II",), "n_random_starts": 4}  # course_2d's smoke has compiled these programs
    assert demo({"noise": {}}, problems=("course_2d",), results=tmp_path, **size) == 0
    folder = tmp_path / "demo"
    assert (folder / "course_2d_case_ii_posterior.png").stat().st_size > 2000
    (file, checksum), *others = read_provenance(folder)[-1]["draws"].items()
    assert (file, others) == ("course_2d_case_ii_noise.nc", [])
    assert read_draws(folder / "draws" / file, checksum).draws.means.shape == (2, 50, *truth.means.shape)
