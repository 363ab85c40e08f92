"""Methods on the same data sets: the divergence of one as a multiple of another's, with its Monte-Carlo error."""

from collections.abc import Sequence
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


def paired_ratio(
    rows: Rows, method: str, reference: str = "oracle", column: str = "kl", place: Sequence[str] = ("problem", "seed")
) -> Ratio | None:
    """How many times the reference's kl a method's `column` is, on equal data sets; None where less than two have both.

    The standard error is that of the mean logarithm, times the ratio. Rows of one data set agree in what `place` names.
    """
    of_method, of_reference = (
        {tuple(row[name] for name in place): row for row in rows if row["method"] == m} for m in (method, reference)
    )
    logs = [
        np.log(of_method[at][column] / of_reference[at]["kl"])
        for at in of_method.keys() & of_reference.keys()
        if _positive(of_method[at].get(column)) and _positive(of_reference[at].get("kl"))
    ]
    if len(logs) < 2:
        return None
    ratio = float(np.exp(np.mean(logs)))
    return Ratio(ratio, ratio * float(np.std(logs, ddof=1)) / len(logs) ** 0.5, len(logs))


def _positive(value):
    return value is not None and value > 0.0
