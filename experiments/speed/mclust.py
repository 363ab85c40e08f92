"""The EM iteration of R's mclust, timed by R itself: Fortran of one thread, float64."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gmm_jax.bench.methods import Unavailable
from gmm_jax.bench.methods._peers import ask_r, check_answer

PROGRAM = Path(__file__).with_suffix(".R").read_text(encoding="utf-8")
FEW, MANY = (1, 2), (2, 8)  # iterations whose times are subtracted: where one takes over MOST seconds, and elsewhere
MCLUST_COUNTED = "(time of 8 − time of 2 iterations) / 6; of 2 − of 1 where one takes over a second"
LEAST = 0.3  # seconds that the iterations of one measurement take at least: R's clock has milliseconds
MOST = 1.0


def mclust_iterations(x, start, reg_covar, n_iter):
    """em() of model VVV from the same mixture, as often as can be timed; it has no ridge."""
    del reg_covar, n_iter
    files = {"x": x, "weights": start.weights, "means": start.means, "covariances": start.covariances}

    def seconds(n_calls, counts=MANY):
        """Of n_calls iterations."""
        with TemporaryDirectory() as folder:
            for name, leaf in files.items():
                np.ascontiguousarray(leaf, dtype="<f8").tofile(Path(folder) / name)
            done = ask_r("mclust", PROGRAM, folder, *x.shape, start.n_components, n_calls, *counts)
        found = float(check_answer(done))
        return found if found > 0.0 else math.nan  # where noise was larger than the difference, nothing is known

    if seconds(1, FEW) > MOST:
        return lambda: seconds(1, FEW)
    n_calls = 1
    while n_calls < 4096 and not seconds(n_calls) >= LEAST / 6:
        n_calls *= 4
    return lambda: seconds(n_calls) / n_calls


def how_to_get_mclust() -> str:
    """Why mclust cannot be timed here, "" where it can."""
    try:
        ask_r("mclust", PROGRAM)
    except Unavailable as reason:
        return str(reason)
    return ""
