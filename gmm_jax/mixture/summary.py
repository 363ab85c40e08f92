"""A summary of data that come in parts: how many rows, where they lie and how they spread. Summaries of parts merge.

With δ = mean_b − mean_a and n = n_a + n_b, mean = mean_a + δ n_b/n and
scatter = scatter_a + scatter_b + δ δᵀ n_a n_b/n (Chan, Golub & LeVeque 1983, Am. Stat. 37).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .scaling import Scaling, scaling_of
from .spec import MixtureSpec

BLOCK = 1 << 16  # rows that are widened to float64 at a time


class DataSummary(NamedTuple):
    """Of some rows, in float64; rows of weight zero are not there."""

    n_rows: int
    n_samples: float  # total weight
    origin: Float[np.ndarray, "D"]  # a row: far from zero, differences from it keep their digits
    shift: Float[np.ndarray, "D"]  # mean − origin
    scatter: Float[np.ndarray, "D D"]  # Σ_n w_n (x_n − mean)(x_n − mean)ᵀ
    low: Float[np.ndarray, "D"]
    high: Float[np.ndarray, "D"]
    label_mass: Float[np.ndarray, "K"]  # total weight of the rows that are labelled k
    label_first: Float[np.ndarray, "K D"]  # Σ of their w_n (x_n − origin)

    @property
    def mean(self) -> Float[np.ndarray, "D"]:
        return self.origin + self.shift

    def scaling(self, spec: MixtureSpec, dtype: np.dtype) -> Scaling:
        """Centre and scale as `standardise` finds them in an array."""
        mean, low, high = self.mean, self.low, self.high
        largest = np.maximum(np.abs(low), np.abs(high))
        constant = np.maximum(high - mean, mean - low) <= 4.0 * np.finfo(dtype).eps * largest
        deviation = np.sqrt(np.diag(self.scatter) / self.n_samples)
        return scaling_of(mean, deviation, constant, spec, dtype)

    def covariance(self, scaling: Scaling) -> Float[np.ndarray, "D D"]:
        """Of the standardised rows."""
        inverse = np.where(np.isin(np.arange(scaling.scale.size), scaling.constant), 0.0, 1.0 / scaling.scale)
        return self.scatter / self.n_samples * np.outer(inverse, inverse)

    def labelled_means(self, scaling: Scaling) -> Float[np.ndarray, "K D"] | None:
        """Mean of each component's labelled rows, standardised, NaN without any; None where no row has a label."""
        if not self.label_mass.any():
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            means = self.label_first / self.label_mass[:, None]
        return (self.origin - scaling.centre + means) / scaling.scale

    @property
    def labels(self) -> Int[np.ndarray, "L"] | None:
        """The components that labels name, None without labels."""
        return np.flatnonzero(self.label_mass) if self.label_mass.any() else None

    @classmethod
    def of_nothing(cls, n_features: int, n_components: int) -> "DataSummary":
        """Of no rows: zeros."""
        d, k = np.zeros(n_features), np.zeros(n_components)
        return cls(0, 0.0, d, d, np.outer(d, d), d, d, k, np.outer(k, d))


def summarise(x, weight, labels, n_components: int) -> "DataSummary | None":
    """Of the rows of one part; None where none has a positive weight."""
    found = None
    for start in range(0, len(x), BLOCK):
        rows = slice(start, start + BLOCK)
        of_rows = (None if part is None else np.asarray(part[rows]) for part in (weight, labels))
        found = merge(found, _of_block(np.asarray(x[rows]), *of_rows, n_components))
    return found


def merge(a: DataSummary | None, b: DataSummary | None) -> "DataSummary | None":
    """Of the rows of both parts, of which one may be None, or of no rows."""
    if not (a and a.n_rows and b and b.n_rows):
        return a if a and a.n_rows else b
    n_samples, apart = a.n_samples + b.n_samples, b.origin - a.origin
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # what overflows is refused by the scaling
        gap = apart + (b.shift - a.shift)
        return DataSummary(
            a.n_rows + b.n_rows,
            n_samples,
            a.origin,
            a.shift + gap * (b.n_samples / n_samples),
            a.scatter + b.scatter + np.outer(gap, gap) * (a.n_samples * (b.n_samples / n_samples)),
            np.minimum(a.low, b.low),
            np.maximum(a.high, b.high),
            a.label_mass + b.label_mass,
            a.label_first + b.label_first + b.label_mass[:, None] * apart,
        )


def covariance_of(z: Float[np.ndarray, "N D"], weight: Float[np.ndarray, "N"] | None) -> Float[np.ndarray, "D D"]:
    """Covariance of z, (D, D), whose mean is 0: of two features in the rows that have both, where some are NaN."""
    seen = ~np.isnan(z)
    filled = np.where(seen, z, 0.0).astype(float)
    weight = np.ones((len(z), 1)) if weight is None else np.asarray(weight, float)[:, None]
    total = np.sum(weight) if seen.all() else np.maximum(seen.T @ (weight * seen), np.finfo(float).tiny)
    return filled.T @ (weight * filled) / total


def _of_block(x, weight, labels, n_components):
    if weight is not None:
        used = weight > 0.0
        x, weight, labels = x[used], weight[used].astype(float), None if labels is None else labels[used]
    if not len(x):
        return None
    columns = x.T.astype(np.float64, order="C")  # NumPy is much faster along them than along rows of few numbers
    low, high, origin = np.min(columns, axis=1), np.max(columns, axis=1), columns[:, 0].copy()
    n_samples = float(len(x)) if weight is None else float(np.sum(weight))
    of_label = np.zeros((n_components, len(x))) if labels is not None else np.zeros((n_components, 0))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        columns -= origin[:, None]
        if labels is not None:
            of_label = (labels == np.arange(n_components)[:, None]) * (1.0 if weight is None else weight)
        label_first = of_label @ columns.T if labels is not None else np.zeros((n_components, len(low)))
        shift = (np.sum(columns, axis=1) if weight is None else columns @ weight) / n_samples
        columns -= shift[:, None]
        scatter = (columns if weight is None else columns * weight) @ columns.T
    return DataSummary(len(x), n_samples, origin, shift, scatter, low, high, of_label.sum(axis=1), label_first)


class Sample:
    """Every row draws a number, and the rows with the smallest are kept: a uniform sample, however many rows come.

    The n-th row draws the n-th number, so that the sample does not depend on how rows are cut into parts.
    """

    def __init__(self, seed, n_most: int):
        self._rng, self._n_most, self._n_seen = np.random.default_rng(seed), n_most, 0
        self._columns, self._number, self._place = None, np.zeros(0), np.zeros(0, int)

    def add(self, *columns: np.ndarray | None) -> None:
        """Rows of arrays of one length, such as x and its weights; a column may be None throughout."""
        n_rows = len(columns[0])
        number = self._rng.random(n_rows)
        full = self._number.size == self._n_most
        new = np.flatnonzero(number < np.max(self._number)) if full else np.arange(n_rows)
        kept = [None if c is None else c[:0] for c in columns] if self._columns is None else self._columns
        joined = [None if c is None else np.concatenate([k, c[new]]) for k, c in zip(kept, columns, strict=True)]
        self._number = np.concatenate([self._number, number[new]])
        self._place = np.concatenate([self._place, self._n_seen + new])
        self._n_seen += n_rows
        if self._number.size > self._n_most:
            smallest = np.argpartition(self._number, self._n_most)[: self._n_most]
            self._number, self._place = self._number[smallest], self._place[smallest]
            joined = [None if c is None else c[smallest] for c in joined]
        self._columns = joined

    def rows(self, n: int | None = None) -> list[np.ndarray | None]:
        """The n rows with the smallest numbers, in the order in which they came."""
        chosen = np.argsort(self._number, kind="stable")[:n]
        chosen = chosen[np.argsort(self._place[chosen])]
        return [None if column is None else column[chosen] for column in self._columns]


def sampled_rows(seed, n_rows: int, n: int) -> Int[np.ndarray, "n"]:
    """Which of n_rows rows a `Sample` of n of them keeps, ascending."""
    if n_rows <= n:
        return np.arange(n_rows)
    sample = Sample(seed, n)
    for start in range(0, n_rows, 1 << 20):
        sample.add(np.arange(start, min(start + (1 << 20), n_rows)))
    return sample.rows()[0]
