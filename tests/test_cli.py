"""The shell: what is typed, what comes out, and with which exit code. Bad input is one sentence and harms nothing."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import wraps

import jax
import numpy as np
import pytest

from gmm_jax import GMM, Fit, Status, bayes, em, problems
from gmm_jax.bench import methods
from gmm_jax.cli import main


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """The shell sets jax.config; tests that follow must not see it."""
    monkeypatch.setattr("gmm_jax.cli.configure_jax", lambda: None)
    monkeypatch.setattr("gmm_jax.bench.report.SECONDS_BETWEEN_LINES", 1000.0)


@pytest.fixture(scope="module")
def faithful():
    return problems.datasets.load("faithful")[0]


@pytest.fixture
def csv(tmp_path):
    """csv(text) -> path of a file that holds it."""

    def write(text, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def run(*arguments):
    """The exit code, also where tyro leaves by SystemExit."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as leave:
        return leave.code


GOOD = "a,b\n" + "\n".join(f"{i % 7}.5,{(i * i) % 11}" for i in range(30))


# ---- starting


def test_the_shell_starts_without_jax():
    code = "import sys, gmm_jax.cli; assert not {'jax', 'numpyro', 'matplotlib', 'scipy'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["compare", "--help"], ["--version"]])
def test_help_needs_no_jax(arguments):
    code = f"import sys, gmm_jax.cli\ntry: gmm_jax.cli.main({arguments!r})\nfinally: assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout


def test_list_names_everything(capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    for name in (*problems.names(), *problems.datasets.names(), *methods.available()):
        assert name in out
    assert run("list", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["methods"]) == set(document["options"]) == set(methods.available())


# ---- fit


VARIANTS = {
    "comma": ("eruptions,waiting\n", ",", "\n"),
    "semicolon": ("eruptions;waiting\r\n", ";", "\r\n"),
    "tab": ("eruptions\twaiting\n", "\t", "\n"),
    "blank": ("eruptions waiting\n", "   ", " \n"),
    "no header": ("", ",", "\n"),
    "byte order mark": ("\ufefferuptions,waiting\n", ",", "\n"),
    "quoted": ('"eruptions", "waiting"\n\n', ", ", "\n\n"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_fit_recovers_a5_from_any_table(variant, csv, faithful, capsys):
    """A5 of published.md, mixtools' column."""
    head, delimiter, end = VARIANTS[variant]
    path = csv(head + "".join(f"{row[0]}{delimiter}{row[1]:g}{end}" for row in faithful))
    column = "1" if variant == "no header" else "waiting"
    code = run("fit", path, "--columns", column, "--option", "reg_covar=0", "tol=1e-12", "max_iter=5000", "--json")
    captured = capsys.readouterr()
    assert code == 0, captured.err
    document = json.loads(captured.out)
    estimate = document["gmm"]
    order = np.argsort(np.ravel(estimate["means"]))
    np.testing.assert_allclose(np.array(estimate["weights"])[order], [0.3608868, 0.6391132], atol=1e-6)
    np.testing.assert_allclose(np.ravel(estimate["means"])[order], [54.61489, 80.09109], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.ravel(estimate["covariances"])[order]), [5.871241, 5.867718], atol=5e-5)
    assert document["log_likelihood"] == pytest.approx(-1034.00175, abs=1e-5)
    assert document["n_parameters"] == 5
    assert document["aic"] == pytest.approx(2 * 1034.00175 + 10, abs=1e-4)
    assert document["bic"] == pytest.approx(2 * 1034.00175 + 5 * np.log(272), abs=1e-4)
    assert document["status"] == "CONVERGED"


def test_fit_prints_a_table_and_keeps_stderr_quiet(csv, faithful, capsys):
    path = csv("eruptions,waiting\n" + "".join(f"{a},{b}\n" for a, b in faithful))
    assert run("fit", path, "--columns", "waiting") == 0
    captured = capsys.readouterr()
    assert "54.6" in captured.out
    assert "φ" in captured.out
    assert captured.err == ""


def test_fit_holds_what_is_known(csv, faithful, capsys):
    path = csv("eruptions,waiting\n" + "".join(f"{a},{b}\n" for a, b in faithful))
    known = csv(json.dumps({"weights": [0.4, 0.6], "covariances": [[[36.0]], None]}), "known.json")
    assert run("fit", path, "--columns", "waiting", "--known", known, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["gmm"]["weights"] == [0.4, 0.6]
    assert document["gmm"]["covariances"][0] == [[36.0]]
    assert document["n_parameters"] == 3


BAD_TABLES = {
    "empty": ("", "is empty"),
    "blank lines": ("\n \n", "is empty"),
    "names alone": ("a,b\n", "names of columns but no rows"),
    "a word": (GOOD + "\n1,seven", "line 32, column 'b': 'seven' is no number"),
    "a word in the first row without names": ("1,NA\n2,3\n4,5\n", "line 1, column '1': 'NA' is a missing value"),
    "nan": (GOOD + "\nnan,1", "line 32, column 'a': 'nan' is a missing value; add --missing"),
    "nan in the first row": ("nan,1\n2,3\n", "line 1, column '0': 'nan' is a missing value"),
    "inf": (GOOD + "\n1,-inf", "line 32, column 'b': -inf is not finite"),
    "a gap": (GOOD + "\n1,", "line 32, column 'b': no value"),
    "a short row": (GOOD + "\n1", "line 32: 1 fields where the first line has 2"),
    "an open quotation mark": (GOOD + '\n"1,2\n3,4', "line 32: 1 fields"),
    "not text": (b"a\x00\xff\x01", "not a text file"),
    "too few rows": ("a,b\n1,2\n", "n_components=2 is more than the 1 row of data.csv"),
}


def one_sentence(captured):
    assert captured.out == ""
    assert captured.err.startswith("gmm-jax: ")
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_one_sentence(case, csv, capsys):
    text, sentence = BAD_TABLES[case]
    assert run("fit", csv(text), "--json") == 2
    captured = capsys.readouterr()
    one_sentence(captured)
    assert sentence in captured.err


BAD_OPTIONS = {
    "unknown column": (["--columns", "c"], "column 'c' does not exist"),
    "column out of range": (["--columns", "2"], "column '2' does not exist"),
    "unknown method": (["--method", "gibs"], "did you mean 'gibbs'"),
    "unknown option": (["--option", "n_restart=3"], "did you mean 'n_restarts'"),
    "option without value": (["--option", "n_restarts"], "NAME=VALUE"),
    "option that is no number": (["--option", "n_restarts=many"], "takes a whole number"),
    "too many restarts": (["--option", "n_restarts=1e400"], "takes a whole number"),
    "an option twice": (["--option", "tol=1", "tol=2"], "option 'tol' is given twice"),
    "an option that is not the user's": (["--option", "progress=1"], "no option 'progress'"),
    "a column twice": (["--columns", "a", "0"], "column 'a' of"),
    "negative seed": (["--seed", "-1"], "--seed must be a whole number from 0"),
    "huge seed": (["--seed", "9" * 30], "--seed must be a whole number from 0"),
    "no restart": (["--option", "n_restarts=0"], "n_restarts must be a positive integer"),
    "negative ridge": (["--option", "reg_covar=-1"], "reg_covar must be finite and not negative"),
    "ridge that is no number": (["--option", "reg_covar=big"], "reg_covar must hold real numbers"),
    "unknown start": (["--option", "init=best"], "init must be one of"),
    "more components than rows": (["-k", "31"], "n_components=31 is more than the 30 rows of data.csv"),
    "no component": (["-k", "0"], "n_components must be a positive integer"),
    "oracle": (["--method", "oracle"], "oracle needs the labels"),
    "missing file of what is known": (["--known", "nowhere.json"], "nowhere.json: No such file or directory"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_one_sentence(case, csv, capsys):
    arguments, sentence = BAD_OPTIONS[case]
    assert run("fit", csv(GOOD), *arguments) == 2
    captured = capsys.readouterr()
    one_sentence(captured)
    assert sentence in captured.err


BAD_KNOWN = {
    "not JSON": ("{weights: 1}", "is not JSON"),
    "a list": ("[0.5, 0.5]", "must hold a JSON object"),
    "another name": ('{"phi": [0.5, 0.5]}', "must hold a JSON object with any of weights, means, covariances"),
    "a sum that is not one": ('{"weights": [0.7, 0.7]}', "known.weights must sum to 1, got 1.4"),
    "nothing left": ('{"weights": [1.0, null]}', "leaves nothing for the free ones"),
    "words": ('{"weights": ["a", "b"]}', "weights must be a rectangular array of numbers"),
    "ragged": ('{"means": [[1, 2], [3]]}', "means must be a rectangular array of numbers"),
    "another shape": ('{"means": [[1], [2]]}', "known.means must have shape (2, 2)"),
    "half a mean": ('{"means": [[1, null], [2, 3]]}', "known.means of component 0 is partly NaN"),
    "not positive definite": ('{"covariances": [[[1, 2], [2, 1]], null]}', "must be positive definite; component 0"),
    "nothing free": (
        '{"weights": [0.5, 0.5], "means": [[0, 0], [1, 1]], "covariances": [[[1, 0], [0, 1]], [[1, 0], [0, 1]]]}',
        None,
    ),
}


@pytest.mark.parametrize("case", BAD_KNOWN)
def test_what_is_known_must_make_sense(case, csv, capsys):
    text, sentence = BAD_KNOWN[case]
    code = run("fit", csv(GOOD), "--known", csv(text, "known.json"))
    captured = capsys.readouterr()
    if sentence is None:  # EM has nothing to do, and says the likelihood
        assert code == 0
        return
    assert code == 2
    one_sentence(captured)
    assert sentence in captured.err


@pytest.mark.parametrize("arguments", [["fit"], ["fit", "x.csv", "--colums", "a"], ["no"], ["fit", "x", "-k", "two"]])
def test_words_that_no_command_knows_are_exit_code_2(arguments, capsys):
    assert run(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_missing_file_and_a_folder_are_named(tmp_path, capsys):
    for path in (tmp_path / "nowhere.csv", tmp_path):
        assert run("fit", path) == 2
        captured = capsys.readouterr()
        one_sentence(captured)
        assert str(path) in captured.err


def test_a_collapse_is_exit_code_3_with_the_reason(csv, capsys):
    """Two points, two components: each Σ_k shrinks to nothing."""
    assert run("fit", csv("a\n0\n1\n"), "--option", "reg_covar=0", "--json") == 3
    document = json.loads(capsys.readouterr().out)
    assert document["status"] in ("COLLAPSED", "NON_FINITE")
    assert document["advice"]


def test_what_the_program_got_wrong_is_not_hidden(csv, monkeypatch):
    def broken(key, x, spec):
        raise TypeError("a bug")

    monkeypatch.setattr(methods, "load", lambda name: methods.Method(name, "", {}, broken))
    with pytest.raises(TypeError, match="a bug"):  # the interpreter's exit code is 1, with a traceback
        run("fit", csv(GOOD))


def test_ctrl_c_is_130(csv, monkeypatch, capsys):
    def interrupted(key, x, spec):
        raise KeyboardInterrupt

    monkeypatch.setattr(methods, "load", lambda name: methods.Method(name, "", {}, interrupted))
    assert run("fit", csv(GOOD)) == 130
    assert "interrupted" in capsys.readouterr().err


@contextmanager
def impatient(*_, **__):
    """A progress bar at which Ctrl-C is pressed."""

    def update(*_):
        raise KeyboardInterrupt

    yield update


STARTED = "import sys, gmm_jax.__main__ as m; del sys.argv[1]; print('ready', flush=True); m.main()"


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.5, 2.5])
def test_ctrl_c_in_the_first_seconds_is_130(seconds, csv, faithful, tmp_path):
    """While modules are imported, and while programs are compiled on threads (a fresh cache)."""
    path = csv("eruptions,waiting\n" + "".join(f"{a},{b}\n" for a, b in faithful))
    command = [sys.executable, "-c", STARTED, "gmm-jax", "fit", path, "-k", "4", "--option", "tol=0", "max_iter=100000"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"interrupted" in errors


def test_an_interrupted_gibbs_does_not_pass_em_off_as_the_posterior(csv, faithful, monkeypatch, capsys):
    path = csv("eruptions,waiting\n" + "".join(f"{a},{b}\n" for a, b in faithful))
    search = em.fit_em_restarts

    def interrupted(*arguments, **options):
        raise em.Interrupted(search(*arguments, **options))

    monkeypatch.setattr("gmm_jax.bayes.starts.fit_em_restarts", interrupted)
    assert run("fit", path, "--method", "gibbs", "--json") == 130
    document = json.loads(capsys.readouterr().out)
    assert (document["method"], document["status"]) == ("gibbs", "RUNNING")
    assert document["advice"].startswith("interrupted before gibbs began: this is the best EM fit so far, not the")
    assert "converged" not in document["advice"]
    assert run("fit", path, "--method", "gibbs") == 130
    assert "not the answer of gibbs" in " ".join(capsys.readouterr().out.split())


def test_an_interrupted_bayes_prints_the_draws_so_far(csv, faithful, monkeypatch, capsys):
    path = csv("eruptions,waiting\n" + "".join(f"{a},{b}\n" for a, b in faithful))

    @wraps(bayes.sample)  # its options are those of the method
    def interrupted(key, x, spec, *, n_chains, init, **_):
        raise bayes.Interrupted(bayes.gibbs(key, x, spec, n_chains=n_chains, init=init, n_warmup=20, n_draws=40))

    monkeypatch.setattr(bayes, "sample", interrupted)
    assert run("fit", path, "--method", "bayes", "--json") == 130
    document = json.loads(capsys.readouterr().out)
    assert (document["method"], document["status"]) == ("bayes", "UNMIXED")
    assert np.ravel(document["standard_errors"]["means"]).min() > 0.0
    assert "before bayes began" not in document["advice"]


# ---- fit: what the answer says of itself


def said(capsys, *arguments):
    """(exit code, the document of --json), after a check that the table says the same sentences."""
    code = run("fit", *arguments)
    table = " ".join(capsys.readouterr().out.split())
    assert run("fit", *arguments, "--json") == code
    document = json.loads(capsys.readouterr().out)
    assert " ".join(document["advice"].split()) in table
    assert document["method"] in table
    assert f"{document['n_samples']} rows" in table
    return code, document


def test_singular_features_are_named_by_their_names(csv, faithful, capsys):
    rows = "".join(f"{a},{b},{60 * a},7\n" for a, b in faithful.tolist())
    path = csv("eruptions,waiting,seconds,site\n" + rows)
    for where in ([], ["--stream"]):
        code, document = said(capsys, path, *where, "--option", "n_restarts=2", "tol=1e-4")
        assert code == 0
        assert "feature 'seconds' is a multiple or a copy of 'eruptions'" in document["advice"]
        assert "feature 'site' is constant" in document["advice"]
        assert "column(s)" not in document["advice"]


def test_the_exit_code_is_0_only_where_the_answer_may_be_used(csv, npy, faithful, capsys):
    good = csv("eruptions,waiting\n" + "".join(f"{a},{b}\n" for a, b in faithful))
    code, document = said(capsys, good)
    assert (code, document["status"], document["n_samples"], document["columns"]) == (
        0,
        "CONVERGED",
        272,
        ["eruptions", "waiting"],
    )
    early = ["--option", "max_iter=2", "tol=0"]
    for arguments in ([good, *early], [npy, "--stream", *early]):
        code, document = said(capsys, *arguments)
        assert (code, document["status"]) == (3, "MAX_ITER")
        assert "max_iter" in document["advice"]
    code, document = said(capsys, good, "--method", "gibbs", "--option", "n_chains=1", "n_draws=20", "n_warmup=5")
    assert (code, document["status"]) == (3, "UNMIXED")


@pytest.mark.parametrize(("spurious", "expected"), [([True, True], 3), ([True, False], 0), ([], 0)])
def test_only_spurious_optima_are_exit_code_3(spurious, expected, csv, monkeypatch, capsys):
    point = GMM(np.ones(2) / 2, np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    ends = [{"optimum": i + 1, "spurious": value} for i, value in enumerate(spurious)]
    info = {"landscape": [*ends, {"optimum": None}], "spurious": bool(spurious) and all(spurious)}
    answer = Fit(point, None, None, Status.CONVERGED, info)
    monkeypatch.setattr(methods, "load", lambda name: methods.Method(name, "", {}, lambda key, x, spec: answer))
    assert run("fit", csv(GOOD), "--json") == expected
    assert json.loads(capsys.readouterr().out)["status"] == "CONVERGED"


def test_standard_input_is_read_to_its_last_row(faithful, capsys, monkeypatch):
    text = "eruptions,waiting\n" + "".join(f"{a},{b}\n" for a, b in faithful) * 5
    for dash, arguments in (("-", []), ("-", ["--stream"])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        code, document = said_once(capsys, dash, *arguments, "--option", "n_restarts=2")
        assert (code, document["n_samples"]) == (0, 272 * 5)


def said_once(capsys, *arguments):
    """(exit code, the document of --json)."""
    code = run("fit", *arguments, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_a_gap_in_parquet_has_the_name_of_its_column(tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1.0, 2.0, 3.0], "b": [1.0, None, 2.0]}), tmp_path / "x.parquet")
    assert run("fit", tmp_path / "x.parquet") == 2
    assert "x.parquet, row 1, column 'b': nan is not finite" in capsys.readouterr().err


# ---- fit --stream, fit --scheduler


@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_a_cluster_finds_what_one_memory_finds(npy, capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("gmm_jax.cli.configure_jax", lambda: jax.config.update("jax_enable_x64", True))  # of workers
    tight = [npy, "--option", "reg_covar=0", "tol=1e-12", "n_restarts=2"]
    (code, there), (_, here) = said_once(capsys, *tight, "--scheduler", "local"), said_once(capsys, *tight)
    assert code == 0
    assert there["n_samples"] == 272
    for name in ("log_likelihood", "n_parameters", "aic", "bic"):
        assert there[name] == pytest.approx(here[name], rel=1e-9)


def test_ctrl_c_during_em_leaves_the_last_iterate(csv, monkeypatch, capsys):
    monkeypatch.setattr("gmm_jax.bench.report.progress_bar", impatient)
    assert run("fit", csv(GOOD), "--json", "--option", "n_restarts=2", "tol=0") == 130
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] in ("RUNNING", "MAX_ITER")
    assert np.shape(answer["gmm"]["means"]) == (2, 2)


@pytest.fixture
def npy(tmp_path, faithful):
    """Old Faithful's geyser as a .npy file."""
    np.save(tmp_path / "x.npy", faithful)
    return str(tmp_path / "x.npy")


STREAM = ["--stream", "--option", "n_restarts=2", "tol=0", "max_iter=30", "reg_covar=0", "--json"]


def test_a_streamed_fit_is_interrupted_with_130_and_resumed_to_the_same_answer(npy, tmp_path, monkeypatch, capsys):
    assert run("fit", npy, *STREAM) == 3  # at max_iter
    whole = json.loads(capsys.readouterr().out)
    file, calls = tmp_path / "fit.npz", iter(range(1, 100))

    @contextmanager
    def bar(description, unit):
        def update(*_):
            if next(calls) == 2:
                raise KeyboardInterrupt

        yield update

    with monkeypatch.context() as patch:
        patch.setattr("gmm_jax.bench.report.progress_bar", bar)
        patch.setattr("gmm_jax.em.sums.SECONDS_BETWEEN_LOOKS", 0.0)
        assert run("fit", npy, *STREAM, "--checkpoint", file) == 130
    captured = capsys.readouterr()
    assert json.loads(captured.out)["status"] == "RUNNING"
    assert f"go on from {file} with --resume" in captured.err
    assert run("fit", npy, *STREAM, "--checkpoint", file, "--resume") == 3
    assert json.loads(capsys.readouterr().out) == whole


@pytest.mark.slow
def test_a_streamed_fit_agrees_with_one_in_memory(npy, capsys):
    tight = ["--option", "reg_covar=0", "tol=1e-12", "n_restarts=2", "--json"]
    assert run("fit", npy, "--stream", *tight) == 0
    streamed = json.loads(capsys.readouterr().out)
    assert run("fit", npy, *tight) == 0
    in_memory = json.loads(capsys.readouterr().out)
    for name in ("log_likelihood", "n_parameters", "aic", "bic"):
        assert streamed[name] == pytest.approx(in_memory[name], rel=1e-9)


BAD_STREAMS = {
    "another method": (["--stream", "--method", "gibbs"], "--stream is for method em"),
    "another method on a cluster": (["--scheduler", "local", "--method", "gibbs"], "--scheduler is for method em"),
    "two places": (["--stream", "--scheduler", "local"], "choose one"),
    "no scheduler": (["--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers at 'tcp://127.0.0.1:9'"),
    "no address": (["--scheduler", "nowhere"], "no Dask scheduler answers at 'nowhere'"),
    "another option": (["--stream", "--option", "n_restart=2"], "did you mean 'n_restarts'"),
    "a checkpoint in memory": (["--checkpoint", "a.npz"], "belong to --stream"),
    "a checkpoint nowhere": (["--stream", "--checkpoint", "no/where.npz"], "there is no folder no"),
    "nothing to resume": (["--stream", "--resume"], "give its path as checkpoint"),
}


@pytest.mark.parametrize("case", BAD_STREAMS)
def test_a_bad_stream_is_one_sentence(case, npy, capsys, monkeypatch):
    arguments, sentence = BAD_STREAMS[case]
    if case == "no scheduler":
        distributed = pytest.importorskip("distributed")
        impatient = lambda address, timeout: distributed.client.Client(address, timeout=timeout / 10)  # noqa: E731
        monkeypatch.setattr(distributed, "Client", impatient)
    assert run("fit", npy, *arguments) == 2
    captured = capsys.readouterr()
    one_sentence(captured)
    assert sentence in captured.err


# ---- compare and report


COMPARE = ["compare", "tiny", "--problems", "course_2d", "--methods", "oracle", "em", "--seeds", "2", "--n", "60"]


def test_compare_resumes_and_report_draws_again(tmp_path, capsys, monkeypatch):
    small = [*COMPARE, "--option", "em.n_restarts=4", "--out", tmp_path]
    assert run(*small) == 0
    folder = tmp_path / "tiny"
    assert {"rows.csv", "provenance.json", "report.html", "cells"} <= {path.name for path in folder.iterdir()}
    assert len(list((folder / "cells").iterdir())) == 4
    rows = (folder / "rows.csv").read_text()
    capsys.readouterr()

    def never(*_):
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr("gmm_jax.bench.runner.run", never)
    assert run(*small, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["seed"]) for row in document] == [("oracle", 0), ("em", 0), ("oracle", 1), ("em", 1)]
    assert (folder / "rows.csv").read_text() == rows
    (folder / "report.html").unlink()
    assert run("report", folder) == 0
    assert (folder / "report.html").stat().st_size > 1000
    assert (folder / "rows.csv").read_text() == rows


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--problems", "course2d"], "course_2d"),
        (["--methods", "emm"], "did you mean 'em'"),
        (["--option", "em.n_restart=4"], "did you mean 'n_restarts'"),
        (["--option", "gibbs.n_draws=4"], "METHOD.NAME=VALUE with one of oracle, em"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--n", "0"], "n must be at least 1"),
    ],
)
def test_what_cannot_be_compared_writes_nothing(tmp_path, capsys, arguments, sentence):
    assert run(*COMPARE, "--out", tmp_path / "results", *arguments) == 2
    captured = capsys.readouterr()
    one_sentence(captured)
    assert sentence in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_failed_cell_is_exit_code_3(tmp_path, monkeypatch, capsys):
    def failing(key, x, spec):
        raise RuntimeError("out of luck")

    real = methods.load
    stub = methods.Method("em", "", {}, failing)
    monkeypatch.setattr(methods, "load", lambda name: stub if name == "em" else real(name))
    assert run(*COMPARE, "--out", tmp_path) == 3
    assert "0/2" in capsys.readouterr().out
    assert "out of luck" in (tmp_path / "tiny" / "report.html").read_text()


def test_unreadable_results_are_exit_code_4(tmp_path, capsys):
    no_provenance = "problem,case,method,seed,status\na,b,em,0,X\n"
    for damage in (None, "", "a,b\n1\n", "a,b\n1,2\n", "problem,method\n", no_provenance):
        if damage is not None:
            (tmp_path / "rows.csv").write_text(damage)
        before = sorted(tmp_path.iterdir())
        assert run("report", tmp_path) == 4, damage
        captured = capsys.readouterr()
        one_sentence(captured)
        assert "rows.csv" in captured.err or "provenance.json" in captured.err
        assert sorted(tmp_path.iterdir()) == before


def test_json_is_one_document_and_nothing_else(csv, capsys):
    def noisy(key, x, spec):
        point = GMM(np.ones(2) / 2, np.array([[0.0, np.nan], [1.0, 1.0]]), np.stack([np.eye(2)] * 2))
        return Fit(point, None, None, Status.CONVERGED, {"r_hat": np.inf, "values": jax.numpy.ones(2)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "load", lambda name: methods.Method(name, "", {}, noisy))
        assert run("fit", csv(GOOD), "--json") == 3
    captured = capsys.readouterr()
    document = json.loads(captured.out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert document["gmm"]["means"][0] == [0.0, None]
    assert document["info"] == {"r_hat": None, "values": [1.0, 1.0]}
    assert document["status"] == "NON_FINITE"
    assert captured.err == ""
