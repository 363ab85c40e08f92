"""Samplers side by side: same model, prior, data and start, same relabelling and diagnostics, each timed by itself.

A sampler is begun on data, which may compile, and then called with a key. NumPyro's MCMC runs as its documentation
shows, with the tutorials' model and with ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from gmm_jax import bayes, em, judge, problems
from gmm_jax.bayes.diagnostics import R_HAT_LIMIT
from gmm_jax.bench.clock import Clock
from gmm_jax.bench.methods import pymc_nuts
from gmm_jax.bench.runner import derive_key
from gmm_jax.mixture import GMM, NotSupported, Posterior
from shared.nutpie_starts import starts_at

from . import jags
from .numpyro_mcmc import documented, tutorial

N_STARTS = 10  # of the EM whose optimum all samplers start from


class Sampler(NamedTuple):
    """A program, and the settings of it that the sweep tries; the first is its default."""

    begin: Callable[..., Callable]  # (x, spec, init, size, **setting) -> (key -> Posterior)
    settings: tuple[Mapping[str, Any], ...] = ({},)
    slow: bool = False  # it sees fewer data sets


class Job(NamedTuple):
    """One sampler on one data set."""

    name: str
    setting: Mapping[str, Any]
    problem: str
    seed: int
    size: Mapping[str, int]


# ---- programs


def ours(engine, x, spec, init, size, **setting):
    """An engine of gmm_jax.bayes."""
    return lambda key: engine(key, x, spec, init=init, **size, **setting)


def pymc(x, spec, init, size, *, n_threads=1, backend="numba"):
    """PyMC's model compiled by nutpie and sampled by its NUTS."""
    sampler = pymc_nuts.Sampler(x, spec, starts=partial(starts_at, init), backend=backend, **size)
    return partial(sampler, n_threads=n_threads)


def from_r(x, spec, init, size):
    """JAGS; what it calls compiling and R's own start are not in `seconds` of its posterior."""

    def run(key):
        found = jags.sample(key, x, spec, init, **size)
        return found.posterior._replace(stats={"seconds": found.seconds})

    return run


CHAIN_METHODS = ("sequential", "vectorized", "parallel")
NUMPYRO = tuple({"chain_method": m, "dense_mass": dense} for dense in (False, True) for m in CHAIN_METHODS)
NUTPIE = tuple({"backend": b, "n_threads": t} for b in ("numba", "jax") for t in (1, 2))
SAMPLERS = {
    "nuts": Sampler(partial(ours, bayes.nuts)),
    "gibbs": Sampler(partial(ours, bayes.gibbs)),
    "NumPyro, tutorial": Sampler(partial(documented, tutorial), NUMPYRO),
    "NumPyro, our model": Sampler(partial(documented, bayes.model), NUMPYRO[:1], slow=True),
    "PyMC with nutpie": Sampler(pymc, NUTPIE),
    "JAGS": Sampler(from_r, slow=True),
}


# ---- measurements


def start_of(problem, seed: int) -> tuple[np.ndarray, GMM]:
    """A data set, and the best optimum of EM on it, in NumPy."""
    x, _ = problem.sample(derive_key(seed, "data", problem.name))
    key = derive_key(seed, "method", "em")
    best = em.fit_em_restarts(key, x, problem.spec, n_restarts=N_STARTS).best.gmm
    return np.asarray(x), jax.tree.map(np.asarray, best)


def measure(job: Job) -> dict[str, Any]:
    """A row: the second of two runs on one data set, less what JAX still traced and compiled in it.

    effective_draws: the smallest of bulk and tail over all free numbers after relabelling, and the log density.
    Status "unmixed" where R-hat is above 1.01; "unavailable" or "failed" with a reason where there is no posterior.
    """
    row = named(job)
    problem = problems.load(job.problem)
    x, init = start_of(problem, job.seed)
    try:
        begin = time.perf_counter()
        run = SAMPLERS[job.name].begin(x, problem.spec, init, job.size, **job.setting)
        run(derive_key(job.seed, "method", f"{job.name}, first"))
        first = time.perf_counter() - begin
        with Clock() as clock:
            posterior = run(derive_key(job.seed, "method", job.name))
    except NotSupported as reason:
        return row | {"status": "unavailable", "reason": str(reason)}
    except Exception as error:  # a peer may fail as it likes: that is a row
        return row | {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    seconds = float(posterior.stats.get("seconds", clock.seconds["seconds_run"]))
    row |= {"seconds": seconds, "seconds_whole": clock.seconds["seconds"], "seconds_first": first}
    return row | effective(posterior, init, problem.spec, seconds)


def named(job: Job) -> dict[str, Any]:
    """What a row says of its job."""
    return {"method": job.name, "setting": json.dumps(dict(job.setting), sort_keys=True), "seed": job.seed, **job.size}


def devices_for(job: Job) -> int | None:
    """How many devices its process needs."""
    return job.size["n_chains"] if job.setting.get("chain_method") == "parallel" else None


def cold(words: str) -> None:
    """From a process's start to a diagnosed posterior, EM's start included: prints its row but for the time (JSON)."""
    job = Job(*json.loads(words))
    problem = problems.load(job.problem)
    x, init = start_of(problem, job.seed)
    run = SAMPLERS[job.name].begin(x, problem.spec, init, job.size, **job.setting)
    posterior = run(derive_key(job.seed, "method", job.name))
    print(json.dumps(effective(posterior, init, problem.spec, 1.0)))


def effective(posterior: Posterior, reference: GMM, spec, seconds: float) -> dict[str, Any]:
    """How many draws it is worth after relabelling, and in a second, where its chains agree."""
    worst = judge.diagnostics(judge.relabel(posterior, reference=reference, spec=spec).posterior, spec).worst
    draws, mixed = min(worst["ess_bulk"], worst["ess_tail"]), worst["r_hat"] <= R_HAT_LIMIT
    return {
        "status": "ok" if mixed else "unmixed",
        "effective_draws": draws,
        "r_hat": worst["r_hat"],
        "effective_per_second": draws / seconds if mixed else None,
        "divergences": int(np.sum(posterior.stats.get("diverging", 0))),
    }
