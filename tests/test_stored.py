"""Programs on disk: found by the next process, and only where they are the same."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
import pytest

from gmm_jax import stored
from gmm_jax.bayes import default_prior
from gmm_jax.bayes import prior as of_prior
from gmm_jax.bayes.prior import to_leaves
from gmm_jax.mixture import MixtureSpec, programs
from gmm_jax.mixture.starts import kmeans

pytestmark = pytest.mark.skipif(not version("jax").startswith(stored.TRIED), reason="not tried with this JAX")

PROGRAM = """
import sys
from pathlib import Path
import jax
import numpy as np
from gmm_jax import MixtureSpec, bayes, em, stored

traced = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, fun_name="", **_: traced.append(fun_name) if event.endswith("trace_duration") else None
)
jax.config.update("jax_enable_x64", True)
if len(sys.argv) > 1:
    stored.keep_in(Path(sys.argv[1]))
x, spec = np.random.default_rng(0).normal(size=(90, 2)), MixtureSpec(2)
found = em.fit_em_restarts(jax.random.key(0), x, spec, n_restarts=3)
errors = em.standard_errors(x, found, spec)
posterior = bayes.gibbs(jax.random.key(1), x, spec, n_chains=2, n_warmup=5, n_draws=20)
numbers = found.best.gmm.means, errors.means, posterior.draws.means
print([np.asarray(part).ravel()[:5].tolist() for part in numbers])
print(*traced)
"""
LONG = ("_draw_of", "_advance", "_results", "_derivatives", "_around", "read_draws", "prior_of")


@jax.tree_util.register_dataclass
@dataclass
class Problem:
    """What the compiler does not see stands in the structure."""

    form: Any = field(metadata={"static": True})


def run(*arguments, **environment):
    """What the program prints: numbers, and how many of the functions that take long to trace were traced."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers, traced = done.stdout.splitlines()[-2:]
    return numbers, sum(name in LONG for name in traced.split())


def test_the_next_process_traces_nothing_and_has_the_same_answer(tmp_path):
    """Under another order of NumPy's sets, too, and with files that are damaged."""
    without, n_traced = run()
    first, traced = run(str(tmp_path), PYTHONHASHSEED="1")
    assert traced == n_traced > 5
    second, traced = run(str(tmp_path), PYTHONHASHSEED="2")
    assert traced == 0
    files = list(tmp_path.iterdir())
    for file in files[::2]:
        file.write_bytes(file.read_bytes()[:1000])
    third, traced = run(str(tmp_path), PYTHONHASHSEED="3")
    assert 0 < traced < n_traced
    assert without == first == second == third
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in files}


def test_other_settings_have_programs_of_their_own(tmp_path):
    run(str(tmp_path))
    before = len(list(tmp_path.iterdir()))
    _, traced = run(str(tmp_path), XLA_FLAGS="--xla_backend_optimization_level=1")
    assert traced > 5
    assert len(list(tmp_path.iterdir())) == 2 * before


def test_the_library_keeps_nothing():
    assert programs._store == [None]


def test_only_what_means_the_same_in_another_process_has_a_name():
    tree = jax.tree.structure((MixtureSpec(2), {"a": 1.0}))
    assert stored.named((kmeans, tree, [((3, 2), "float64")], {"n": 1}))
    for other in (lambda x: x, partial(kmeans), np.zeros(3), np.linalg.norm, run, object()):
        with pytest.raises(stored.NotNamed):
            stored.named(("a", [other]))


def test_priors_have_a_name_by_their_distributions_and_shapes(monkeypatch):
    x = np.random.default_rng(0).normal(size=(50, 2))
    form = [to_leaves(default_prior(x, MixtureSpec(k)))[1] for k in (2, 2, 3)]
    assert form[0] == form[1] != form[2]
    assert hash(form[0]) == hash(form[1])
    assert " at 0x" not in repr(form[0])
    monkeypatch.setattr(of_prior, "_leaf_names", lambda *_: [])  # of a distribution whose numbers cannot be told apart
    assert " at 0x" in repr(to_leaves(default_prior(x, MixtureSpec(2)))[1])
    monkeypatch.undo()

    class Own(type(default_prior(x, MixtureSpec(2)).weights)):
        """A distribution of the user's: its name says nothing about it."""

    prior = default_prior(x, MixtureSpec(2))
    own = type(prior)(Own(prior.weights.concentration), prior.means, prior.covariances)
    assert " at 0x" in repr(to_leaves(own)[1])
    with pytest.raises(stored.NotNamed):
        stored.named(jax.tree.structure(Problem(to_leaves(own)[1])))


def test_the_oldest_programs_go_where_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "MOST_BYTES", 25)
    monkeypatch.setattr(programs, "_store", [None])
    for i in range(4):
        file = tmp_path / f"program{i}"
        file.write_bytes(bytes(10))
        os.utime(file, (time.time() - 100 + i,) * 2)
    stored.keep_in.__wrapped__(tmp_path)  # conftest has put another in its place
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program2", "program3"]
    assert programs._store != [None]
