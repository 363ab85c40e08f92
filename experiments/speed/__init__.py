"""Speed beside other programs: `measure` has ratios, floors and T99, `peers` the programs, `book` the rows.

`iterations`, `searches`, `sure` and `programs` are the parts of experiments/speed_em.py, `verdict` its answer.
"""

from .measure import WITHIN, Rates, Ratio, Trials, floor, interleave, measure_rates, ratio, seconds_of, t99, t99_ratio

__all__ = [
    "WITHIN",
    "Rates",
    "Ratio",
    "Trials",
    "floor",
    "interleave",
    "measure_rates",
    "ratio",
    "seconds_of",
    "t99",
    "t99_ratio",
]
