"""Which mode does every draw belong to, and how much of the posterior lies at each mode?

A draw belongs to the mode that it climbs to, up to the order of components. A mode's share of the posterior is found in
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

from .. import bayes
from ..bayes.checks import check_spec
from ..mixture import GMM, MixtureSpec, Posterior, distinguished
from ..mixture.checks import check_key
from ..mixture.match import distance

SAME_MODE = 1e-2  # match cost between two ends of climbs to one mode, which EM may stop short of
CLIMBS = 10  # of Laplace, from as many optima of EM
LAPLACE_DRAWS = 100  # of each, of which the best stands for its mode


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
                **_share(of_draw == m),
                "weights": modes.weights[m][order].tolist(),
                "means": modes.means[m][order].tolist(),
            }
        )
    rows.sort(key=lambda row: -row["laplace_share"])
    nothing = {"laplace_log_evidence": None, "laplace_share": None}
    rest = {**nothing, **_share(of_draw < 0), "weights": None, "means": None}
    return [{"mode": m + 1, **row} for m, row in enumerate(rows)] + [{"mode": "others", **rest}]


def _share(there):
    """Of draws (C, S), with its standard error by the scatter of the runs."""
    by_run = there.mean(axis=1)
    error = float(by_run.std(ddof=1) / np.sqrt(len(by_run))) if len(by_run) > 1 else None
    return {"smc_share": float(by_run.mean()), "smc_share_se": error}
