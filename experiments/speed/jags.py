"""Posterior by JAGS through R's rjags: labels are drawn, and the rest is conjugate, as in gibbs (Plummer 2003)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import jax
import numpy as np

from gmm_jax import bayes
from gmm_jax.bayes.model import Problem
from gmm_jax.bayes.target import prepare
from gmm_jax.bench.methods._peers import ask_r, check_answer, free_data, seed_of
from gmm_jax.bench.methods._posterior import posterior_of
from gmm_jax.mixture import GMM, NotSupported, Posterior, Status, predict
from gmm_jax.mixture.checks import check_count

HERE = Path(__file__)  # beside which lie its program in R and its model in BUGS


class Run(NamedTuple):
    """What JAGS drew, and its own times."""

    posterior: Posterior
    seconds_compile: float
    seconds: float


def sample(key, x, spec, init: GMM, *, n_chains, n_warmup, n_draws, timeout=None) -> Run:
    """JAGS from init, one mixture in the units of the data or one for each chain."""
    check_count(n_warmup, "n_warmup")  # it has no run of no sweeps
    check_supported(spec, x)
    problem, scaling = prepare(x, spec, n_chains=n_chains, n_warmup=n_warmup, n_draws=n_draws)
    hyper = bayes.hyperparameters(problem.prior, spec.covariance_type)
    if hyper.size_dof is not None:
        raise NotSupported("jags has no hierarchical prior over covariances, as the default is: give a fixed one.")
    many = init if np.ndim(init.means) == 3 else jax.tree.map(lambda leaf: np.asarray(leaf)[None], init)
    first = jax.tree.map(lambda leaf: np.resize(leaf, (n_chains, *leaf.shape[1:])), scaling.inward(many))
    arguments = (*problem.z.shape, spec.n_components, n_chains, n_warmup, n_draws, seed_of(key) >> 2)
    with TemporaryDirectory() as folder:
        _write(Path(folder), _arrays(problem, hyper, first))
        done = ask_r("rjags", HERE.with_name("jags.R").read_text(), folder, *arguments, timeout=timeout)
        compiling, running = map(float, check_answer(done).split())
        draws = _read(Path(folder), n_chains, n_draws, *first.means.shape[1:])
    return Run(posterior_of(problem, scaling, draws, {}, Status.SAMPLED), compiling, running)


def check_supported(spec, x) -> None:
    """NotSupported where there is no model of it here."""
    x = free_data("jags", x, spec, ("full",))
    if min(x.shape[1], spec.n_components) < 2:
        raise NotSupported("jags is asked for two features and two components or more: use gibbs.")


def _arrays(problem: Problem, hyper, first):
    """What the program reads, by name."""
    each = (jax.tree.map(lambda leaf, c=c: leaf[c], first) for c in range(len(first.means)))
    labels = np.stack([np.asarray(predict(gmm, problem.z)) for gmm in each])
    arrays = {name: np.asarray(getattr(hyper, name)) for name in ("alpha", "loc", "precision", "size", "dof")}
    arrays |= {"z": problem.z, "label": labels + 1.0, "weights": first.weights, "means": first.means}
    return arrays | {"precisions": np.linalg.inv(first.covariances)}


def _write(folder, arrays):
    (folder / "model").write_text(HERE.with_name("jags.bug").read_text())
    for name, values in arrays.items():
        np.asarray(values, "<f8").ravel(order="F").tofile(folder / name)  # R stores by columns


def _read(folder, n_chains, n_draws, n_components, n_features):
    """The draws as a mixture with leading (chains, draws); R's arrays end with draws and chains."""
    k, d = n_components, n_features

    def read(name, *shape):
        values = np.fromfile(folder / f"drawn_{name}", "<f8").reshape(*shape, n_draws, n_chains, order="F")
        return np.ascontiguousarray(np.moveaxis(values, (-1, -2), (0, 1)))

    return GMM(read("weights", k), read("means", k, d), np.linalg.inv(read("precisions", k, d, d)))
