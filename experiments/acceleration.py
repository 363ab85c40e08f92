"""How many E-steps does accelerated EM save where EM is slow?

Data: heavily overlapping mixtures, where EM's rate of convergence (the largest eigenvalue of its Jacobian at the
    optimum) is above 0.98, and three real data sets for contrast; 50 starts each.
Estimands: the optimum that plain EM reaches from the same start.
Methods: plain EM, and EM accelerated by L-BFGS; every E-step counts, rejected ones and the first too.
Performance: plain / accelerated E-steps until the log-likelihood is within 1e-8 a sample of that optimum (geometric
    mean and worst start); how many starts end elsewhere; and seconds of all starts under one `vmap`, until the last
    that reaches the same optimum is there on both sides.

Expected: where EM is slow, a geometric mean of plain / accelerated of at least 5, no start that reaches the same
optimum worse than 1.2 times plain, and less time under `vmap` too. Found: see results/acceleration.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from gmm_jax import GMM, MixtureSpec, Status, em, sample
from gmm_jax.bench import store
from gmm_jax.bench.runner import derive_key
from gmm_jax.em.acceleration import from_coordinates, to_coordinates
from gmm_jax.mixture import e_step
from gmm_jax.mixture.starts import random_points
from gmm_jax.problems import datasets
from gmm_jax.shell import experiment
from shared.cells import RUN, Options, ask, groups
from speed.ratios import interleave, ratio, seconds_of

PLAIN = em.EMConfig(max_iter=20_000, tol=1e-14)
ACCELERATED = em.EMConfig(max_iter=2_000, tol=1e-14, acceleration="lbfgs")
CLOSE = 1e-8  # nats a sample: where counting ends
SAME = 1e-6  # nats a sample: two ends are one optimum
PAIRS = 5  # interleaved, of seconds under vmap
SLOW = {  # weights, means, covariances, covariance_type, n: components one and a half or two standard deviations apart
    "line": ([0.5, 0.5], [[-0.75], [0.75]], [[[1.0]], [[1.4]]], "full", 1000),
    "plane": ([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [np.eye(2), np.eye(2)], "full", 2000),
    "triangle": ([0.3, 0.3, 0.4], [[0.0, 0.0], [1.5, 0.0], [0.75, 1.3]], [0.6, 1.0, 1.5], "spherical", 2000),
}
REAL = {"acidity": 3, "faithful": 3, "iris": 3}  # number of components, full covariances


def main(*, starts: int = 50, run: Options = RUN) -> int:
    """One row a start, and one with the seconds of all where EM is slow; exit code 3 where not as expected.

    Args:
        starts: how many random points starts on each problem.
        run: where to, and how much.
    """
    names, n_starts = (["line"], 3) if run.smoke else ([*SLOW, *REAL], starts)
    cells = [{"problem": name, "starts": n_starts} for name in names]
    return ask(__doc__, "acceleration", cells, measure, verdict, run, {"starts": starts})


def measure(problem, starts):
    """The rows of all starts, and that of their seconds."""
    rows = compare(problem, starts)
    return rows + ([{"start": "all", **seconds_under_vmap(problem, starts, rows)}] if problem in SLOW else [])


def problem(name, n_starts):
    """Standardised data, and starts with a leading axis."""
    if name in REAL:
        x, spec = datasets.load(name)[0], MixtureSpec(REAL[name])
    else:
        *leaves, covariance_type, n = SLOW[name]
        truth = GMM(*(np.array(leaf, float) for leaf in leaves), covariance_type)
        x = np.asarray(sample(derive_key(0, "data", name), truth, n)[0])
        spec = MixtureSpec(truth.n_components, covariance_type)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x, draw_starts(jax.random.split(derive_key(0, "method", name), n_starts), x, spec)


def compare(name, n_starts):
    """A row for each start; nothing is compared where plain EM did not converge."""
    x, inits = problem(name, n_starts)
    plain, accelerated = fit_all(x, inits, PLAIN), fit_all(x, inits, ACCELERATED)
    rates = np.asarray(rate_of_convergence(plain.gmm, x))
    rows = []
    for start in range(n_starts):
        top = plain.log_likelihood[start]
        enough = top - CLOSE * len(x)
        ended = plain.status[start] == Status.CONVERGED
        same = bool(abs(accelerated.log_likelihood[start] - top) < SAME * len(x)) if ended else None
        counts = [int(np.argmax(fit.trace[start] >= enough)) + 1 for fit in (plain, accelerated)]
        row = {
            "start": start,
            "rate": float(rates[start]),
            "status_plain": Status(int(plain.status[start])),
            "status_accelerated": Status(int(accelerated.status[start])),
            "log_likelihood_plain": float(top),
            "log_likelihood_accelerated": float(accelerated.log_likelihood[start]),
            "same_optimum": same,
            "e_steps_plain": counts[0],
            "e_steps_accelerated": counts[1] if same else None,
            "ratio": counts[0] / counts[1] if same else None,
        }
        rows.append({key: store.plain(value) for key, value in row.items()})
    return rows


def seconds_under_vmap(name, n_starts, rows):
    """Of both sides, for as many E-steps as the last start takes; nothing where none reached the same optimum."""
    compared = [row for row in rows if row["same_optimum"]]
    if not compared:
        return {}
    (x, inits), calls = problem(name, n_starts), {}
    for side, config in (("plain", PLAIN), ("accelerated", ACCELERATED)):
        enough = replace(config, tol=0.0, max_iter=max(row[f"e_steps_{side}"] for row in compared) - 1)
        program = jax.jit(partial(_fit_all, config=enough)).lower(x, inits).compile()
        calls[side] = partial(seconds_of, partial(program, x, inits))
    interleave(calls, 1)  # warm
    seconds = interleave(calls, PAIRS)
    times = ratio(seconds["plain"], seconds["accelerated"])
    found = {f"seconds_{side}": float(np.median(values)) for side, values in seconds.items()}
    return found | {"seconds_ratio": times.median, "seconds_ratio_low": times.low, "seconds_ratio_high": times.high}


@partial(jax.jit, static_argnames="spec_of")
def _starts(keys, x, spec_of):
    return jax.vmap(random_points, in_axes=(0, None, None))(keys, x, MixtureSpec(*spec_of))


def draw_starts(keys, x, spec):
    """Starts with a leading axis."""
    return _starts(keys, x, (spec.n_components, spec.covariance_type))


def fit_all(x, inits, config):
    """EM from every start, in NumPy."""
    return jax.tree.map(np.asarray, _fit_all(x, inits, config))


def _fit_all(x, inits, config):
    return jax.vmap(lambda init: em.fit_em(x, init, config=config))(inits)


@jax.jit
def _jacobians(gmms, x):
    def step(vector, like):
        here = from_coordinates(vector, like)
        return to_coordinates(em.m_step(e_step(here, x, sums="exact"), here))

    return jax.vmap(lambda gmm: jax.jacfwd(step)(to_coordinates(gmm), gmm))(gmms)


def rate_of_convergence(gmms, x):
    """The spectral radius of EM's Jacobian at each mixture: by which an error shrinks in one step."""
    jacobians = np.nan_to_num(np.asarray(_jacobians(gmms, jnp.asarray(x))))
    return np.abs(np.linalg.eigvals(jacobians)).max(axis=-1)


def verdict(rows):
    """Whether the expectations are met, and the sentence with the numbers."""
    parts, met = [], True
    for name, of_one in groups(rows, "problem").items():
        mine = [row for row in of_one if row["start"] != "all"]
        seconds = next((row.get("seconds_ratio") for row in of_one if row["start"] == "all"), None)
        ratios = np.array([row["ratio"] for row in mine if row["ratio"] is not None])
        mean, rate = (
            np.exp(np.mean(np.log(ratios))),
            np.median([row["rate"] for row in mine if row["same_optimum"] is not None]),
        )
        faster = seconds is not None and seconds > 1.0
        met &= name in REAL or bool(mean >= 5.0 and ratios.min() >= 1 / 1.2 and rate > 0.98 and faster)
        other = sum(row["same_optimum"] is False for row in mine)
        failed = len(mine) - ratios.size - other
        time = "time not measured" if seconds is None else f"{seconds:.3g} times less time"
        failures = f" and from {failed} plain EM did not converge" if failed else ""
        parts.append(
            f"{name} (rate {rate:.4f}) {mean:.1f} times fewer, at worst {ratios.min():.2f} times, {time}; "
            f"of {len(mine)} starts {other} ended in another optimum{failures}"
        )
    slow = [row["ratio"] for row in rows if row["problem"] in SLOW and row.get("ratio") is not None]
    head = f": {np.exp(np.mean(np.log(slow))):.1f} times fewer E-steps where EM is slow" if slow else ""
    return met, "\n".join([f"Geometric means{head}.", *parts])


if __name__ == "__main__":
    experiment(main)
