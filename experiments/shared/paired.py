"""Methods on the same data sets: the divergence of one as a multiple of another's, with its Monte-Carlo error."""

from typing import NamedTuple

import numpy as np

from .cells import Rows


class Ratio(NamedTuple):
    """A geometric mean over data sets, its standard error, and on how many it rests."""

    value: float
    error: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.error:.2f}"


def paired_ratio(rows: Rows, method: str, reference: str = "oracle", column: str = "kl") -> Ratio | None:
    """How many times the reference's a method's `column` is, data set by data set; None where fewer than two have both.

    The standard error is that of the mean logarithm, times the ratio.
    """
    of_method, of_reference = ({_place(r): r for r in rows if r["method"] == m} for m in (method, reference))
    logs = [
        np.log(of_method[place][column] / of_reference[place]["kl"])
        for place in of_method.keys() & of_reference.keys()
        if _positive(of_method[place].get(column)) and _positive(of_reference[place].get("kl"))
    ]
    if len(logs) < 2:
        return None
    ratio = float(np.exp(np.mean(logs)))
    return Ratio(ratio, ratio * float(np.std(logs, ddof=1)) / len(logs) ** 0.5, len(logs))


def _place(row):
    return row["problem"], row["seed"]


def _positive(value):
    return value is not None and value > 0.0
