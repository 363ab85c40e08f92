"""One pass over blocks of rows before anything is fitted: are they what they should be, and where do they lie?

Means and scatters are merged from block to block: with δ = mean_b − mean_a and n = n_a + n_b,
mean = mean_a + δ n_b/n, scatter = scatter_a + scatter_b + δ² n_a n_b/n (Chan, Golub & LeVeque 1983, Am. Stat. 37).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..mixture import MixtureSpec, Scaling, check_sample_weight
from ..mixture.checks import real_array
from ..mixture.scaling import scaling_of

Block = np.ndarray | tuple[np.ndarray, np.ndarray]
Blocks = Callable[[], Iterable[Block]]  # the same rows at every call: (N_b, D), or with a weight for each row


class Columns(NamedTuple):
    """Of some rows, each column by itself, in float64."""

    n_rows: int
    n_samples: float  # total weight
    origin: Float[np.ndarray, "D"]  # the first row of all: far from zero, differences from it keep their digits
    shift: Float[np.ndarray, "D"]  # mean − origin
    scatter: Float[np.ndarray, "D"]  # Σ_n w_n (x_n − mean)²
    low: Float[np.ndarray, "D"]
    high: Float[np.ndarray, "D"]

    @property
    def mean(self):
        return self.origin + self.shift


class Survey(NamedTuple):
    """What one pass has seen; rows of weight zero are not there."""

    name: str  # where the rows come from, for messages: the file's path where there is one
    dtype: np.dtype
    weighted: bool
    columns: Columns
    sample: Float[np.ndarray, "M D"]  # drawn uniformly, in their order
    sample_weight: Float[np.ndarray, "M"] | None
    checksum: tuple[int, int]  # of the rows and of the weights, however they were cut

    def scaling(self, spec: MixtureSpec) -> Scaling:
        """Centre and scale as `standardise` finds them in an array."""
        mean, low, high = self.columns.mean, self.columns.low, self.columns.high
        largest = np.maximum(np.abs(low), np.abs(high))
        constant = np.maximum(high - mean, mean - low) <= 4.0 * np.finfo(self.dtype).eps * largest
        deviation = np.sqrt(self.columns.scatter / self.columns.n_samples)
        return scaling_of(mean, deviation, constant, spec, self.dtype)


def survey(blocks: Blocks, rng: np.random.Generator, n_sample: int) -> Survey:
    """One pass: every value is checked, and n_sample rows are drawn (all, where there are no more).

    Raises:
        ValueError: the first block that is no table of finite numbers like the first one; it names row and column.
    """
    seen, drawn, of_rows, of_weights = None, None, 0, 0
    for x, weight in ahead(rows_of(blocks)):
        drawn = _Drawn.nothing(x, weight) if drawn is None else drawn
        drawn.add(x, weight, rng.random(len(x)), n_sample)
        here = columns_of(x, weight, x[0].astype(float) if seen is None else seen.origin)
        seen = here if seen is None else merge(seen, here)
        of_rows = zlib.crc32(np.ascontiguousarray(x), of_rows)
        of_weights = 0 if weight is None else zlib.crc32(weight, of_weights)
    if seen is None:
        raise ValueError(f"{_name(blocks)} yields no rows of positive weight: it needs one for each sample.")
    order = np.argsort(drawn.place)
    weight = None if drawn.weight is None else drawn.weight[order]
    rows = drawn.rows[order]
    return Survey(_name(blocks), rows.dtype, weight is not None, seen, rows, weight, (of_rows, of_weights))


def columns_of(x: Float[np.ndarray, "N D"], weight: Float[np.ndarray, "N"] | None, origin) -> Columns:
    """Of one block."""
    columns = x.T.astype(np.float64, order="C")  # NumPy is much faster along them than along rows of few numbers
    low, high = np.min(columns, axis=1), np.max(columns, axis=1)
    n_samples = float(len(x)) if weight is None else float(np.sum(weight))
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused by the scaling
        d = columns - origin[:, None]
        shift = (np.sum(d, axis=1) if weight is None else d @ weight) / n_samples
        d -= shift[:, None]
        scatter = np.einsum("dn,dn->d", d, d) if weight is None else (d * d) @ weight
    return Columns(len(x), n_samples, origin, shift, scatter, low, high)


def merge(a: Columns, b: Columns) -> Columns:
    """Of the rows of both, which have one origin."""
    n_samples, gap = a.n_samples + b.n_samples, b.shift - a.shift
    with np.errstate(over="ignore", invalid="ignore"):
        return Columns(
            a.n_rows + b.n_rows,
            n_samples,
            a.origin,
            a.shift + gap * (b.n_samples / n_samples),
            a.scatter + b.scatter + gap * gap * (a.n_samples * (b.n_samples / n_samples)),
            np.minimum(a.low, b.low),
            np.maximum(a.high, b.high),
        )


def rows_of(blocks: Blocks, like: Survey | None = None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """(rows, their weights or None) of each block; rows of weight zero and empty blocks are left out.

    Every block must have the columns and the dtype of the first one, or of what a survey saw, and weights where it has.
    Without a survey every value is checked too.
    """
    name = _name(blocks)
    if not callable(blocks):
        raise ValueError(
            f"blocks must be a function without arguments that yields blocks of rows; got {type(blocks).__name__}: "
            "pass lambda: [x] for an array, problems.open_blocks(path) for a file."
        )
    first = None if like is None else (like.columns.mean.size, like.dtype, like.weighted)
    for i, block in enumerate(blocks()):
        place = f"{name}, block {i}"
        x, weight = block if isinstance(block, tuple) else (block, None)
        x = _check_rows(x, place, values=like is None)
        kind = (x.shape[1], x.dtype, weight is not None)
        first = first or kind
        if kind != first:
            raise ValueError(f"{place} has {_words(kind)}, but what came before has {_words(first)}.")
        if weight is not None:
            weight = _check_weight(weight, len(x), place)
            x, weight = x[weight > 0.0], weight[weight > 0.0]
        if len(x):
            yield x, weight


def ahead(items: Iterable) -> Iterator:
    """The same items, the next two made in a thread while the caller works on this one."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="blocks") as thread:
        coming = deque(thread.submit(next, source, end) for _ in range(2))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, source, end))
            yield item


class _Drawn:
    """Every row draws a number, and the rows with the smallest are kept: a uniform sample, however many come."""

    def __init__(self, rows, weight):
        self.rows, self.weight = rows, weight
        self.place: Int[np.ndarray, "M"] = np.zeros(0, int)
        self.number = np.zeros(0)
        self.n_rows = 0

    @classmethod
    def nothing(cls, x, weight):
        return cls(x[:0], None if weight is None else weight[:0])

    def add(self, x, weight, number, n_most):
        full = self.number.size == n_most
        new = np.flatnonzero(number < np.max(self.number)) if full else np.arange(len(x))
        self.rows = np.concatenate([self.rows, x[new]])
        self.weight = None if weight is None else np.concatenate([self.weight, weight[new]])
        self.place = np.concatenate([self.place, self.n_rows + new])
        self.number = np.concatenate([self.number, number[new]])
        self.n_rows += len(x)
        if self.number.size > n_most:
            kept = np.argpartition(self.number, n_most)[:n_most]
            self.rows, self.place, self.number = self.rows[kept], self.place[kept], self.number[kept]
            self.weight = None if weight is None else self.weight[kept]


def _check_rows(x, place, *, values):
    x = real_array(x, place)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{place} must be two-dimensional (rows, D); got shape {x.shape}.")
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float32 if x.dtype == np.float16 else np.float64)
    if values and not np.isfinite(x).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise ValueError(
            f"{place} must be finite; the first value that is not is {x[row, column]} at row {row}, column {column}: "
            "drop or impute that row."
        )
    return x


def _check_weight(weight, n_rows, place):
    if np.shape(weight) == (n_rows,) and not np.any(weight):
        return np.zeros(n_rows)  # a block may be all zero, where a data set may not
    try:
        return check_sample_weight(weight, n_rows)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _words(kind):
    n_features, dtype, weighted = kind
    return f"{n_features} columns of {dtype}, {'with' if weighted else 'without'} weights"


def _name(blocks):
    return str(getattr(blocks, "path", "blocks()"))
