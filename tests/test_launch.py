"""The launcher: whatever becomes of a rank, the launcher says which one it was, and nobody is left.

Ranks are small programs without JAX, so that a test takes a second or two; tests/test_sharded.py has real ones.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gmm_jax import launch as launcher
from gmm_jax.launch import launch

REPOSITORY = str(Path(__file__).parents[1])
BEGIN = """
import os, signal, subprocess, sys, time
from pathlib import Path
from gmm_jax import launch
here = launch.place()
folder = Path(sys.argv[1])
(folder / f"pid{here.rank}").write_text(str(os.getpid()))
"""
FOR_EVER = "(folder / f'here{here.rank}').touch()\nlaunch.say_joined()\ntime.sleep(300)"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(launcher, "GRACE", 1.0)
    monkeypatch.setenv("PYTHONPATH", REPOSITORY)


def ranks(folder, program):
    """The command of a rank that says where it stands, and then does what the program says."""
    return [sys.executable, "-c", BEGIN + program, str(folder)]


def assert_nobody_is_left(folder):
    started = [int(path.read_text()) for path in folder.glob("pid*")]
    assert started
    _until(lambda: not any(map(_is_there, started)), 5.0)  # orphans are buried by the system, when it finds time


def test_ranks_learn_their_places_and_all_must_end_well(tmp_path, capfd):
    program = """
(folder / f"place{here.rank}").write_text(f"{here.n_ranks} {here.coordinator}")
assert "GMM_JAX_RANK" not in os.environ
launch.say_joined()
print("from", here.rank)
"""
    assert launch(ranks(tmp_path, program), 3) == 0
    said = {(tmp_path / f"place{rank}").read_text() for rank in range(3)}
    assert len(said) == 1  # the same coordinator
    assert said.pop().startswith("3 127.0.0.1:")
    assert capfd.readouterr().out == "from 0\n"  # rank 0 alone is heard
    assert_nobody_is_left(tmp_path)


@pytest.mark.parametrize(
    ("fate", "limits", "sentence"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", {}, r"rank 1 (process {}) was killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", {"silence": 2.0}, r"rank 1 (process {}) is stopped (SIGSTOP)"),
        ("sys.exit('no such file')", {}, r"rank 1 (process {}) ended with exit code 1"),
        ("time.sleep(300)", {"timeout": 1.5}, "the time of 1.5 s is up"),
    ],
    ids=["killed", "stopped", "failed", "too slow"],
)
def test_one_rank_s_fate_is_named_and_ends_all(tmp_path, capfd, fate, limits, sentence):
    program = f"launch.say_joined()\nif here.rank == 1:\n    {fate}\n{FOR_EVER}"
    start = time.monotonic()
    assert launch(ranks(tmp_path, program), 2, **limits) == 1
    assert time.monotonic() - start < 20.0
    said = capfd.readouterr().err
    assert sentence.format((tmp_path / "pid1").read_text()) in said
    assert ("rank 1: no such file" in said) == ("such" in fate)  # its last words
    assert_nobody_is_left(tmp_path)


def test_a_coordinator_that_never_comes_is_named(tmp_path, capfd):
    program = "if here.rank == 0:\n    time.sleep(300)\n" + FOR_EVER
    assert launch(ranks(tmp_path, program), 2, join=2.0) == 1
    said = capfd.readouterr().err
    assert "did not meet at 127.0.0.1:" in said
    assert f"rank 0 (process {(tmp_path / 'pid0').read_text()}) never came" in said
    assert_nobody_is_left(tmp_path)


def test_a_verdict_of_all_ranks_is_the_exit_code(tmp_path, capfd):
    assert launch(ranks(tmp_path, "sys.exit(3)"), 2) == 3
    assert capfd.readouterr().err == ""


def test_children_and_the_deaf_are_ended_too(tmp_path):
    program = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if here.rank == 0:
    subprocess.Popen(["sleep", "300"])
else:
    time.sleep(1)
    sys.exit(1)
"""
    assert launch(ranks(tmp_path, program + FOR_EVER), 2) == 1
    assert_nobody_is_left(tmp_path)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGKILL, -signal.SIGKILL),
        pytest.param(signal.SIGTERM, 130, marks=pytest.mark.slow),
    ],
)
def test_no_rank_outlives_the_launcher(tmp_path, sent, code):
    command = [sys.executable, "-m", "gmm_jax", "launch", "-n", "2", "--", *ranks(tmp_path, FOR_EVER)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            _until(lambda: all((tmp_path / f"here{rank}").exists() for rank in range(2)))
            process.send_signal(sent)
            assert process.wait(20) == code
        finally:
            process.kill()
    assert_nobody_is_left(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(([], 2), "command"), ((["x"], 0), "n_ranks")],
)
def test_what_cannot_be_launched_is_a_sentence(arguments, word):
    with pytest.raises(ValueError, match=word):
        launch(*arguments)
    with pytest.raises(ValueError, match="no address of this machine"):
        launch(["x"], 2, host="192.0.2.1")


def _until(done, seconds=60.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def _is_there(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
