"""How many effective draws a second does each sampler give, and how much of it is the likelihood, how much the driver?

course_2d, Case II, the default prior, the same data and the same start at EM's optimum for all; 4 chains. Effective
draws are the smallest of bulk and tail over all free numbers after relabelling and the log density; seconds are those
of a whole run, warm-up included, once programs are compiled. A run with R-hat above 1.01 counts as a failure.

NumPyro's own MCMC runs three ways, each jitted whole: the tutorial's likelihood (MixtureSameFamily of
MultivariateNormal), our model, whose gradient is the responsibilities, and that model's potential on one flat vector.

Expected: nuts at least 20 times NumPyro's MCMC on the tutorial's model. Found: see results/speed_bayes.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gmm_jax import Status, bayes, em, judge, problems
from gmm_jax.bayes.model import assemble, site_values
from gmm_jax.bayes.target import density_of, finish, prepare
from gmm_jax.bench.runner import derive_key
from gmm_jax.bench.study import Study
from gmm_jax.shell import experiment

SIZE = {"n_chains": 4, "n_warmup": 500, "n_draws": 1000}
LEAST = 20.0  # times NumPyro's MCMC on the tutorial's model


def tutorial(problem):
    """The mixture as NumPyro's tutorials write it, with our prior, in standardised units."""
    import numpyro
    import numpyro.distributions as dist

    prior, k = problem.prior, problem.spec.n_components
    weights = numpyro.sample("weights", prior.weights)
    means = numpyro.sample("means", prior.means.expand((k,)))
    covariances = numpyro.sample("covariances", prior.covariances.expand((k,)))
    components = dist.MultivariateNormal(means, covariances)
    with numpyro.plate("data", problem.z.shape[0]):
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), components), obs=problem.z)


@partial(jax.jit, static_argnames=("model", "n_chains", "n_warmup", "n_draws"))
def _run_numpyro(key, problem, start, model, n_chains, n_warmup, n_draws):
    from numpyro.infer import MCMC, NUTS, init_to_value

    kernel = NUTS(model, init_strategy=init_to_value(values=site_values(problem, start)))
    sizes = {"num_warmup": n_warmup, "num_samples": n_draws, "num_chains": n_chains}
    mcmc = MCMC(kernel, chain_method="vectorized", progress_bar=False, **sizes)
    mcmc.run(key, problem)
    draws = mcmc.get_samples(group_by_chain=True)
    return jax.vmap(jax.vmap(partial(assemble, problem)))(draws)


def numpyro_mcmc(model: Callable, key, x, spec, *, init, **size):
    """NumPyro's MCMC, chains in one vmap, on a model of a `Problem`."""
    problem, scaling = prepare(x, spec, **size)
    draws = _run_numpyro(key, problem, jax.tree.map(jnp.asarray, scaling.inward(init)), model, **size)
    return finish(problem, scaling, draws, density_of(problem, draws), {}, Status.SAMPLED)


ENGINES = {
    "nuts": bayes.nuts,
    "gibbs": bayes.gibbs,
    "NumPyro, tutorial": partial(numpyro_mcmc, tutorial),
    "NumPyro, our model": partial(numpyro_mcmc, bayes.model),
    "NumPyro, flat": bayes.numpyro_nuts,
}


def main(*, seeds: int = 10, out: Path = Path("results"), smoke: bool = False) -> int:
    """One row an engine and a data set to out/speed_bayes; exit code 3 where the expectation is not met.

    Args:
        seeds: data sets.
        out: folder for results.
        smoke: one data set, few draws and one engine, for tests.
    """
    engines, size = (["gibbs"], {"n_chains": 2, "n_warmup": 20, "n_draws": 100}) if smoke else (list(ENGINES), SIZE)
    seeds = 1 if smoke else seeds
    problem, steps = problems.load("course_2d"), seeds * len(engines)
    with Study(__doc__, "speed_bayes", out, {"seeds": seeds}, steps=steps, seeds=seeds, smoke=smoke) as study:
        for seed in range(seeds):
            for name in engines[seed % len(engines) :] + engines[: seed % len(engines)]:
                first = not any(row["method"] == name for row in study.rows)
                study.add(one(name, problem, seed, size, first=first))
        study.add({"method": "PyMC with nutpie", "status": "unavailable", "reason": "pip install pymc nutpie"})
    met, sentence = verdict(study.rows)
    return study.conclude(sentence, met=met)


def one(name, problem, seed, size, *, first):
    """One run, after one that compiles where this is the engine's first."""
    x, _ = problem.sample(derive_key(seed, "data", problem.name))
    key = derive_key(seed, "method", name)
    init = em.fit_em_restarts(derive_key(seed, "method", "em"), x, problem.spec, n_restarts=10).best.gmm

    def run():
        begin = time.perf_counter()
        posterior = ENGINES[name](key, x, problem.spec, init=init, **size)  # a Posterior is in NumPy: it has ended
        return posterior, time.perf_counter() - begin

    seconds_first = run()[1] if first else None
    posterior, seconds = run()
    relabelled = judge.relabel(posterior, reference=init, spec=problem.spec).posterior
    worst = judge.diagnostics(relabelled, problem.spec).worst
    effective = min(worst["ess_bulk"], worst["ess_tail"])
    mixed = worst["r_hat"] <= 1.01
    return {
        "method": name,
        "seed": seed,
        "status": "ok" if mixed else "unmixed",
        "seconds": seconds,
        "seconds_first": seconds_first,
        "effective_draws": effective,
        "r_hat": worst["r_hat"],
        "effective_per_second": effective / seconds if mixed else None,
        "precision": "float64",
        "same_prior": "yes",
        "start": "EM's best optimum",
        **size,
    }


def verdict(rows):
    """Whether the expectation is met, and the sentence with the numbers."""
    parts, per_second = [], {}
    for name in dict.fromkeys(row["method"] for row in rows if row["status"] != "unavailable"):
        mine = [row for row in rows if row["method"] == name]
        good = {row["seed"]: row["effective_per_second"] for row in mine if row["effective_per_second"] is not None}
        per_second[name] = good
        failed = f", {len(mine) - len(good)} of {len(mine)} unmixed" if len(good) < len(mine) else ""
        if not good:
            parts.append(f"{name}: every run unmixed")
            continue
        low, middle, high = np.quantile(list(good.values()), (0.25, 0.5, 0.75))
        cold = next(row["seconds_first"] for row in mine if row["seconds_first"] is not None)
        parts.append(f"{name} {middle:.0f} ({low:.0f} to {high:.0f}; first run {cold:.0f} s{failed})")
    ratios = {name: times(per_second, name) for name in per_second if name.startswith("NumPyro")}
    said = "; ".join(f"{value:.3g} times {name}" for name, value in ratios.items() if value is not None)
    against = ratios.get("NumPyro, tutorial")
    sentence = f"Effective draws a second, median and quartiles over data sets: {', '.join(parts)}."
    return against is not None and against >= LEAST, sentence + (
        f" nuts gives {said} (medians of pairs)." if said else ""
    )


def times(per_second, name):
    """Median over data sets of nuts' effective draws a second over another's; None where no pair mixed."""
    ours, theirs = per_second.get("nuts", {}), per_second[name]
    both = [ours[seed] / theirs[seed] for seed in ours.keys() & theirs.keys()]
    return float(np.median(both)) if both else None


if __name__ == "__main__":
    experiment(main)
