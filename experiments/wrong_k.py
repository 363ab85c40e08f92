"""What happens to recovery when the number of components is wrong?

Data: truths of K = 3 components in two dimensions, one without overlap and one with much.
Estimands: the density and the mixing measure of the truth; neither needs a match, so that any K can be judged.
Methods: fits of K − 1 to K + 2 components by EM, by EM under the default prior (MAP), and by gibbs under that prior and
    under a sparse one, φ ~ Dir(0.01), whose answer is the predictive density: the mixture of all components of its
    draws.
Performance: Kullback–Leibler and Hellinger between densities, Wasserstein between mixing measures, what the held-out
    log score loses to the truth's; means ± Monte-Carlo standard errors over data sets, and the share of failures.

Expected: one component too few is far worse than one or two too many; too many cost EM most, and the sparse posterior
hardly anything. Found: see results/wrong_k.
"""

from dataclasses import replace

import jax
import numpy as np

from gmm_jax import GMM, MixtureSpec, Prior, Status, bayes, em, judge, log_prob, problems
from gmm_jax.bench.runner import derive_key
from gmm_jax.shell import experiment
from shared import pictures
from shared.cells import RUN, Options, ask, groups
from shared.replications import data_sets, mean_with_error

PROBLEMS, N_COMPONENTS, N_SAMPLES, N_TEST = ("well_separated", "overlapping"), 3, 600, 2500
OFF = (-1, 0, 1, 2)  # components too many
CONFIG = em.EMConfig(max_iter=2000, tol=1e-8)
CHAIN = {"n_warmup": 1000, "n_draws": 30, "thin": 30}
SPARSE = 0.01  # concentration
PANELS = {
    "kl": "KL from the truth, nats",
    "hellinger": "Hellinger distance",
    "mixing_distance": "Wasserstein, mixing measures",
    "score_loss": "loss of the held-out log score, nats",
    "occupied": "components with a weight above 1 %",
    "failed": "share of failures",
}


def main(*, replications: int = 30, restarts: int = 10, run: Options = RUN) -> int:
    """One row a problem, number of components and method to out/wrong_k; exit code 3 where the expectation is not met.

    Args:
        replications: data sets of each problem.
        restarts: of EM on each.
        run: where to, and how much.
    """
    options = {"replications": replications, "restarts": restarts}
    names, off = (PROBLEMS[:1], OFF[:2]) if run.smoke else (PROBLEMS, OFF)
    size = {"replications": 3, "restarts": 2} if run.smoke else options
    cells = [{"problem": name, "n_components": N_COMPONENTS + extra, **size} for name in names for extra in off]
    return ask(__doc__, "wrong_k", cells, fits_of, verdict, run, options, seeds=replications, draw=draw)


def draw(folder, rows):
    """Every number against K, a picture a problem."""
    looks = {"logarithmic": ("kl", "hellinger", "mixing_distance", "score_loss"), "from_zero": ("failed",)}
    for name, mine in groups(rows, "problem").items():
        pictures.curves(folder / f"{name}.png", mine, "n_components", PANELS, **looks)


def fits_of(problem, n_components, replications, restarts):
    """A row a method: its distances from the truth, with their errors over data sets."""
    problem = problems.load(problem)
    xs = data_sets(problem, range(replications), N_SAMPLES)
    spec, answers = MixtureSpec(n_components), {}
    keys = {name: derive_key(n_components, name, problem.name) for name in ("em", "map", "gibbs", "sparse", "judge")}
    for name in ("em", "map"):
        answers[name] = by_em(keys[name], xs, spec, restarts, with_prior=name == "map")
    start = jax.tree.map(lambda *leaves: np.stack(leaves), *answers["map"][0])
    answers["gibbs"] = predictive(keys["gibbs"], xs, spec, start)
    answers["sparse"] = predictive(keys["sparse"], xs, replace(spec, prior=sparse(n_components)), start)
    return [
        {"n_samples": N_SAMPLES, "method": name} | distances(keys["judge"], problem, points, ok)
        for name, (points, ok) in answers.items()
    ]


def by_em(key, xs, spec, restarts, *, with_prior):
    """(a mixture for each data set, whether it is one to trust)."""
    priors = [bayes.hyperparameters(bayes.default_prior(x, spec), "full") for x in xs] if with_prior else None
    options = {"n_restarts": restarts, "config": CONFIG, "prior": priors}
    found = em.fit_em_restarts(jax.random.split(key, len(xs)), xs, spec, **options)
    ok = [Status(int(f.best.status)).ok and not f.optima.spurious.all() for f in found]
    return [f.best.gmm for f in found], ok


def sparse(n_components):
    """The default prior but for φ, which likes components without samples."""
    import numpyro.distributions as dist

    return Prior(weights=dist.Dirichlet(np.full(n_components, SPARSE)))


def predictive(key, xs, spec, start):
    """The predictive densities: mixtures of the components of all draws."""
    draws = bayes.gibbs_batch(key, xs, spec, init=start, **CHAIN)
    size = len(xs), -1
    weights, means, covariances = draws.weights / CHAIN["n_draws"], draws.means, draws.covariances
    flat = GMM(weights.reshape(size), means.reshape(*size, 2), covariances.reshape(*size, 2, 2))
    points = [jax.tree.map(lambda leaf, i=i: leaf[i], flat) for i in range(len(xs))]
    return points, [bool(np.isfinite(point.means).all()) for point in points]


def distances(key, problem, points, ok):
    """Means over the data sets with an answer, and the share of those without."""
    keys = jax.random.split(key, len(points))
    each = [one(*pair, problem) for pair, good in zip(zip(keys, points, strict=True), ok, strict=True) if good]
    row = mean_with_error("failed", 1.0 - np.array(ok, float))
    for name in each[0] if each else ():
        row |= mean_with_error(name, np.array([found[name] for found in each]))
    return row


def one(key, point, problem):
    """Distances of a mixture from the truth; each data set has draws and held-out samples of its own."""
    key_density, key_test = jax.random.split(key)
    found = judge.divergences(key_density, problem.truth, point, N_TEST)
    x_test, _ = problem.sample(key_test, N_TEST, "multinomial")
    loss = log_prob(problem.truth, x_test) - log_prob(point, x_test)
    per_draw = point.weights.reshape(-1, point.n_components // draws_of(point))
    return {
        "kl": float(found.kl),
        "hellinger": float(found.hellinger),
        "l1": float(found.l1),
        "mixing_distance": judge.mixing_distance(problem.truth, point),
        "score_loss": float(np.mean(loss)),
        "occupied": float(np.mean(np.sum(per_draw > 0.01 / draws_of(point), axis=1))),
    }


def draws_of(point):
    """How many draws a mixture consists of."""
    return CHAIN["n_draws"] if point.n_components >= CHAIN["n_draws"] else 1


def verdict(rows):
    """Whether the expectation is met, and the sentence with the numbers."""
    parts, met = [], True
    kl = {(row["problem"], row["method"], row["n_components"] - N_COMPONENTS): row["kl"] for row in rows}
    for (problem, method), of_one in groups(rows, "problem", "method").items():
        mine = {row["n_components"] - N_COMPONENTS: row for row in of_one}
        said = ", ".join(f"{row['kl']:.2g} ± {row['kl_se']:.1g}" for row in mine.values())
        parts.append(f"{problem}, {method}: {said}; failed at most {max(row['failed'] for row in mine.values()):.0%}")
        if len(mine) == len(OFF):
            met &= mine[-1]["kl"] > max(mine[1]["kl"], mine[2]["kl"])
            met &= kl[problem, "sparse", 2] <= kl[problem, "em", 2]
    return bool(met), "\n".join(["KL from the truth in nats at K − 1, K, K + 1, K + 2.", *parts])


if __name__ == "__main__":
    experiment(main)
