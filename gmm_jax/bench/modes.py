"""How much of the posterior lies at each of its modes? Told in two ways that have nothing in common.

By Laplace: each mode's share of the evidence that Gaussians at the modes sum to. By smc: the share of draws that climb
there. Where they differ by more than the second's standard error, modes are not Gaussian, or hang together.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from .. import bayes, judge
from ..mixture import MixtureSpec
from .methods._posterior import climb_posterior, em_starts

CLIMBS = 10  # of Laplace, from as many optima of EM
LAPLACE_DRAWS = 100  # of each, of which the best stands for its mode


def mode_weights(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_restarts: int = 50,
    n_runs: int = 8,
    n_draws: int = 1000,
) -> list[dict[str, Any]]:
    """A row for each distinct mode of the posterior up to labels, highest Laplace evidence first, and one for the rest.

    Columns: laplace_log_evidence (nats, all copies of the mode), laplace_share (None for the rest: of modes that were
    not found it knows nothing), smc_share and smc_share_se by the scatter of n_runs independent runs, and the mode's
    weights and means, lists, in the order of the weights.

    Args:
        n_restarts: of EM, whose distinct optima the modes are climbed to from.
        n_draws: of each run of smc.

    Raises:
        NotSupported: the prior is not semi-conjugate, so that EM cannot climb its posterior.
    """
    key_start, key_laplace, key_smc = jax.random.split(key, 3)
    climb = climb_posterior(x, spec)
    init, _ = em_starts(key_start, x, spec, CLIMBS, n_restarts)
    found = bayes.laplace(key_laplace, x, spec, n_chains=CLIMBS, n_draws=LAPLACE_DRAWS, init=init)
    chains = np.array(
        [c for c in np.unique(found.stats["mode"]) if np.isfinite(found.stats["log_evidence_of_mode"][c])]
    )
    if not chains.size:
        raise ValueError("Laplace found no mode of the posterior: raise n_restarts, or give an informative prior.")
    evidence = found.stats["log_evidence_of_mode"][chains]
    best = np.argmax(found.log_density[chains], axis=1)
    modes = jax.tree.map(lambda leaf: leaf[chains, best], found.draws)
    draws = bayes.smc(key_smc, x, spec, n_chains=n_runs, n_draws=n_draws)
    of_draw, of_mode = judge.modes_reached(draws, modes, climb, spec)
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
