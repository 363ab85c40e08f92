"""Which features make data singular, constant ones and linear combinations of others, and which are no measurements.

Feature j is dependent if regression on the features before it leaves less than 1e-8 of its variance. A covariance of
such data has no inverse: what is fitted is decided by `reg_covar`, not by the data.
"""

import shlex
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular

from ..mixture.summary import merge, summarise

LEFT = 1e-8  # of a feature's variance: a hundredth of the relative ridge
FELT = 1e-4  # of a feature's sd: what a smaller coefficient adds is not named
ROWS = 1 << 16  # of an array looked at together
NAMED = 5  # sentences, and features in one
IDENTIFIERS = ("id", "index", "row", "nr", "no", "number", "case", "subject", "sample")


def dependent_features(
    x: Float[np.ndarray, "N D"] | Callable[[], Iterable[np.ndarray]], names: Sequence[str] | None = None
) -> list[str]:
    """A sentence for each feature that is constant or a linear combination of others; none for regular data.

    Args:
        x: rows, or a function that yields blocks of them; it is read on only as long as something seems dependent.
            Rows with NaN are left out.
        names: of the features; by default their numbers from 0.
    """
    summary, found = None, {}
    for block in x() if callable(x) else (x[i : i + ROWS] for i in range(0, len(x), ROWS)):
        rows = np.asarray(block, float)
        summary = merge(summary, summarise(rows[np.isfinite(rows).all(axis=1)], None, None, 0))
        if summary is not None:
            rounding = np.finfo(float).eps * np.abs(summary.mean)
            found = dependencies(summary.scatter / summary.n_rows, rounding)
            if summary.n_rows > len(rounding) and not found:
                return []
    if summary is None:
        return []
    return _sentences(found, summary.n_rows, names or [str(j) for j in range(len(summary.mean))])


def doubtful_features(x: Float[np.ndarray, "N D"], names: Sequence[str]) -> list[str]:
    """A sentence for each feature that numbers the rows, or has a value that may stand for a missing one, such as -999.

    Such a value occurs twice or more, and lies further from all others than twice their range.
    """
    said = []
    for name, column in zip(names, np.asarray(x, float).T, strict=True):
        values, counts = np.unique(column[np.isfinite(column)], return_counts=True)
        if len(values) < 4:
            continue
        apart = counts.max() == 1 and not np.any(values % 1.0)
        if apart and (values[-1] - values[0] == len(values) - 1 or name.lower() in IDENTIFIERS):
            what = f"column {name!r} numbers the rows, and is fitted like a measurement"
            said.append(f"{what}: --drop {shlex.quote(name)} leaves it out")
        for far, gap, others in (
            (0, values[1] - values[0], values[-1] - values[1]),
            (-1, values[-1] - values[-2], values[-2] - values[0]),
        ):
            if counts[far] > 1 and gap > 2.0 * others:
                what = f"{values[far]:g} occurs {counts[far]} times in column {name!r}, far from all other values"
                said.append(f"{what}: if it stands for a missing one, add --na={values[far]:g} --missing marginalise")
    return said


def dependent_columns(covariance: Float[np.ndarray, "D D"]) -> list[int]:
    """The columns that take part in a linear dependence, constant ones left out."""
    return sorted({j for column, of in dependencies(covariance).items() if of for j in (column, *of)})


def dependencies(
    covariance: Float[np.ndarray, "D D"], rounding: Float[np.ndarray, "D"] | float = 0.0
) -> dict[int, list[int]]:
    """feature -> the earlier features that it is a linear combination of, none if it is constant, up to `rounding`."""
    sd = np.sqrt(np.diag(covariance))
    constant = sd <= 4.0 * rounding
    safe = np.where(constant, 1.0, sd)
    correlation = covariance / safe / safe[:, None]
    try:
        if np.all(np.diag(np.linalg.cholesky(correlation)) ** 2 > LEFT):
            return {}
    except np.linalg.LinAlgError:
        pass
    kept, lower, found = [], np.zeros_like(correlation), {}
    for j in range(len(sd)):
        m = len(kept)
        row = solve_triangular(lower[:m, :m], correlation[kept, j], lower=True) if m else np.zeros(0)
        left = correlation[j, j] - row @ row
        if constant[j]:
            found[j] = []
        elif left <= LEFT:
            weight = solve_triangular(lower[:m, :m], row, lower=True, trans=1)
            found[j] = [k for k, w in zip(kept, weight, strict=True) if abs(w) > FELT]
        else:
            lower[m, :m], lower[m, m] = row, np.sqrt(left)
            kept.append(j)
    return found


def _sentences(found, n, names):
    if n <= len(names) and found:
        return [f"{n} rows cannot tell {len(names)} features apart: their covariance is singular; drop features"]
    said = []
    for j, of in found.items():
        if not of:
            said.append(f"feature {names[j]!r} is constant: its variance is not identified; drop it")
            continue
        others = ", ".join(repr(names[k]) for k in of[:NAMED]) + (f" and {len(of) - NAMED} more" if of[NAMED:] else "")
        how = "a multiple or a copy of" if len(of) == 1 else "a linear combination of"
        said.append(
            f"feature {names[j]!r} is {how} {others}: the covariance is singular and reg_covar decides the "
            "log-likelihood; drop one of them"
        )
    return said[:NAMED] + ([f"{len(said) - NAMED} more features are like that"] if said[NAMED:] else [])
