"""gmm-jax on one's own data: what is written, that it agrees with the library, and that nothing is overwritten."""

import csv
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import gmm_jax
from gmm_jax import GMM, Fit, Known, MixtureSpec, Posterior, Status, log_prob, responsibilities
from gmm_jax.bench import methods
from gmm_jax.cli import main
from gmm_jax.command import answer

RNG = np.random.default_rng(0)
TRUTH = GMM(np.array([0.6, 0.4]), np.array([[0.0, 0.0], [6.0, -4.0]]), np.stack([np.eye(2), 0.5 * np.eye(2)]))
LABELS = (RNG.random(120) < 0.4).astype(int)
X = np.round(TRUTH.means[LABELS] + RNG.standard_normal((120, 2)) * np.sqrt([1.0, 0.5])[LABELS, None], 3)
FEW = ["--option", "n_restarts=2"]
POSTERIORS = "bayes", "nuts", "svi", "laplace"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """The shell sets jax.config; tests that follow must not see it."""
    monkeypatch.setattr("gmm_jax.cli.configure_jax", lambda: None)
    monkeypatch.setattr("gmm_jax.bench.report.SECONDS_BETWEEN_LINES", 1000.0)


def run(*arguments):
    """The exit code, also where tyro leaves by SystemExit."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as leave:
        return leave.code


def one_sentence(capsys, *words):
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    for word in ("gmm-jax: ", *words):
        assert word in captured.err


@pytest.fixture
def european(tmp_path):
    """A spreadsheet's table: semicolons, decimal commas, a column of names, and one that numbers the rows."""
    lines = [f"{i};Nr_ {i};{a};{b}".replace(".", ",").replace("_", ".") for i, (a, b) in enumerate(X.tolist())]
    path = tmp_path / "größe.csv"
    path.write_bytes("\n".join(["ID;name;Größe;Alter", *lines]).encode("latin-1"))
    return path


@pytest.fixture
def model(tmp_path):
    """A model file as `fit --out` writes it."""
    path = tmp_path / "model.json"
    fit = Fit(TRUTH, None, None, Status.CONVERGED, {"columns": ["a", "b"]})
    return gmm_jax.save(path, fit)


@pytest.fixture
def table(tmp_path):
    """Its data, columns in another order, with one more."""
    path = tmp_path / "new.csv"
    path.write_text("b,day,a\n" + "".join(f"{b},2024-01-{1 + i % 28:02d},{a}\n" for i, (a, b) in enumerate(X.tolist())))
    return path


def read(path, separator=","):
    with open(path, encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file, delimiter=separator)
    return names, rows


def test_fit_writes_all_that_is_promised(european, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("fit", european, "--drop", "name", "ID", *FEW, "--out", out) == 0
    printed = capsys.readouterr().out
    written = {path.name for path in out.iterdir()}
    assert written >= {"model.json", "labels.csv", "pairs.png", "trace.png", "report.html"}
    assert printed.splitlines()[-1].startswith("wrote model.json, labels.csv, pairs.png")
    assert all(name in printed for name in written)

    fit = gmm_jax.load(out / "model.json")
    assert fit.info["columns"] == ["Größe", "Alter"]
    assert fit.info["log_likelihood"] == pytest.approx(float(log_prob(fit.point, X).sum()), rel=1e-9)
    np.testing.assert_allclose(fit.info["scaling"]["centre"], X.mean(axis=0))
    np.testing.assert_allclose(fit.info["scaling"]["scale"], X.std(axis=0))
    assert np.all(fit.standard_errors.means > 0.0)

    names, rows = read(out / "labels.csv", ";")
    assert names == ["ID", "name", "Größe", "Alter", "component", "p_1", "p_2"]
    assert [row[1] for row in rows] == [f"Nr. {i}" for i in range(len(X))]
    p = np.array([[float(v.replace(",", ".")) for v in row[5:]] for row in rows])
    np.testing.assert_allclose(p, responsibilities(fit.point, X), rtol=1e-5, atol=1e-12)
    assert [int(row[4]) for row in rows] == (np.argmax(p, axis=1) + 1).tolist()
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Größe" in html
    assert "data:image/png" in html
    shares = np.bincount(np.argmax(p, axis=1)) / len(p)
    taken = f"2 components take {shares[0]:.0%} and {shares[1]:.0%} of the rows; {np.mean(p.max(axis=1) > 0.95):.0%} of"
    assert taken in html


def test_nothing_is_overwritten_without_force(european, model, table, tmp_path, capsys):
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    for arguments in (
        ["fit", european, "--out", tmp_path],
        ["predict", model, table, "--out", table],
        ["sample", model, "--out", table],
        ["plot", model, table, "--out", tmp_path],
    ):
        assert run(*arguments) == 2
        one_sentence(capsys, "is there already", "--force")
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before
    assert run("predict", model, table, "--out", table, "--force") == 0
    assert read(table)[0][-1] == "p_2"


def test_predict_finds_columns_by_name_and_keeps_rows_in_order(model, table, tmp_path, capsys):
    assert run("predict", model, table) == 0
    names, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert names == ["b", "day", "a", "component", "p_1", "p_2"]
    np.testing.assert_array_equal([[float(row[2]), float(row[0])] for row in rows], X)
    np.testing.assert_allclose(np.array([row[4:] for row in rows], float), responsibilities(TRUTH, X), rtol=1e-5)


def test_predict_with_missing_values_uses_what_was_seen(model, tmp_path, capsys):
    (tmp_path / "gaps.csv").write_text("a,b\n0.1,NA\n,-3.9\n6,-4\n")
    assert run("predict", model, tmp_path / "gaps.csv") == 2
    one_sentence(capsys, "line 2, column 'b': 'NA' is a missing value", "--missing marginalise")
    assert run("predict", model, tmp_path / "gaps.csv", "--missing", "marginalise") == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
    gaps = np.array([[0.1, np.nan], [np.nan, -3.9], [6.0, -4.0]])
    expected = responsibilities(TRUTH, gaps, missing="marginalise")
    np.testing.assert_allclose(np.array([row[3:] for row in rows], float), expected, rtol=1e-5)


def test_parquet_in_is_parquet_out(model, tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    whole = pyarrow.table({"a": X[:, 0], "day": ["monday"] * len(X), "b": X[:, 1]})
    parquet.write_table(whole, tmp_path / "x.parquet", row_group_size=50)
    assert run("predict", model, tmp_path / "x.parquet") == 2
    one_sentence(capsys, "--out")
    assert run("predict", model, tmp_path / "x.parquet", "--out", tmp_path / "y.parquet") == 0
    found = parquet.read_table(tmp_path / "y.parquet")
    assert found.select(["a", "day", "b"]).equals(whole)
    np.testing.assert_allclose(found["p_1"].to_numpy(), responsibilities(TRUTH, X)[:, 0], rtol=1e-9)


def test_sample_draws_from_the_model(model, capsys):
    assert run("sample", model, "-n", 500, "--seed", 3) == 0
    names, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert names == ["a", "b", "component"]
    drawn = np.array(rows, float)
    expected, labels = gmm_jax.sample(jax.random.key(3), TRUTH, 500)
    np.testing.assert_allclose(drawn[:, :2], expected)
    np.testing.assert_array_equal(drawn[:, 2], np.asarray(labels) + 1)


def test_plot_draws_the_data_under_the_model(model, table, tmp_path):
    assert run("plot", model, table, "--out", tmp_path / "plots") == 0
    for path in (tmp_path / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "plots").iterdir())) == 3


BAD_MODELS = {
    "damaged": (lambda text: text[:50], "is no whole result of gmm_jax"),
    "no JSON": (lambda text: "hello", "is no whole result of gmm_jax"),
    "of another schema": (lambda text: text.replace('"schema": 1', '"schema": 7'), "in schema 7, this reads 1"),
    "not a mixture": (lambda text: text.replace("0.6", "0.9"), "must sum to 1"),
    "of other columns": (lambda text: text.replace('"b"', '"c"'), "column 'c' does not exist"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_is_one_sentence(case, model, table, capsys):
    change, sentence = BAD_MODELS[case]
    model.write_text(change(model.read_text()))
    assert run("predict", model, table) == 2
    one_sentence(capsys, sentence)


def test_what_python_saved_is_a_model_too(table, tmp_path, capsys):
    path = gmm_jax.save(tmp_path / "m.npz", TRUTH)
    (tmp_path / "x.csv").write_text("1.0,2.0\n3.0,4.0\n")
    assert run("predict", path, tmp_path / "x.csv") == 0
    assert run("sample", path, "-n", 1) == 0
    many = jax.tree.map(lambda leaf: np.stack([leaf] * 3), TRUTH)
    assert run("sample", gmm_jax.save(tmp_path / "many.npz", many)) == 2
    assert "holds 3 mixtures, not one" in capsys.readouterr().err


def test_missing_values_are_fitted_where_it_is_asked_for(tmp_path, capsys):
    gaps = X.astype(str)
    gaps[::7, 0], gaps[3::7, 1] = "NA", "?"
    (tmp_path / "x.csv").write_text("a,b\n" + "\n".join(map(",".join, gaps)))
    assert run("fit", tmp_path / "x.csv") == 2
    one_sentence(capsys, "line 2, column 'a': 'NA' is a missing value", "--missing marginalise")
    assert run("fit", tmp_path / "x.csv", "--missing", "marginalise", "--method", "smc") == 2
    one_sentence(capsys, "got smc", "drop or impute such rows")
    assert run("fit", tmp_path / "x.csv", "--missing", "marginalise", "--json", *FEW) == 0
    document = json.loads(capsys.readouterr().out)
    numbers = np.where(np.isin(gaps, ["NA", "?"]), "nan", gaps).astype(float)
    gmm = GMM(**document["gmm"])
    total = float(log_prob(gmm, numbers, missing="marginalise").sum())
    assert document["log_likelihood"] == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("method", ["gibbs", *(pytest.param(m, marks=pytest.mark.slow) for m in POSTERIORS)])
def test_missing_values_are_fitted_by_every_method_that_has_the_density_of_what_was_seen(method, tmp_path, capsys):
    gaps = np.where(np.arange(X.size).reshape(X.shape) % 7 == 0, np.nan, X)
    np.savetxt(tmp_path / "x.csv", gaps, delimiter=",", header="a,b", comments="")
    assert run("fit", tmp_path / "x.csv", "--missing", "marginalise", "--json", *FEW) == 0
    of_em = json.loads(capsys.readouterr().out)
    size = ["--option", "n_warmup=100", "n_draws=400"] if method == "gibbs" else []
    assert run("fit", tmp_path / "x.csv", "--missing", "marginalise", "--json", "--method", method, *size) in (0, 3)
    document = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(document["gmm"]["means"], of_em["gmm"]["means"], atol=0.5)
    gmm = GMM(**document["gmm"])
    total = float(log_prob(gmm, gaps, missing="marginalise").sum())
    assert document["log_likelihood"] == pytest.approx(total, rel=1e-9)
    assert total > of_em["log_likelihood"] - 5.0


def test_columns_that_are_no_measurements_are_named(european, capsys):
    assert run("fit", european, "--json") == 2
    one_sentence(capsys, "column 'name' holds text, such as 'Nr. 0'", "--drop name")
    assert run("fit", european, "--drop", "1", "--json", *FEW) in (0, 3)
    assert "column 'ID' numbers the rows" in json.loads(capsys.readouterr().out)["advice"]


# ---- what is printed


def answer_of(k, d, kind="full"):
    shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[kind]
    covariances = np.broadcast_to(np.eye(d), shape) if kind in ("full", "tied") else np.ones(shape)
    point = GMM(np.full(k, 1.0 / k), RNG.standard_normal((k, d)), covariances, kind)
    return Fit(point, None, None, Status.CONVERGED, {})


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 2), (4, 5), (3, 9)])
def test_tables_have_the_names_of_the_features_and_one_for_each_component_of_many(kind, k, d):
    names = [f"feature_{j}" for j in range(d)]
    found = answer.tables(answer_of(k, d, kind), MixtureSpec(k, kind), names)
    components = found[:-1] if kind == "tied" else found
    assert len(components) == (1 if k * d <= answer.ONE_TABLE else k)
    assert sum(len(table.rows) for _, table in components) == k * d
    text = str(found)
    assert all(name in text for name in names)
    assert not any(letter in text for letter in ["μ₁", "Σ₁"])


def test_components_are_ordered_by_weight_and_then_by_the_first_mean():
    """Weights that differ by less than a half per cent count as equal, so that two seeds print the same order."""
    means = np.array([[3.0], [1.0], [2.0], [0.0]])
    point = GMM(np.array([0.201, 0.4, 0.2, 0.199]), means, np.ones((4, 1, 1)))
    draws = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (2, 3, *leaf.shape)), point)
    fit = Fit(point, Posterior(draws, np.zeros((2, 3)), {}, Status.SAMPLED), point, Status.SAMPLED, {})
    found = answer.in_order(fit, MixtureSpec(4))
    assert found.point.means.ravel().tolist() == [1.0, 0.0, 2.0, 3.0]
    np.testing.assert_array_equal(found.standard_errors.means, found.point.means)
    np.testing.assert_array_equal(found.draws.draws.means[1, 2], found.point.means)
    known = MixtureSpec(4, known=Known(weights=np.array([0.201, np.nan, np.nan, np.nan])))
    assert answer.in_order(fit, known) is fit


def test_what_is_known_is_marked():
    spec = MixtureSpec(2, known=Known(weights=np.array([0.5, 0.5]), means=np.array([[1.0, 2.0], [np.nan, np.nan]])))
    ((_, table),) = answer.tables(answer_of(2, 2), spec, ["a", "b"])
    assert [row[1].endswith("known") for row in table.rows] == [True, False, True, False]
    assert [row[3].endswith("known") for row in table.rows] == [True, True, False, False]


def test_a_posterior_says_r_hat_and_effective_draws(european, tmp_path, monkeypatch, capsys):
    draws = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (2, 30, *leaf.shape)) + 0.01 * RNG.random(), TRUTH)
    posterior = Posterior(draws, RNG.standard_normal((2, 30)), {}, Status.SAMPLED)
    info = {"r_hat": 1.0042, "ess_bulk": 812.3, "reading": "chains agree."}
    fit = Fit(TRUTH, posterior, TRUTH, Status.SAMPLED, info)
    monkeypatch.setattr(methods, "load", lambda name: methods.Method(name, "", {}, lambda key, x, spec: fit))
    assert run("fit", european, "--drop", "0-1", "--method", "stub", "--out", tmp_path / "out") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "chains agree; R-hat 1.004 and 812 effective draws" in printed
    assert (tmp_path / "out" / "posterior.png").exists()


def test_many_rows_are_searched_on_a_sample_and_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gmm_jax.command.fit.MANY_ROWS", 50)
    np.save(tmp_path / "x.npy", X)
    assert run("fit", tmp_path / "x.npy", "--json", *FEW) == 0
    document = json.loads(capsys.readouterr().out)
    assert "2 starts on 50 rows drawn at random, the best of which went on over all 120" in document["advice"]
    total = float(log_prob(GMM(**document["gmm"]), X).sum())
    assert document["log_likelihood"] == pytest.approx(total, rel=1e-9)


def test_a_collapsed_fit_writes_nothing_and_says_so(tmp_path, monkeypatch, capsys):
    point = GMM(TRUTH.weights, TRUTH.means, 0.0 * TRUTH.covariances)
    fit = Fit(point, None, None, Status.COLLAPSED, {})
    monkeypatch.setattr(methods, "load", lambda name: methods.Method(name, "", {}, lambda key, x, spec: fit))
    monkeypatch.setattr("gmm_jax.command.fit.information_criteria", lambda *_, **__: {})
    np.save(tmp_path / "x.npy", X)
    assert run("fit", tmp_path / "x.npy", "--out", tmp_path / "out") == 3
    assert capsys.readouterr().out.splitlines()[-1].startswith("nothing was written to")
    assert not (tmp_path / "out").exists()


def test_choose_shows_what_each_criterion_prefers(tmp_path, capsys):
    np.save(tmp_path / "x.npy", X)
    arguments = ["choose", tmp_path / "x.npy", "--max-components", "2"]
    assert run(*arguments, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["n_components"] for row in document["rows"]] == [1, 2]
    assert document["choices"]["bic"] == 2
    assert run(*arguments) == 0
    assert "*" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["choos"], "there is no command 'choos' (did you mean 'choose'?)"),
        (["choos", "--help"], "there is no command 'choos'"),
        (["fit", "x.csv", "-k", "2.5"], "it takes a whole number; got '2.5'"),
    ],
)
def test_what_is_typed_wrong_is_said_and_is_exit_code_2(arguments, said, capsys):
    assert run(*arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_progress_counts_starts_and_names_the_best_where_there_is_no_terminal(monkeypatch, capsys):
    import time

    from gmm_jax.bench import report

    monkeypatch.setattr(report, "SECONDS_BETWEEN_LINES", 0.02)
    with report.progress_bar("em on x.csv", unit="starts") as update:
        time.sleep(0.1)
        update(12, 50, "best -123.4")
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "em on x.csv: compiling, 0 s"
    assert lines[-1] == "em on x.csv: 12 of 50 starts, best -123.4, 0 s"


@pytest.mark.parametrize("command", [["fit", "--help"], ["sample", "MODEL", "-n", "50000"]])
def test_a_reader_that_leaves_is_no_error(command, model):
    words = [str(model) if word == "MODEL" else word for word in command]
    program = [sys.executable, "-m", "gmm_jax", *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(timeout=120)
    assert (process.returncode, errors) == (141, b"")
