"""How near does each method come to the truth, problem by problem?

Expected: all methods near the oracle where components are apart; the posterior mean better than EM where they overlap;
SVI as near but too sure.  Found: see results/recovery.
"""

from pathlib import Path

from gmm_jax import problems
from gmm_jax.bench.compare import compare
from gmm_jax.shell import experiment

METHODS = {
    "oracle": {},
    "em": {"n_restarts": 20},
    "svi": {"n_warmup": 1000, "n_restarts": 10},
    "gibbs": {"n_warmup": 1000, "n_draws": 4000, "n_restarts": 10},
    "nuts": {"n_warmup": 300, "n_draws": 500, "n_restarts": 10},
}
# with 119 parameters and 4000 samples, or 3977 and 3000, a gradient is slow and trajectories are long
TOO_LONG = {"nuts": ("many_components", "fifty_dimensional"), "svi": ("fifty_dimensional",)}
SMOKE = {
    "oracle": {},
    "em": {"n_restarts": 4},
    "gibbs": {"n_chains": 2, "n_warmup": 50, "n_draws": 50, "n_restarts": 4},
}
QUESTION = "How near does each method come to the truth, problem by problem?"


def main(*, seeds: int = 3, out: Path = Path("results"), smoke: bool = False) -> int:
    """Every method on every named problem; rows, pictures and report to out/recovery.

    Args:
        seeds: how many data sets a problem.
        out: folder for results; finished trials in it are kept.
        smoke: a quick pass over one problem, for tests.
    """
    return compare(
        "recovery",
        ("course_2d",) if smoke else problems.names(),
        SMOKE if smoke else METHODS,
        seeds=1 if smoke else seeds,
        leave_out=TOO_LONG,
        results=out,
        command=f"python experiments/recovery.py --seeds {seeds}",
        question=QUESTION,
        answer=answer,
    )


def answer(rows):
    """One sentence: on how many problems each method's median divergence is within a factor 1.5 of the oracle's."""
    near = {}
    for problem in dict.fromkeys(row["problem"] for row in rows):
        oracle = median(rows, problem, "oracle")
        for method in METHODS:
            value = median(rows, problem, method)
            if method != "oracle" and value is not None and oracle is not None:
                near.setdefault(method, []).append(value <= 1.5 * oracle)
    shares = ", ".join(f"{method} on {sum(hits)} of {len(hits)}" for method, hits in near.items())
    return f"Median KL from the truth is within 1.5 times the oracle's for {shares} problems."


def median(rows, problem, method):
    """Median divergence over seeds, None without an answer."""
    values = sorted(
        r["kl"] for r in rows if r["problem"] == problem and r["method"] == method and r.get("kl") is not None
    )
    return values[len(values) // 2] if values else None


if __name__ == "__main__":
    experiment(main)
