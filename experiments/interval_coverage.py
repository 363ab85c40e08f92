"""Do 95 % intervals of EM and of the posterior cover the truth in 95 of 100 data sets?

Data: course_2d with 2,000 samples a data set, nothing known.
Estimands: every free entry of φ, μ and Σ, and the log density at three fixed points.
Methods: raw and transformed intervals of `em.intervals`, the delta method's for log densities; equal-tailed intervals
    of gibbs' draws.
Performance: share of data sets whose interval covers (Monte-Carlo standard error 0.5 % at 2,000). Every data set
    counts: one without an interval is not covered, and their share is given; so is EM's efficiency.

Expected: every coverage between 93.5 and 96.5 %, the posterior's from at least 400 effective draws, an efficiency of EM
near 1, and all that in less than ten minutes. Found: see results/interval_coverage.
"""

from functools import partial
from statistics import NormalDist

import jax
import numpy as np

from gmm_jax import em, log_prob, problems
from gmm_jax.bench.runner import derive_key
from gmm_jax.mixture import free_coordinates, standardise, static_masks
from gmm_jax.shell import experiment
from shared import bounds
from shared import replications as many
from shared.cells import RUN, Options, ask, groups

PROBLEM, N_SAMPLES = "course_2d", 2_000
BOUNDS = (0.935, 0.965)
POINTS = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])  # at which log densities are covered
CHAIN = {"n_warmup": 50, "n_draws": 800, "thin": 3}


def main(*, replications: int = 2_000, run: Options = RUN) -> int:
    """One row an entry and kind of interval to out/interval_coverage; exit code 3 where the expectation is not met.

    Args:
        replications: data sets.
        run: where to, and how much.
    """
    cells, options = [{"replications": 4 if run.smoke else replications}], {"replications": replications}
    return ask(__doc__, "interval_coverage", cells, measure, verdict, run, options, seeds=replications)


def measure(replications):
    """A row an entry and kind of interval."""
    problem = problems.load(PROBLEM)
    lots = [range(first, min(first + many.LOT, replications)) for first in range(0, replications, many.LOT)]
    found = [one_lot(problem, seeds) for seeds in lots]
    hits, without, points, effective = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    bound = bounds.cramer_rao(derive_key(0, "bound", PROBLEM), problem.truth, problem.spec, n_samples=N_SAMPLES)
    efficiency = bounds.efficiency(points, problem.truth, problem.spec, bound)
    return rows_of(hits, without, effective, efficiency, problem)


def one_lot(problem, seeds):
    """(kind -> entries covered (R, Q), whether EM had no interval, its estimates, gibbs' effective draws)."""
    xs = many.data_sets(problem, seeds, N_SAMPLES)
    fits = many.by_em(derive_key(seeds[0], "method", "coverage"), xs, problem)
    draws = many.gibbs_draws(derive_key(seeds[0], "gibbs", "coverage"), xs, problem, fits.points, **CHAIN)
    posterior = many.by_draws(draws, problem)
    kinds = {**fits.intervals, **posterior.intervals}
    hits = {kind: many.covered(ends, problem.truth, problem.spec)[1] for kind, ends in kinds.items()}
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], fits.points) for i in range(len(xs))]
    hits["delta"] = np.stack([delta_covers(x, point, problem) for x, point in zip(xs, each, strict=True)])
    low, high = np.quantile(np.asarray(_log_densities_of(draws)), many.tails(), axis=1)
    true = np.asarray(_log_prob(problem.truth, POINTS))
    hits["equal-tailed, log densities"] = (low <= true) & (true <= high)
    return hits, many.without(fits.intervals["raw"]), fits.points, posterior.effective


def delta_covers(x, point, problem):
    """Whether log p̂ ± z·se holds log p of the truth, at POINTS; the gain of the scale cancels."""
    z, scaling = standardise(x, problem.spec)
    inner = jax.tree.map(lambda leaf: np.asarray(leaf, z.dtype), scaling.inward(point))
    at = (POINTS - scaling.centre) / scaling.scale
    value, slopes = jax.tree.map(np.asarray, _log_densities(inner, at, static_masks(problem.spec)))
    result = em.EMResult(point, None, None, None, None)  # only the mixture is looked at
    covariance = em.asymptotics(x, result, problem.spec).covariance
    reach = NormalDist().inv_cdf(many.tails()[1]) * np.sqrt(np.einsum("qp,pr,qr->q", slopes, covariance, slopes))
    true = np.asarray(_log_prob(jax.tree.map(np.asarray, scaling.inward(problem.truth)), at))
    return np.abs(value - true) <= reach


_log_prob = jax.jit(log_prob)


@jax.jit
def _log_densities_of(draws):
    """(R, S, points)."""
    return jax.lax.map(lambda of_one: jax.vmap(lambda gmm: log_prob(gmm, POINTS))(of_one), draws)


@partial(jax.jit, static_argnames="masks")
def _log_densities(gmm, at, masks):
    theta, unpack = free_coordinates(gmm, masks)
    return log_prob(gmm, at), jax.jacobian(lambda t: log_prob(unpack(t), at))(theta)


def rows_of(hits, without, effective, efficiency, problem):
    """A row an entry and a kind; EM's with the share without an interval and its efficiency, gibbs' with its draws."""
    labels = [entry.label for entry in many.parameters(problem.truth) if not entry.known]
    rows = []
    for kind, found in hits.items():
        names = labels if found.shape[1] == len(labels) else [f"log p{tuple(point)}" for point in POINTS.tolist()]
        for name, covered in zip(names, found.T, strict=True):
            row = {"interval": kind, "entry": name} | many.mean_with_error("coverage", covered.astype(float))
            row |= {"level": many.LEVEL, "n_samples": N_SAMPLES}
            if kind.startswith("equal-tailed"):
                row |= {"effective_draws": np.median(effective), "few_effective": np.mean(effective < many.ENOUGH)}
            else:
                row |= {"no_interval": np.mean(without)}
                row |= {"efficiency": efficiency.value, "efficiency_se": efficiency.error}
            rows.append(row)
    return rows


def verdict(rows):
    """Whether the expectation is met, and the sentence with the numbers."""
    parts = []
    for kind, mine in groups(rows, "interval").items():
        values = [row["coverage"] for row in mine]
        what = {"delta": "delta method's of log densities"}.get(kind, kind)
        parts.append(f"{what} {min(values):.1%} to {max(values):.1%}")
    marks = ("no_interval", "effective_draws")  # columns of EM's rows, and of the posterior's
    by_em, posterior = (next(row for row in rows if row.get(mark) is not None) for mark in marks)
    sentence = (
        f"Coverage of nominal 95 % over {by_em['replications']} data sets, from entry to entry: {'; '.join(parts)} "
        f"(Monte-Carlo error {max(row['coverage_se'] for row in rows):.1%}); EM had no interval in "
        f"{by_em['no_interval']:.1%}, gibbs has {posterior['effective_draws']:.0f} effective draws "
        f"(median of the fewest of any entry), fewer than {many.ENOUGH} in {posterior['few_effective']:.1%}."
    )
    if by_em.get("efficiency") is not None:
        sentence += f" EM's efficiency tr(I·MSE)/p is {by_em['efficiency']:.3f} ± {by_em['efficiency_se']:.3f}."
    return all(BOUNDS[0] <= row["coverage"] <= BOUNDS[1] for row in rows), sentence


if __name__ == "__main__":
    experiment(main)
