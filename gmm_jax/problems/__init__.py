"""WHERE TRUTH AND DATA COME FROM: random truths, named problems with a known truth, and real data sets."""

from . import datasets
from .generators import (
    fixed_counts,
    random_covariance,
    random_gaussian,
    random_mixture,
    separated_mixture,
    separation_for_error,
)
from .suite import Problem, load, names

__all__ = [
    "Problem",
    "datasets",
    "fixed_counts",
    "load",
    "names",
    "random_covariance",
    "random_gaussian",
    "random_mixture",
    "separated_mixture",
    "separation_for_error",
]
