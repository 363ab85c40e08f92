"""The largest importance weights: a generalised Pareto law's shape k̂ says what they may be used for, if there is one.

Reference:
    Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

K_HAT_LIMIT = 0.7  # above it weights correct nothing
UNDERFLOW = 700.0  # nats: beyond it a weight is 0 beside the largest


def tail_is_lost(log_weight: Float[np.ndarray, "... S"]) -> Bool[np.ndarray, "..."]:
    """Whether of the weights that the law is fitted to, the smallest is nothing beside the largest.

    Then k̂ is far above 1; ArviZ fits zeros and finds 0.05.
    """
    n_draws = log_weight.shape[-1]
    n_tail = int(np.ceil(min(0.2 * n_draws, 3.0 * np.sqrt(n_draws))))
    tail = np.sort(log_weight, axis=-1)[..., -n_tail:]
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        return tail[..., -1] - tail[..., 0] > UNDERFLOW
