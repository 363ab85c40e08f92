"""Every experiment, found by its file: it runs at its smoke size and leaves rows, provenance and an answer."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from gmm_jax import GMM, Fit, Posterior, Status, problems, shell
from gmm_jax.bench import methods, store
from gmm_jax.bench.demo import demo
from gmm_jax.bench.draws import read_draws
from gmm_jax.bench.provenance import read_provenance

ROOT = Path(__file__).parents[1]
IN_EVERY_RUN = ("course_2d", "real_data", "recovery")  # of the others the smoke runs are slow tests
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
@pytest.mark.parametrize("part", load("speed_em").PARTS)
def test_every_part_of_the_speed_experiment_runs(part, tmp_path):
    assert load("speed_em").main(parts=(part,), out=tmp_path, smoke=True) == 0


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_asks_a_question_and_says_what_it_expects(name):
    doc = load(name).__doc__
    assert "?" in doc
    assert "Expected:" in doc
    assert f"results/{name}" in doc


def test_an_experiment_is_taken_for_no_package(monkeypatch):
    """experiments/coverage.py stood for the package that numba imports, and every fit by PyMC failed."""
    here = str(ROOT / "experiments")
    monkeypatch.setattr(sys, "path", [here, *sys.path])
    monkeypatch.setattr(sys, "argv", [f"{here}/coverage.py"])
    monkeypatch.setattr(shell, "configure_jax", lambda: None)

    def main() -> int:
        return 0 if here in sys.path else 3

    with pytest.raises(SystemExit, match="3"):
        shell.experiment(main)


def test_the_course_leaves_its_pictures_and_a_report_without_any_outside_address(run):
    folder = run("course_2d")
    for case in ("case_i", "case_ii"):
        for picture in ("iterations.png", "iterations.gif", "log_likelihood.png", "recovered.png", "errors.png"):
            assert (folder / f"course_2d_{case}_{picture}").stat().st_size > 2000
    html = (folder / "report.html").read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html


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
