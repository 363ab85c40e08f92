"""Are the posteriors right: do true parameters rank uniformly among the draws, engine by engine?

Simulation-based calibration: θ comes from a fixed proper prior and data from θ; then θ's rank among L nearly
independent draws from the posterior is uniform, for every quantity.

Data: 100 samples from a mixture that the prior drew, 500 times; K = 2, 3 and d = 1, 2; of gibbs all in one program.
Estimands: ranks of the log-likelihood, the log joint density, weights in order, the smallest and largest coordinate of
    the means, co-clustering of two points, the log predictive density at one; and the first mean with labels shuffled:
    the other quantities do not depend on labels, and only one that does can see a labelling missing.
Methods: gibbs, smc, nuts, gibbs with parallel tempering; gibbs and nuts under a prior of the default's form, in which
    covariances have an unknown scale in common; and as controls, made wrong on purpose: scales of the prior 1.5 times
    as large, and draws of all labellings but one dropped.
Performance: p-values, exact and simultaneous over all ranks, against a bound simultaneous over the quantities at 99 %
    (Bonferroni); runs with a doubtful status; seconds after compilation.

Expected: gibbs and smc inside the 99 % bands in every case, the others in those that they ran; what is made wrong on
purpose is outside. 500 simulations of gibbs for K = 2, d = 1 run in less than 60 seconds. Found: see
results/calibration.

Reference:
    Talts et al. (2018), arXiv 1804.06788; Säilynoja et al. (2022), Statistics and Computing 32.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from gmm_jax import GMM, Known, MixtureSpec, Prior, bayes, log_prob, permute, responsibilities
from gmm_jax.bayes.model import site_values, standardised_problem
from gmm_jax.bayes.target import log_joint_density
from gmm_jax.bench.clock import Clock
from gmm_jax.bench.runner import derive_key
from gmm_jax.mixture import ONE_AT_A_TIME, Scaling
from gmm_jax.mixture.cores import n_workers
from gmm_jax.mixture.starts import kmeans_plusplus
from gmm_jax.shell import experiment
from shared import pictures
from shared.cells import RUN, Options, ask, groups
from shared.ranks import counts_below, ranks, uniform_p_value

CASES = ((2, 1), (2, 2), (3, 1), (3, 2))  # components, features
ALPHA, MEAN_SCALE = 4.0, 3.0  # φ ~ Dir(4), μ_k ~ N(0, 3²), Σ_k ~ IW(d + 4, I)
N_SAMPLES, LEVEL, WRONG, SECONDS, TEMPERATURES = 100, 0.99, 1.5, 60.0, 6


class Size(NamedTuple):
    """How much of everything for one simulation."""

    draws: int = 99  # L
    thin: int = 10  # sweeps or transitions between two of them
    warmup: int = 400
    chains: int = 3  # which share the draws


OF_NUTS = Size(thin=5, warmup=300)
SIZES, SMALL = {"nuts": OF_NUTS, "hierarchical_nuts": OF_NUTS}, Size(19, 5, 20, 1)


def main(
    *,
    gibbs: int = 500,
    smc: int = 500,
    nuts: int = 500,
    tempered: int = 100,
    hierarchical: int = 100,
    run: Options = RUN,
) -> int:
    """One row an engine, case and quantity to out/calibration; exit code 3 where an expectation is not met.

    Args:
        gibbs: simulations of each case, in one program.
        smc: simulations of each case; 0 leaves it out.
        nuts: simulations of each case with two components; 0 leaves it out.
        tempered: simulations of gibbs with parallel tempering in the smallest case; 0 leaves it out.
        hierarchical: simulations of gibbs and nuts each under the hierarchical prior; 0 leaves them out.
        run: where to, and how much.
    """
    plan = [("gibbs", case, gibbs) for case in CASES] + [(name, CASES[0], gibbs) for name in CONTROLS]
    plan += [("nuts", case, nuts) for case in CASES if nuts and case[0] == 2]
    plan += [("smc", case, smc) for case in CASES if smc] + [("tempered", CASES[0], tempered)] * bool(tempered)
    plan += [(name, case, hierarchical) for name in HIERARCHICAL for case in (CASES[0], CASES[-1]) if hierarchical]
    if run.smoke:
        plan = [(engine, CASES[0], 30) for engine in ("gibbs", "one_labelling")]
    names = ("run", "engine", "n_components", "n_features", "simulations", "draws")
    draws = SMALL.draws if run.smoke else Size().draws
    cells = [dict(zip(names, (run_name(e, *case), e, *case, n, draws), strict=True)) for e, case, n in plan]
    options = {"gibbs": gibbs, "smc": smc, "nuts": nuts, "tempered": tempered}
    options |= {"hierarchical": hierarchical}
    return ask(__doc__, "calibration", cells, calibrate, verdict, run, options, draw=draw)


def draw(folder, rows):
    """A picture a run."""
    for name, mine in groups(rows, "run").items():
        pictures.calibration(folder / f"{name}.png", mine, 1.0 - bound(mine))


def calibrate(run, engine, n_components, n_features, simulations, draws):
    """A row for each quantity."""
    size = SMALL if draws == SMALL.draws else SIZES.get(engine, Size())
    rng = np.random.default_rng([n_components, n_features])
    law = hierarchical_prior if engine in HIERARCHICAL else prior
    truth, x = simulate(rng, simulations, n_components, n_features, law)
    key_draws, key_ties = jax.random.split(derive_key(0, "method", "calibration", f"K{n_components}_d{n_features}"))
    with Clock() as clock:
        found, doubtful = {**ENGINES, **HIERARCHICAL, **CONTROLS}[engine](key_draws, x, n_components, size)
    both = jax.tree.map(lambda one, many: np.concatenate([one[:, None], many], axis=1), truth, found)
    names, values = quantities(posed(n_components, n_features, law), both, x)
    place = ranks(key_ties, values[:, 0], values[:, 1:])
    return [
        {
            "quantity": name,
            "p_value": uniform_p_value(place[:, q], draws),
            "counts_below": counts_below(place[:, q], draws).tolist(),
            "doubtful": doubtful,
            **clock.seconds,
        }
        for q, name in enumerate(names)
    ]


def run_name(engine, n_components, n_features):
    """What a run is called in rows and files."""
    return f"{engine}_K{n_components}_d{n_features}"


# ---- truths, data and what is ranked


def prior(n_components, n_features, factor=1.0):
    """The fixed prior; `factor` multiplies its scales."""
    import numpyro.distributions as dist

    return Prior(
        weights=dist.Dirichlet(np.full(n_components, ALPHA)),
        means=dist.Normal(np.zeros(n_features), np.full(n_features, factor * MEAN_SCALE)).to_event(1),
        covariances=dist.InverseWishart(n_features + 4.0, scale_tril=factor * np.eye(n_features)),
    )


def hierarchical_prior(n_components, n_features):
    """The same with covariances of the default's form: given C, Σ_k ~ IW(d + 1, C), and C ~ Wishart(d), E C = d + 1."""
    scale_mean = (n_features + 1.0) * np.eye(n_features)
    law = bayes.hierarchical_inverse_wishart(n_features + 1.0, n_features, scale_mean)
    return replace(prior(n_components, n_features), covariances=law)


def simulate(rng, n, n_components, n_features, law=prior):
    """Mixtures with leading (n,) from the prior by SciPy, which the engines do not use, and (n, N, D) samples."""
    shape = (n, n_components)
    weights = rng.dirichlet(np.full(n_components, ALPHA), n)
    means = MEAN_SCALE * rng.standard_normal((*shape, n_features))
    dof, scales = n_features + 4, np.eye(n_features)[None]
    if law is hierarchical_prior:
        dof, mean = n_features + 1, (n_features + 1.0) * np.eye(n_features)
        scales = stats.wishart(n_features, mean / n_features).rvs(n, rng).reshape(n, n_features, n_features)
    roots = np.linalg.cholesky(scales)[:, None]  # Σ = L W Lᵀ with W ~ IW(ν, I)
    covariances = stats.invwishart(dof, np.eye(n_features)).rvs(n * n_components, rng)
    covariances = roots @ covariances.reshape(*shape, n_features, n_features) @ np.swapaxes(roots, -1, -2)
    labels = np.sum(rng.random((n, N_SAMPLES, 1)) > np.cumsum(weights, axis=1)[:, None, :-1], axis=2)
    each, roots = np.arange(n)[:, None], np.linalg.cholesky(covariances)
    noise = rng.standard_normal((n, N_SAMPLES, n_features, 1))
    return GMM(weights, means, covariances), means[each, labels] + (roots[each, labels] @ noise)[..., 0]


def posed(n_components, n_features, law=prior):
    """The problem in the units of the data, as yet without data: standardised, the prior would depend on them."""
    spec = MixtureSpec(n_components, prior=law(n_components, n_features))
    as_it_is = Scaling(np.zeros(n_features), np.ones(n_features), (), np.dtype(float))
    return standardised_problem(np.zeros((N_SAMPLES, n_features)), spec, Known(), as_it_is)


def quantities(problem, draws, x):
    """Names (Q,) and values (N, S, Q) of what is ranked, for mixtures with leading (N, S)."""
    n_components = problem.spec.n_components
    weights = [f"weight {k + 1} of {n_components} in order" for k in range(n_components)]
    names = ["log-likelihood", "log joint density", *weights, "smallest mean coordinate", "largest mean coordinate"]
    return [*names, "co-clustering", "log predictive density", "first mean, labels shuffled"], np.asarray(
        _quantities(problem, draws, x)
    )


@partial(jax.jit, compiler_options=ONE_AT_A_TIME)
def _quantities(problem, draws, x):
    n_features = x.shape[-1]
    pair, point = jnp.array([[-1.0], [1.0]]) * jnp.ones(n_features), jnp.full((1, n_features), 0.5)

    def one(gmm, x):
        joint = log_joint_density(replace(problem, z=x), site_values(problem, gmm))
        weights, together = jnp.sort(gmm.weights), jnp.sum(jnp.prod(responsibilities(gmm, pair), axis=0))
        ends = [jnp.min(gmm.means), jnp.max(gmm.means), together, log_prob(gmm, point)[0], gmm.means[0, 0]]
        return jnp.concatenate([jnp.stack([jnp.sum(log_prob(gmm, x)), joint]), weights, jnp.stack(ends)])

    return jax.lax.map(lambda each: jax.vmap(one, in_axes=(0, None))(*each), (draws, x))


# ---- engines: (key, x (N, n, D), n_components, size) -> draws with leading (N, L), and how many runs went badly


def draw_by_gibbs(key, x, n_components, size, law=prior):
    """All simulations in one program, every chain from its own k-means++ start."""
    key_start, key_run, key_shuffle = jax.random.split(key, 3)
    spec = MixtureSpec(n_components, prior=law(n_components, x.shape[-1]))
    xs = np.repeat(x, size.chains, axis=0)
    starts = _starts(jax.random.split(key_start, len(xs)), xs, replace(spec, prior=Prior()))
    counts = {"n_warmup": size.warmup, "n_draws": size.draws // size.chains, "thin": size.thin}
    chains = bayes.gibbs_batch(key_run, xs, spec, init=starts, **counts)
    draws = jax.tree.map(lambda leaf: leaf.reshape(len(x), size.draws, *leaf.shape[2:]), chains)
    return shuffled(key_shuffle, draws), 0


_starts = jax.jit(jax.vmap(kmeans_plusplus, in_axes=(0, 0, None)))


def draw_by_smc(key, x, n_components, size):
    """One run a data set, as large as smc makes it unasked."""
    return _each_alone(partial(bayes.smc, n_chains=1), key, x, n_components, size)


def draw_by_nuts(key, x, n_components, size, law=prior):
    """As many chains and transitions as `size` says."""
    n_draws = size.draws // size.chains * size.thin
    engine = partial(bayes.nuts, n_chains=size.chains, n_warmup=size.warmup, n_draws=n_draws)
    return _each_alone(engine, key, x, n_components, size, law)


def draw_by_tempering(key, x, n_components, size):
    """Gibbs with parallel tempering, few temperatures, so that the posterior would show a wrong exchange."""
    options = {"n_draws": size.draws // size.chains * size.thin, "n_temperatures": TEMPERATURES}
    engine = partial(bayes.gibbs, n_chains=size.chains, n_warmup=size.warmup, **options)
    return _each_alone(engine, key, x, n_components, size)


def _each_alone(engine, key, x, n_components, size, law=prior):
    """An entry point on each data set, a core each; draws are evenly chosen among all that it returns."""
    key_run, key_shuffle = jax.random.split(key)
    spec = MixtureSpec(n_components, prior=law(n_components, x.shape[-1]))

    def draw(key_one, one):
        posterior = engine(key_one, one, spec)
        flat = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), posterior.draws)
        rows = ((np.arange(size.draws) + 0.5) / size.draws * len(flat.weights)).astype(int)
        return jax.tree.map(lambda leaf: leaf[rows], flat), not posterior.status.ok

    keys = jax.random.split(key_run, len(x))
    first = draw(keys[0], x[0])  # alone: it traces, and NumPyro's handlers know no threads
    with ThreadPoolExecutor(n_workers()) as pool:
        kept, doubtful = zip(first, *pool.map(draw, keys[1:], x[1:]), strict=True)
    return shuffled(key_shuffle, jax.tree.map(lambda *leaves: np.stack(leaves), *kept)), sum(doubtful)


def shuffled(key, draws):
    """Every draw with its components in an order of its own."""
    order = np.argsort(np.asarray(jax.random.uniform(key, draws.weights.shape)), axis=-1)
    return permute(jax.tree.map(np.asarray, draws), order)


def draw_under_a_wrong_prior(key, x, n_components, size):
    """Gibbs under a prior whose scales are 1.5 times as large."""
    return draw_by_gibbs(key, x, n_components, size, partial(prior, factor=WRONG))


def draw_one_labelling(key, x, n_components, size):
    """Gibbs' draws in which the first feature of the means is in order: as if all other draws had been dropped."""
    draws, doubtful = draw_by_gibbs(key, x, n_components, size)
    return permute(draws, np.argsort(draws.means[..., 0], axis=-1)), doubtful


ENGINES = {"gibbs": draw_by_gibbs, "smc": draw_by_smc, "nuts": draw_by_nuts, "tempered": draw_by_tempering}
HIERARCHICAL = {
    "hierarchical_gibbs": partial(draw_by_gibbs, law=hierarchical_prior),
    "hierarchical_nuts": partial(draw_by_nuts, law=hierarchical_prior),
}
CONTROLS = {"wrong_prior": draw_under_a_wrong_prior, "one_labelling": draw_one_labelling}


# ---- the answer


def bound(rows):
    """The p-value below which a quantity is rejected, so that all of a run's stay above it at once in 99 %."""
    return (1.0 - LEVEL) / len(rows)


def verdict(rows):
    """Whether the expectations are met, and the sentence with the numbers."""
    parts, met = [], True
    for name, mine in groups(rows, "run").items():
        worst = min(mine, key=lambda row: row["p_value"])
        passes, wrong = worst["p_value"] > bound(mine), worst["engine"] in CONTROLS
        in_time = worst["engine"] != "gibbs" or (worst["n_components"], worst["n_features"]) != CASES[0]
        in_time |= worst["seconds_run"] < SECONDS
        met &= passes != wrong and in_time
        said = "inside" if passes else "outside"
        parts.append(
            f"{name} {said} the bands ({worst['simulations']} simulations, {worst['seconds_run']:.0f} s after "
            f"compilation; smallest p-value {worst['p_value']:.1g}, {worst['quantity']}; bound {bound(mine):.1g}"
            + (f"; {worst['doubtful']} runs with a doubtful status" if worst["doubtful"] else "")
            + ")"
        )
    return met, "\n".join([f"Ranks against bands of {LEVEL:.0%} over all quantities of a run.", *parts])


if __name__ == "__main__":
    experiment(main)
