"""The landscape of the likelihood and of the posterior: where climbs end, how often, and how much mass lies there.

A plateau of the likelihood looks like many optima, because EM stops wherever its gain has become small. `polished`
climbs on from each one by quasi-Newton steps until the gradient vanishes, and counts as one those that arrive at the
same place.

A draw of the posterior belongs to the mode that it climbs to, up to the order of components. A mode's share is found in
two ways that have nothing in common: by Laplace, its share of the evidence that Gaussians at the modes sum to; by smc,
the share of draws that climb there. Where they differ by more than the second's standard error, modes are not Gaussian,
or hang together.

Reference:
    Yao & Lindsay (2009), Bayesian mixture labeling by highest posterior density, JASA 104: draws climb by EM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from .. import bayes, em
from ..bayes.checks import check_spec
from ..em.optima import relative_variances
from ..mixture import GMM, MixtureSpec, Posterior, Status, distinguished
from ..mixture.checks import check_key
from ..mixture.match import distance

POLISH = em.EMConfig(max_iter=5000, tol=1e-9, acceleration="lbfgs", stop="gradient")
SAME_MODE = 1e-2  # match cost between two ends of climbs to one mode, which EM may stop short of
CLIMBS = 10  # of Laplace, from as many optima of EM
LAPLACE_DRAWS = 100  # of each, of which the best stands for its mode


def polished(key: Key[Array, ""], x: Float[np.ndarray, "N D"], spec: MixtureSpec, found: em.Restarts) -> em.Optima:
    """The distinct stationary points that the optima of `found` lead to; a fit is counted where its optimum ends.

    A step of the climb can leave the basin that it started in: those that end at none, or collapse, are of no optimum.
    """
    first = found.optima
    if not first.count.size:
        return first
    after = em.fit_em_restarts(key, x, spec, n_restarts=first.count.size, init=first.gmm, config=POLISH).optima
    of_fit = np.where(first.of_fit < 0, -1, after.of_fit[first.of_fit])
    highest = [int(np.argmax(after.of_fit == m)) for m in range(after.count.size)]  # first's optima are in order
    count = np.bincount(of_fit[of_fit >= 0], minlength=after.count.size)
    return after._replace(count=count, fit=first.fit[highest], of_fit=of_fit)


def rows_of(optima: em.Optima, status: Int[np.ndarray, "R"], x: Float[np.ndarray, "N D"]) -> list[dict[str, Any]]:
    """Table of EM's optima: a row each, highest first, then one for each way in which fits ended without one.

    Args:
        status: of every fit.

    Columns: optimum, counted from 1; log_likelihood (nats) and gap, what is missing to the best (what the criterion
    prefers of those that are not spurious; the highest where all are), negative above it; criterion (nats); count of
    fits, share of all and its standard error; spurious, and reason, why; smallest_count, the least n·φ_k;
    smallest_eigenvalue, the least of any S⁻¹Σ_k with S the covariance of x, and narrow_count, the n·φ_k of that
    component.
    """
    x = np.asarray(x, float)
    counts = len(x) * np.asarray(optima.gmm.weights, float)
    spread = np.cov(x.T, bias=True).reshape(x.shape[1], -1)
    least = relative_variances(optima.gmm, spread).min(axis=-1, initial=np.inf)
    worth = np.where(optima.spurious, -np.inf, optima.criterion)
    best = float(optima.log_likelihood[np.argmax(worth)]) if optima.count.size else -np.inf
    rows = [
        {
            "optimum": i + 1,
            "log_likelihood": float(optima.log_likelihood[i]),
            "gap": best - float(optima.log_likelihood[i]),
            "criterion": float(optima.criterion[i]),
            **_share(int(optima.count[i]), status.size),
            "spurious": bool(optima.spurious[i]),
            "reason": str(optima.reason[i]),
            "smallest_count": float(counts[i].min()),
            "smallest_eigenvalue": float(least[i].min()),
            "narrow_count": float(counts[i, np.argmin(least[i])]),
        }
        for i in range(optima.count.size)
    ]
    ended, count = np.unique(status[optima.of_fit < 0], return_counts=True)
    reasons = ("lost when polished" if Status(s).ok else Status(s).name for s in ended.tolist())
    return rows + [
        {"optimum": None, **_share(int(n), status.size), "reason": f"no optimum: {why}"}
        for why, n in zip(reasons, count, strict=True)
    ]


def curvature(optima: em.Optima, x: Float[np.ndarray, "N D"], spec: MixtureSpec) -> list[str]:
    """For each optimum "maximum" where the information there is positive definite, else the Status that says why not.

    SINGULAR is a saddle, or components that coincide; BOUNDARY has no such test.
    """
    found = []
    for i in range(optima.count.size):
        gmm = jax.tree.map(lambda leaf, i=i: leaf[i], optima.gmm)
        result = em.EMResult(gmm, optima.log_likelihood[i], np.zeros(0), 0, Status.CONVERGED)
        status = em.asymptotics(x, result, spec).status
        found.append("maximum" if status == Status.CONVERGED else status.name)
    return found


def _share(count, of):
    share = count / of
    return {"count": count, "share": share, "share_se": float(np.sqrt(share * (1.0 - share) / of))}


# ---- modes of the posterior


def modes_reached(
    posterior: Posterior, modes: GMM, climb: Callable[[GMM], GMM], spec: MixtureSpec | None = None
) -> tuple[Int[np.ndarray, "C S"], Int[np.ndarray, "M"]]:
    """The index of the mode that each draw climbs to, −1 for one that is not listed; and that of each listed one.

    Args:
        modes: (M, ...), each anywhere on the slopes of its mode, as an optimum of EM is for the posterior's: they climb
            too, and those that end together share the number of the first.
        climb: mixtures with one leading axis to their modes, as in `relabel`.
    """
    shape, n_components = posterior.draws.weights.shape[:2], posterior.draws.n_components
    spec = MixtureSpec(n_components, posterior.draws.covariance_type) if spec is None else spec
    spec = distinguished(spec, posterior.named)
    flat = jax.tree.map(lambda leaf: np.reshape(leaf, (-1, *np.shape(leaf)[2:])), posterior.draws)
    both = jax.tree.map(lambda many, few: np.concatenate([many, np.asarray(few, many.dtype)]), flat, modes)
    ends = jax.tree.map(np.asarray, climb(both))
    n_draws = shape[0] * shape[1]
    tops = (jax.tree.map(lambda leaf, m=m: leaf[m], ends) for m in range(n_draws, n_draws + len(modes.weights)))
    near = np.stack([distance(ends, top, spec) for top in tops], axis=-1) <= SAME_MODE
    number = np.where(near.any(axis=-1), np.argmax(near, axis=-1), -1)
    return number[:n_draws].reshape(shape), number[n_draws:]


def mode_weights(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_restarts: int = 50,
    n_runs: int = 8,
    n_draws: int = 1000,
) -> list[dict[str, Any]]:
    """Posterior mass at each mode, two ways: a row a mode up to labels, highest Laplace evidence first, and the rest.

    Columns: laplace_log_evidence (nats, all copies of the mode), laplace_share (None for the rest: of modes that were
    not found it knows nothing), smc_share and smc_share_se by the scatter of n_runs independent runs, and the mode's
    weights and means, lists, in the order of the weights.

    Args:
        n_restarts: of EM, whose distinct optima the modes are climbed to from.
        n_draws: of each run of smc.

    Raises:
        NotSupported: the prior is not semi-conjugate, so that EM cannot climb its posterior.
    """
    key_start, key_laplace, key_smc = jax.random.split(check_key(key), 3)
    climb = bayes.climber(x, check_spec(spec))
    init, _ = bayes.starts_from_em(key_start, x, spec, CLIMBS, n_restarts=n_restarts)
    found = bayes.laplace(key_laplace, x, spec, n_chains=CLIMBS, n_draws=LAPLACE_DRAWS, init=init)
    chains = np.unique(found.stats["mode"])
    chains = chains[np.isfinite(found.stats["log_evidence_of_mode"][chains])]
    if not chains.size:
        raise ValueError("Laplace found no mode of the posterior: raise n_restarts, or give an informative prior.")
    evidence = found.stats["log_evidence_of_mode"][chains]
    best = np.argmax(found.log_density[chains], axis=1)
    modes = jax.tree.map(lambda leaf: leaf[chains, best], found.draws)
    draws = bayes.smc(key_smc, x, spec, n_chains=n_runs, n_draws=n_draws)
    of_draw, of_mode = modes_reached(draws, modes, climb, spec)
    rows = []
    for m in np.unique(of_mode[of_mode >= 0]):
        total = np.logaddexp.reduce(evidence[of_mode == m])
        order = np.argsort(-modes.weights[m], kind="stable")
        rows.append(
            {
                "laplace_log_evidence": float(total),
                "laplace_share": float(np.exp(total - np.logaddexp.reduce(evidence))),
                **_share_of_draws(of_draw == m),
                "weights": modes.weights[m][order].tolist(),
                "means": modes.means[m][order].tolist(),
            }
        )
    rows.sort(key=lambda row: -row["laplace_share"])
    nothing = {"laplace_log_evidence": None, "laplace_share": None}
    rest = {**nothing, **_share_of_draws(of_draw < 0), "weights": None, "means": None}
    return [{"mode": m + 1, **row} for m, row in enumerate(rows)] + [{"mode": "others", **rest}]


def _share_of_draws(there):
    """Of draws (C, S), with its standard error by the scatter of the runs."""
    by_run = there.mean(axis=1)
    error = float(by_run.std(ddof=1) / np.sqrt(len(by_run))) if len(by_run) > 1 else None
    return {"smc_share": float(by_run.mean()), "smc_share_se": error}
