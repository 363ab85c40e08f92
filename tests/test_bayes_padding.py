"""Rows that fill up change no engine: the same draws, densities and evidence as without them, for the same key."""

import jax
import numpy as np
import pytest

import oracles
from conftest import assert_trees_close, random_gmm
from gmm_jax import MixtureSpec
from gmm_jax.bayes import gibbs, laplace, nuts, svi, target, telescoping
from gmm_jax.mixture import annotations

KEY, SPEC, N = jax.random.key(0), MixtureSpec(2), 77  # not one of the sizes
X = oracles.random_data(np.random.default_rng(1), N, random_gmm(0, 2, 1, "full"))
GAPS = np.where(np.arange(N)[:, None] % 5 == 0, np.nan, X)
LABELS = np.where(np.arange(N) % 3 == 0, (X[:, 0] > X.mean()).astype(int), -1)
SHORT = {"n_chains": 2, "n_warmup": 0, "n_draws": 50}
ENGINES = {
    "gibbs": lambda: gibbs(KEY, X, SPEC, **SHORT),
    "gibbs with labels and gaps": lambda: gibbs(KEY, GAPS, SPEC, labels=LABELS, missing="marginalise", **SHORT),
    "nuts": lambda: nuts(KEY, X, SPEC, n_chains=1, n_warmup=0, n_draws=3),
    "svi": lambda: svi(KEY, X, SPEC, n_chains=1, n_warmup=20, n_draws=3),
    "laplace": lambda: laplace(KEY, X, SPEC, n_chains=1, n_warmup=20, n_draws=3),
    "telescoping": lambda: telescoping(KEY, X, SPEC, n_chains=1, n_warmup=0, n_draws=20),
}
LONG = ("nuts", "svi")  # to compile


@pytest.mark.parametrize("engine", [pytest.param(e, marks=[pytest.mark.slow] * (e in LONG)) for e in ENGINES])
def test_engines_do_not_see_rows_that_fill_up(engine, monkeypatch):
    padded = ENGINES[engine]()
    for module in (annotations, target):
        monkeypatch.setattr(module, "padded_size", lambda n, *_: n)
    alone = ENGINES[engine]()
    if hasattr(padded, "message"):
        padded, alone = padded._replace(message=None), alone._replace(message=None)
    assert_trees_close(padded, alone, rtol=1e-6, atol=1e-6)
