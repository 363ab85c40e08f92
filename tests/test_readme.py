"""README and docs tell the truth: their code runs, their links lead somewhere, what is generated is what rows say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import readme
from gmm_jax import cli
from gmm_jax.bench import store
from shared.paired import paired_ratio
from speed import ratios as speed_ratios
from speed import verdict

ROOT = Path(__file__).parents[1]
PLACES = [path for pattern in ("docs/*.md", "docs/guides/*.md") for path in sorted(ROOT.glob(pattern))]
PAGES = ["README.md", "results/README.md", *(path.relative_to(ROOT).as_posix() for path in PLACES)]
OURS = ("README.md", "docs/experiments.md")  # the other pages have tests of their own
MOST_COMMANDS, MOST_ROWS = 10, 8


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), flags=re.DOTALL)


def commands(page):
    return [line for block in blocks(page, "console") for line in block.splitlines()]


def lines_of(block):
    return [line for line in block.splitlines() if line.strip()]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_ten_lines_run_and_recover_the_truth(capsys):
    names, (block,) = {}, blocks("README.md", "python")
    exec(block, names)
    assert len(lines_of(block)) <= 14
    truth = names["problem"].truth
    assert np.abs(np.sort(names["found"].gmm.means, axis=0) - np.sort(truth.means, axis=0)).max() < 0.3
    assert "kl" in capsys.readouterr().out


@pytest.mark.parametrize("line", [line for page in OURS for line in commands(page)])
def test_every_command_is_understood(line, monkeypatch):
    program, *arguments = shlex.split(line, comments=True)
    if program == "python":
        assert (ROOT / arguments[0]).exists()
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", text_of("Makefile"), flags=re.MULTILINE)
    elif program == "pip":
        assert arguments == ["install", "."]
    else:
        understood = []
        monkeypatch.setattr(cli, "guarded", understood.append)
        cli.main(arguments)
        assert (program, len(understood)) == ("gmm-jax", 1)


@pytest.mark.parametrize("page", OURS)
def test_a_block_of_commands_is_short(page):
    assert all(len(lines_of(block)) <= MOST_COMMANDS for block in blocks(page, "console"))


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help(command):
    done = subprocess.run(
        [sys.executable, "-m", "gmm_jax", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: gmm-jax " + command)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_of_the_checkout(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(page)):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_what_is_generated_is_what_rows_and_sources_say():
    for page, text in readme.generated().items():
        assert text == text_of(page), f"{page}: python experiments/readme.py writes it anew"


def test_the_headline_is_short_and_shows_where_methods_differ():
    table = text_of("README.md").partition(readme.BEGIN)[2].partition(readme.END)[0]
    shown = re.findall(r"^\| (\w+) \| +[\d.]", table, flags=re.MULTILINE)
    assert 0 < len(shown) <= MOST_ROWS
    rows = store.read_rows(ROOT / "results" / "recovery")
    methods = {row["method"] for row in rows} - {"oracle"}
    ratios = {}
    for problem in {row["problem"] for row in rows}:
        mine = [row for row in rows if row["problem"] == problem]
        columns = [(m, "kl") for m in methods] + [("bayes", "kl_predictive")]
        known = [found.value for m, c in columns if (found := paired_ratio(mine, m, column=c)) is not None]
        ratios[problem] = max(known) / min(known)
    assert min(ratios[p] for p in shown) >= max(ratio for p, ratio in ratios.items() if p not in shown)


def test_a_paired_ratio_is_that_of_equal_data_sets_alone():
    rows = [
        {"problem": p, "seed": s, "method": m, "kl": kl}
        for p, s, m, kl in [("a", 0, "oracle", 1.0), ("a", 0, "em", 2.0), ("a", 1, "oracle", 4.0), ("a", 1, "em", 32.0)]
    ]
    found = paired_ratio([*rows, {"problem": "a", "seed": 2, "method": "em", "kl": None}], "em")
    assert (found.value, found.n) == (pytest.approx(4.0), 2)
    assert found.error == pytest.approx(4.0 * np.std(np.log([2.0, 8.0]), ddof=1) / np.sqrt(2.0))
    assert paired_ratio(rows[:2], "em") is None


def test_one_ratio_is_published_wherever_a_speed_is_named():
    """One fit against two processes of a peer was 23 in the README and 39 in the results."""
    rows = store.read_rows(ROOT / "results" / "speed_em")
    cases = [row for row in rows if row["part"] == "iteration" and row["case"] == "n=100000 d=2 K=8"]
    times = verdict.times(speed_ratios.fastest(cases, "scikit-learn", speed_ratios.ONE_FIT))
    page = text_of("results/README.md")
    assert f"{times:.3g} (" in page.partition("n, d, K = (100000, 2, 8)")[0].rpartition("K = (10000, 2, 5)")[2]
    assert f"| an iteration, n = 100,000, d = 2, K = 8 | scikit-learn | {times:.3g} (" in page
