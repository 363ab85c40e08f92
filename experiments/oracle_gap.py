"""Is EM as good as the data allow, and do 50 restarts ever miss what a start at the truth finds?

Data: many data sets of course_2d, Case II, with fixed counts.
Estimands: the maximum of the likelihood, and μ and Σ, components paired with the truth's.
Methods: the best of 50 restarts and EM started at the truth, both at tol=1e-10; the oracle that knows the labels; on
    the first 20 data sets posterior means by gibbs.
Performance: the largest shortfall in log-likelihood a sample; root mean square errors over those of the oracle; the
    largest difference of EM from the posterior mean in posterior sds.

Expected: never below the start at the truth by more than 1e-6 a sample; root mean square errors at most 1.25 times
those of the oracle that knows the labels; on the first 20, EM and the posterior means within half a posterior sd.
Found: see results/oracle_gap.
"""

from functools import partial

import numpy as np

from gmm_jax import align, bayes, em, judge, problems
from gmm_jax.bench import store
from gmm_jax.bench.methods import oracle
from gmm_jax.bench.runner import derive_key
from gmm_jax.shell import experiment
from shared.cells import RUN, Options, ask

PROBLEM, N_POSTERIOR = "course_2d", 20
CONFIG = em.EMConfig(max_iter=5000, tol=1e-10)


def main(*, data_sets: int = 1000, restarts: int = 50, run: Options = RUN) -> int:
    """One row a data set to out/oracle_gap; exit code 3 where an expectation is not met.

    Args:
        data_sets: how many.
        restarts: k-means++ starts of EM on each.
        run: where to, and how much.
    """
    cells = [{"seed": seed, "restarts": restarts} for seed in range(3 if run.smoke else data_sets)]
    measure = partial(one, n_posterior=0 if run.smoke else N_POSTERIOR)
    options = {"data_sets": data_sets, "restarts": restarts}
    return ask(__doc__, "oracle_gap", cells, measure, verdict, run, options, seeds=data_sets)


def one(seed, restarts, n_posterior):
    """EM from many starts, EM from the truth, and the oracle, on one data set, in the truth's order."""
    problem = problems.load(PROBLEM)
    x, labels = problem.sample(derive_key(seed, "data", problem.name))
    key = derive_key(seed, "method", "oracle_gap")
    found = em.fit_em_restarts(key, x, problem.spec, n_restarts=restarts, config=CONFIG).best
    from_truth = em.fit_em_restarts(key, x, problem.spec, n_restarts=1, init=problem.truth, config=CONFIG).best
    labelled = oracle.fit(key, x, problem.spec, labels=labels).point
    return {
        "gain_over_truth": float(found.log_likelihood - from_truth.log_likelihood) / len(x),
        "status": found.status,
        "em": store.mixture_record(align(found.gmm, problem.truth)),
        "oracle": store.mixture_record(labelled),
        "posterior_gap_in_sd": posterior_gap(key, x, problem.spec, found.gmm) if seed < n_posterior else None,
    }


def posterior_gap(key, x, spec, point):
    """The largest |EM − posterior mean| over all entries of φ, μ and Σ, in posterior sds (Gibbs, 4 x 2,500 draws)."""
    posterior = judge.relabel(bayes.gibbs(key, x, spec, n_draws=2500, init=point), reference=point).posterior
    gaps = []
    for name in ("weights", "means", "covariances"):
        draws = getattr(posterior.draws, name)
        gaps.append(np.max(np.abs(draws.mean((0, 1)) - getattr(point, name)) / draws.std((0, 1))))
    return float(max(gaps))


def verdict(rows):
    """Whether the expectations are met, and the sentence with the numbers."""
    truth = problems.load(PROBLEM).truth
    worst = min(row["gain_over_truth"] for row in rows)
    ratios = {}
    for name in ("means", "covariances"):
        true = np.asarray(getattr(truth, name))
        rmse = {
            m: np.sqrt(np.mean([(np.array(r[m][name]) - true) ** 2 for r in rows], axis=0)) for m in ("em", "oracle")
        }
        for index in np.ndindex(*true.shape):
            ratios[name + str(list(index))] = float(rmse["em"][index] / rmse["oracle"][index])
    gaps = [row["posterior_gap_in_sd"] for row in rows if row["posterior_gap_in_sd"] is not None]
    widest = max(gaps, default=0.0)
    compared = f"; on {len(gaps)} of them EM and the posterior means differ by at most {widest:.2f} posterior sds"
    sentence = (
        f"Over {len(rows)} data sets the best restart is at worst {worst:.1e} nats a sample from EM started at the "
        f"truth; root mean square errors of the entries of μ and Σ are {min(ratios.values()):.2f} to "
        f"{max(ratios.values()):.2f} times those of the oracle that knows the labels{compared if gaps else ''}."
    )
    return worst >= -1e-6 and max(ratios.values()) <= 1.25 and widest <= 0.5, sentence


if __name__ == "__main__":
    experiment(main)
