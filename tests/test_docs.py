"""The pages in docs/ tell the truth: code runs and is short, commands are understood, figures are those of the rows."""

import re
import shlex
from pathlib import Path

import pytest

from gmm_jax import cli, shell
from gmm_jax.bench import store

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "which.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", TEXT, flags=re.DOTALL) for line in block.splitlines()]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_blocks_run_one_after_the_other(capsys, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names = {}
    for block in BLOCKS:
        exec(block, names)
        assert capsys.readouterr().out
    assert names["bayesian"].converged_


@pytest.mark.parametrize("block", [*BLOCKS, "\n".join(COMMANDS)])
def test_every_block_takes_ten_lines_or_fewer(block):
    assert len([line for line in block.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line, monkeypatch):
    program, *arguments = shlex.split(line)
    if program == "python":
        assert (ROOT / arguments[0]).exists()
        return
    understood = []
    monkeypatch.setattr(cli, "guarded", understood.append)
    cli.main(arguments)
    assert understood


def test_the_shares_of_criteria_are_those_of_the_rows():
    answer = store.read_json(ROOT / "results" / "choose_k" / "provenance.json")["answer"]
    at_three = re.search(r"3 sd apart \(.*?\): (.*?)[;\n]", answer).group(1)
    said = dict(part.split() for part in at_three.split(", "))
    table = TEXT.partition("## Which number")[2].partition("## Which uncertainty")[0]
    for row in re.findall(r"^\| (`.*?) \|.*\| (\d\.\d+)", table, flags=re.MULTILINE):
        for name in re.findall(r"`(\w+)`", row[0]):
            assert float(said[name]) == float(row[1]), name


def test_the_runs_of_the_race_are_those_of_the_results():
    answer = store.read_json(ROOT / "results" / "restarts" / "provenance.json")["answer"]
    lost = re.search(r"lost the best fit in (\d+ of \d+) runs", answer).group(1)
    assert f"lost in {lost} runs" in TEXT


def test_the_exit_codes_are_those_of_the_shell():
    table = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)]
    said = {value for name, value in vars(shell).items() if name.startswith("EXIT_")}
    assert codes == sorted(said | {1})  # 1 is Python's own, with a traceback
