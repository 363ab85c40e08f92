"""The README tells the truth: its code runs, its commands exist, its numbers are those of the rows."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gmm_jax import GMM, MixtureSpec, Status
from gmm_jax.bench import headline, methods

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_ten_lines_run_and_recover_the_truth(capsys):
    names = {}
    exec(BLOCKS[0], names)
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 14
    truth = names["problem"].truth
    assert np.abs(np.sort(names["found"].gmm.means, axis=0) - np.sort(truth.means, axis=0)).max() < 0.3
    assert "kl" in capsys.readouterr().out
    for block in BLOCKS[1:-1]:  # the other doors
        exec(block, names)
        assert capsys.readouterr().out
        assert len([line for line in block.splitlines() if line.strip()]) <= 10
    assert names["model"].converged_
    assert names["bayesian"].converged_


def test_the_readmes_method_is_a_method(rng_x):
    names = {}
    exec(BLOCKS[-1], names)
    method = methods.from_function("floor", names["fit"])
    answer = method.fit(None, rng_x, MixtureSpec(2))
    assert answer.status == Status.CONVERGED
    assert isinstance(answer.point, GMM)


@pytest.fixture
def rng_x():
    return np.random.default_rng(0).normal(size=(20, 2))


@pytest.mark.parametrize("command", ["demo", "fit", "compare", "report", "diff", "list", "check-method"])
def test_every_command_of_the_readme_has_help(command):
    done = subprocess.run(
        [sys.executable, "-m", "gmm_jax", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: gmm-jax " + command)


def test_the_headline_is_what_the_rows_say():
    if not (ROOT / "results" / "recovery" / "rows.csv").exists():
        pytest.skip("results/recovery is not there: python experiments/recovery.py makes it")
    assert headline.refresh(ROOT) == TEXT


def test_the_files_of_the_map_exist():
    tree = re.search(r"```\n(gmm_jax/.*?)```", TEXT, flags=re.DOTALL).group(1)
    names = re.findall(r"^\s*([a-z_]+(?:/|\.py))", tree, flags=re.MULTILINE)
    assert len(names) > 10
    for name in names:
        assert (ROOT / name).exists() or (ROOT / "gmm_jax" / name).exists(), name
