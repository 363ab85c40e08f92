"""Does the posterior predictive under the default prior lose to EM's fit?

Data: random truths: means normal with sd 2, Σ = A·Aᵀ with A = I + 0.4·N, weights Dirichlet(4); one data set each.
Estimands: the density.
Methods: EM converged, the best of 20 starts; Gibbs under `bayes.default_prior`, 4 chains from EM's optimum.
Performance: KL divergence from the truth on 20,000 draws of it, the same for both; the ratio's geometric mean over
    truths, with its standard error.

Expected: at most 0.45, 0.78, 0.90, 0.92 and 0.98 of EM's. Found: see results/default_prior.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from gmm_jax import MixtureSpec, bayes, em, log_prob
from gmm_jax.bench.runner import derive_key
from gmm_jax.shell import experiment
from shared.cells import RUN, Options, ask, groups
from shared.truths import draw, random_truths

ROWS = {(4, 1, 200): 0.45, (3, 2, 150): 0.78, (2, 3, 100): 0.90, (4, 4, 400): 0.92, (3, 10, 900): 0.98}  # K, D, n
N_CHAINS, N_TEST, BLOCK = 4, 20_000, 10
CONFIG = em.EMConfig(max_iter=3000, tol=1e-9, acceleration="lbfgs")
CHAIN, SMALL = {"n_warmup": 300, "n_draws": 50, "thin": 20}, {"n_warmup": 10, "n_draws": 10}


def main(*, truths: int = 40, run: Options = RUN) -> int:
    """One row a truth to out/default_prior; exit code 3 where an expectation is not met.

    Args:
        truths: of each size, in blocks of ten; half as many in ten dimensions.
        run: where to, and how much.
    """
    n_truths = dict.fromkeys(list(ROWS)[:1], 2) if run.smoke else {row: truths // (1 + (row[1] > 4)) for row in ROWS}
    cells = [
        {"n_components": k, "n_features": d, "n_samples": n, "block": block}
        for block in range(-(-truths // BLOCK))
        for (k, d, n), many in n_truths.items()
        if block * BLOCK < many
    ]
    measure = partial(compare, n_truths=2 if run.smoke else BLOCK, chain=SMALL if run.smoke else CHAIN)
    return ask(__doc__, "default_prior", cells, measure, verdict, run, {"truths": truths}, seeds=truths)


def compare(n_components, n_features, n_samples, block, n_truths, chain):
    """A row for each truth of a block."""
    rng = np.random.default_rng([n_components, n_features, n_samples, block])
    truth = random_truths(rng, n_truths, n_components, n_features)
    x, test = draw(rng, truth, n_samples), draw(rng, truth, N_TEST)
    spec = MixtureSpec(n_components)
    key_em, key_gibbs = (derive_key(block, "method", name) for name in ("em", "gibbs"))
    best = em.fit_em_restarts(key_em, x, spec, n_restarts=20, config=CONFIG, traces=False).best.gmm
    xs, starts = jax.tree.map(lambda leaf: np.repeat(leaf, N_CHAINS, axis=0), (x, best))
    draws = bayes.gibbs_batch(key_gibbs, xs, spec, init=starts, **chain)
    draws = jax.tree.map(lambda leaf: leaf.reshape(n_truths, -1, *leaf.shape[2:]), draws)
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[:, None], (truth, best))
    exact, fitted, predictive = (np.asarray(log_predictive(gmms, test)) for gmms in (*one, draws))
    kl_em, kl_bayes = np.mean(exact - fitted, axis=1), np.mean(exact - predictive, axis=1)
    both = zip(kl_em.tolist(), kl_bayes.tolist(), strict=True)
    return [{"truth": i, "kl_em": a, "kl_bayes": b} for i, (a, b) in enumerate(both)]


@jax.jit
def log_predictive(gmms, x):
    """log of the mean density of mixtures (P, S, ...) at x (P, N, D): (P, N)."""

    def one(of_truth):
        gmms, x = of_truth

        def add(total, gmm):
            return jnp.logaddexp(total, log_prob(gmm, x)), None

        start = jnp.full(x.shape[:1], -jnp.inf, x.dtype)
        return jax.lax.scan(add, start, gmms)[0] - np.log(gmms.weights.shape[0])

    return jax.lax.map(one, (gmms, x))


def verdict(rows):
    """Whether the expectations are met, and the sentence with the numbers."""
    parts, met = [], True
    for (k, d, n), mine in groups(rows, "n_components", "n_features", "n_samples").items():
        logs = np.log([row["kl_bayes"] / row["kl_em"] for row in mine])
        ratio, error = np.exp(logs.mean()), np.exp(logs.mean()) * logs.std(ddof=1) / np.sqrt(len(logs))
        met &= bool(ratio <= ROWS[k, d, n])
        case = f"K = {k}, D = {d}, n = {n}; {len(mine)} truths; at most {ROWS[k, d, n]} expected"
        parts.append(f"{ratio:.2f} ± {error:.2f} ({case})")
    return met, f"KL divergence of the posterior predictive as a multiple of EM's: {'; '.join(parts)}."


if __name__ == "__main__":
    experiment(main)
