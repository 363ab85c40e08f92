"""Every promise of a method can be kept, and is seen when it is broken; check-method says so from the shell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gmm_jax.bench import conformance, methods
from gmm_jax.cli import main

BREAKS = {  # the method -> the promises it breaks
    "without_sentence": {"says what it is"},
    "single_precision": {"answers"},
    "far_away": {"answers"},
    "forgetful": {"repeats itself"},
    "ignores_what_is_known": {"honours what is known", "answers"},
    "takes_anything": {"honours what is known", "refuses bad input", "answers"},
    "writes_to_x": {"leaves the data alone", "repeats itself"},
}


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """The shell sets jax.config; tests that follow must not see it."""
    monkeypatch.setattr("gmm_jax.cli.configure_jax", lambda: None)


def outcomes(name):
    return {outcome.promise: outcome for outcome in conformance.check(methods.load(f"cheap_methods:{name}"))}


def test_a_good_method_keeps_every_promise_but_what_it_says_it_cannot():
    found = outcomes("split")
    assert {promise: outcome.kept for promise, outcome in found.items()} == {
        promise: None if promise == "honours what is known" else True for promise in conformance.PROMISES
    }


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_promise_is_seen(name):
    found = outcomes(name)
    broken = {promise for promise, outcome in found.items() if outcome.kept is False}
    assert broken >= BREAKS[name] - {"answers"}
    assert broken <= BREAKS[name]
    assert all(found[promise].reason for promise in broken)


@pytest.mark.parametrize("name", ["raises", "gives_nan"])
def test_whatever_is_raised_is_an_outcome(name):
    found = outcomes(name)
    assert found["answers"].kept is False
    assert {"raises": "RuntimeError: out <b>of</b> luck", "gives_nan": "NON_FINITE"}[name] in found["answers"].reason


def test_what_is_not_installed_is_not_asked():
    def missing(key, x, spec):
        raise methods.Unavailable("unavailable: pip install something")

    found = conformance.check(methods.from_function("missing", missing))
    assert found[1] == ("answers", None, "unavailable: pip install something")


def test_the_command(capsys):
    assert main(["check-method", "cheap_methods:split", "--option", "value=0.1"]) == 0
    out = capsys.readouterr().out
    assert "not asked" in out
    assert all(promise in out for promise in conformance.PROMISES)
    assert main(["check-method", "cheap_methods:raises", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert {record["promise"] for record in document["promises"]} == set(conformance.PROMISES)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:fit", "module 'no_such_module' of a method cannot be imported"),
        ("cheap_methods:fitt", "module 'cheap_methods' has no function 'fitt'"),
        ("cheap_methods:value", "has no function 'value'"),
        (":fit", "a method is named module:function"),
        ("../x:fit", "got module '../x'"),
        ("emm", "did you mean 'em'"),
    ],
)
def test_a_method_that_is_not_there_is_one_sentence(name, sentence, capsys):
    assert main(["check-method", name]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


def test_a_method_is_found_in_the_current_folder(tmp_path):
    (tmp_path / "mine.py").write_text((Path(__file__).parent / "cheap_methods.py").read_text())
    program = "import sys; sys.path = sys.path[1:]; from gmm_jax import cli; print(cli._known_methods(['mine:split']))"
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "{'mine:split': {}}", done.stderr
