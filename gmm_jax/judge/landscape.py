"""The landscape of the likelihood: where climbs end, and how often."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .. import em
from ..em.optima import relative_variances
from ..mixture import Status


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


def _share(count, of):
    share = count / of
    return {"count": count, "share": share, "share_se": float(np.sqrt(share * (1.0 - share) / of))}
