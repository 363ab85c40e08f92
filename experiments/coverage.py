"""Do 95 % intervals of EM cover the truth in 95 of 100 data sets?

course_2d with 2,000 samples, nothing known: for every free entry of φ, μ and Σ the raw and the transformed interval of
`em.intervals`, and for the log density at three fixed points the delta method's. Every data set counts: one without an
interval is not covered.

Expected: every coverage between 93.5 and 96.5 %, and an efficiency of EM near 1. Found: see results/coverage.
"""

from functools import partial
from pathlib import Path
from statistics import NormalDist

import jax
import numpy as np

from gmm_jax import Status, align, em, judge, log_prob, problems
from gmm_jax.bench.runner import derive_key
from gmm_jax.bench.study import Study
from gmm_jax.mixture import free_coordinates, standardise, static_masks
from gmm_jax.shell import experiment

PROBLEM, N_SAMPLES, LEVEL = "course_2d", 2_000, 0.95
BOUNDS = (0.935, 0.965)
POINTS = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])  # at which log densities are covered
CONFIG = em.EMConfig(max_iter=2000, tol=1e-11, reg_covar=0.0)
BATCH = 250  # data sets fitted at a time
FIELDS = ("weights", "means", "covariances")


def main(*, replications: int = 2_000, out: Path = Path("results"), smoke: bool = False) -> int:
    """One row an entry and kind of interval to out/coverage; exit code 3 where the expectation is not met.

    Args:
        replications: data sets.
        out: folder for results.
        smoke: 4 data sets, for tests.
    """
    replications = 4 if smoke else replications
    problem, covered, points, failed = problems.load(PROBLEM), [], [], 0
    options = {"replications": replications}
    with Study(__doc__, "coverage", out, options, steps=replications, seeds=replications, smoke=smoke) as study:
        for first in range(0, replications, BATCH):
            xs = [draw(problem, seed) for seed in range(first, min(first + BATCH, replications))]
            key = derive_key(first, "method", "coverage")
            best = em.fit_em_batch(key, np.stack(xs), problem.spec, n_restarts=4, config=CONFIG).best
            for i, x in enumerate(xs):
                hits, point, status = one(x, jax.tree.map(lambda leaf, i=i: leaf[i], best), problem)
                covered.append(hits)
                points.append(point)
                failed += status != Status.CONVERGED
                study.step()
    study.rows = rows_of(covered, problem)
    bound = judge.cramer_rao(derive_key(0, "bound", PROBLEM), problem.truth, problem.spec, n_samples=N_SAMPLES)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *points)
    found = judge.efficiency(stacked, problem.truth, problem.spec, bound) if len(points) > 1 else None
    met, sentence = verdict(study.rows, failed, found)
    return study.conclude(sentence, met=met)


def draw(problem, seed):
    """Samples whose labels are drawn too: the intervals are those of a random sample."""
    return problem.sample(derive_key(seed, "data", problem.name), N_SAMPLES, counts="multinomial")[0]


def one(x, result, problem):
    """(kind -> entries covered, the estimate in the truth's order, status) of one data set."""
    truth, spec = problem.truth, problem.spec
    result = result._replace(gmm=align(result.gmm, truth))
    found = em.intervals(x, result, spec, level=LEVEL)
    hits = {}
    for kind in ("raw", "transformed"):
        bounds = getattr(found, kind)
        inside = jax.tree.map(lambda low, true, high: (low <= true) & (true <= high), bounds.lower, truth, bounds.upper)
        hits[kind] = np.concatenate([np.ravel(getattr(inside, name)) for name in FIELDS])
    hits["delta"] = log_densities_covered(x, result, spec, truth)
    return hits, result.gmm, found.status


def log_densities_covered(x, result, spec, truth):
    """Whether log p̂ ± z·se holds log p of the truth, at POINTS; the gain of the scale cancels."""
    z, scaling = standardise(x, spec)
    inner = jax.tree.map(lambda leaf: np.asarray(leaf, z.dtype), scaling.inward(result.gmm))
    at = (POINTS - scaling.centre) / scaling.scale
    value, slopes = jax.tree.map(np.asarray, _log_densities(inner, at, static_masks(spec)))
    covariance = em.asymptotics(x, result, spec).covariance
    error = NormalDist().inv_cdf(0.5 + 0.5 * LEVEL) * np.sqrt(np.einsum("qp,pr,qr->q", slopes, covariance, slopes))
    true = np.asarray(_log_prob(jax.tree.map(np.asarray, scaling.inward(truth)), at))
    return np.abs(value - true) <= error


_log_prob = jax.jit(log_prob)


@partial(jax.jit, static_argnames="masks")
def _log_densities(gmm, at, masks):
    theta, unpack = free_coordinates(gmm, masks)
    return log_prob(gmm, at), jax.jacobian(lambda t: log_prob(unpack(t), at))(theta)


def rows_of(covered, problem):
    """A row an entry and a kind."""
    names = [
        f"{name}{list(index)}".replace(" ", "")
        for name in FIELDS
        for index in np.ndindex(*np.shape(getattr(problem.truth, name)))
    ]
    upper = [name.startswith("covariances") and name[-4] < name[-2] for name in names]  # symmetric: told once
    rows = []
    for kind in ("raw", "transformed", "delta"):
        share = np.mean([hits[kind] for hits in covered], axis=0)
        entries = [f"log p{tuple(point)}" for point in POINTS.tolist()] if kind == "delta" else names
        for i, entry in enumerate(entries):
            if kind == "delta" or not upper[i]:
                error = float(np.sqrt(share[i] * (1.0 - share[i]) / len(covered)))
                rows.append({"interval": kind, "entry": entry, "coverage": float(share[i]), "coverage_se": error})
                rows[-1] |= {"replications": len(covered), "level": LEVEL, "n_samples": N_SAMPLES}
    return rows


def verdict(rows, failed, found):
    """Whether the expectation is met, and the sentence with the numbers."""
    parts = []
    for kind in ("raw", "transformed", "delta"):
        values = [row["coverage"] for row in rows if row["interval"] == kind]
        what = {"delta": "log densities"}.get(kind, f"{kind} intervals")
        parts.append(f"{what} {min(values):.1%} to {max(values):.1%}")
    n = rows[0]["replications"]
    efficiency = f" EM's efficiency tr(I·MSE)/p is {found.value:.3f} ± {found.error:.3f}." if found else ""
    sentence = (
        f"Coverage of nominal 95 % over {n} data sets, from entry to entry: {'; '.join(parts)} (Monte-Carlo error "
        f"{max(row['coverage_se'] for row in rows):.1%}); {failed} data sets had no interval.{efficiency}"
    )
    return all(BOUNDS[0] <= row["coverage"] <= BOUNDS[1] for row in rows), sentence


if __name__ == "__main__":
    experiment(main)
