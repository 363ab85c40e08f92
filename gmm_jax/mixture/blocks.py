"""Rows that come block by block: checked as they come, and cut anew into standardised blocks of one size.

One size, so that one compiled program serves all blocks, whatever the blocks that come.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from .checks import first_of, float_array
from .scaling import Scaling, check_sample_weight

Block = np.ndarray | tuple[np.ndarray, np.ndarray]
Blocks = Callable[[], Iterable[Block]]  # the same rows at every call: (N_b, D), or with a weight for each row

BLOCK_NUMBERS = 1 << 20  # numbers in a block: a call costs little beside it, and a few of them fit into any memory
FEWEST_ROWS = 4096


class Kind(NamedTuple):
    """What every block of a stream must have in common."""

    n_features: int
    dtype: np.dtype
    weighted: bool

    def __str__(self):
        return f"{self.n_features} columns of {self.dtype}, {'with' if self.weighted else 'without'} weights"


def read_blocks(blocks: Blocks, like: Kind | None = None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """(rows, their weights or None) of each block; rows of weight zero and empty blocks are left out.

    Every block must have the columns and the dtype of the first one, or of `like`, and weights where it has. Without
    `like` every value is checked too.
    """
    first = like
    for i, block in enumerate(blocks()):
        place = f"{name_of(blocks)}, block {i}"
        x, weight = block if isinstance(block, tuple) else (block, None)
        x = check_rows(x, place, values=like is None)
        kind = Kind(x.shape[1], x.dtype, weight is not None)
        first = first or kind
        if kind != first:
            raise ValueError(f"{place} has {kind}, but what came before has {first}.")
        if weight is not None:
            weight = check_part_weight(weight, len(x), place)
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


def rows_in_block(n_rows: int, n_features: int, most: int | None = None) -> int:
    """So many that blocks are as equal as can be, and none has more than `most`."""
    most = most or max(FEWEST_ROWS, BLOCK_NUMBERS // n_features)
    return -(-n_rows // -(-n_rows // most))


def cut(rows: Iterable, scaling: Scaling, block_rows: int, dtype) -> Iterator[tuple]:
    """(z, weights, labels, whether all weights are 1) of blocks of block_rows standardised rows each.

    `rows` yields (x, weights or None, labels or None). The last block is filled up with rows of weight zero. Arrays are
    new each time: the last ones may still be read from. It may run in another thread, so the dtype is an argument:
    JAX's setting of it belongs to a thread.
    """

    def empty(labels):
        labels = None if labels is None else np.full(block_rows, -1, np.int32)
        return np.zeros((block_rows, scaling.centre.size), dtype), np.zeros(block_rows, dtype), labels, 0

    z = None
    for x, weight, of_rows in rows:
        taken = 0
        while taken < len(x):
            if z is None:
                z, counts, labels, n = empty(of_rows)
            part = slice(taken, taken + block_rows - n)
            size = len(x[part])
            scaling.rows_inward(x[part], z[n : n + size])
            counts[n : n + size] = 1.0 if weight is None else weight[part]
            if labels is not None:
                labels[n : n + size] = of_rows[part]
            taken, n = taken + size, n + size
            if n == block_rows:
                yield z, counts, labels, weight is None
                z = None
    if z is not None:
        yield z, counts, labels, False


def check_rows(x, place: str, *, values: bool = True) -> np.ndarray:
    """Part of a data set as a (rows, D) float array, or a ValueError that names row and column."""
    x = float_array(x, place)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{place} must be two-dimensional (rows, D); got shape {x.shape}.")
    if values and not np.isfinite(x).all():
        row, column = first_of(~np.isfinite(x))
        raise ValueError(
            f"{place} must be finite; the first value that is not is {x[row, column]} at row {row}, column {column}: "
            "drop or impute that row."
        )
    return x


def check_part_weight(weight, n_rows: int, place: str) -> np.ndarray:
    """The weights of part of a data set, which may all be zero, where those of a data set may not."""
    if np.shape(weight) == (n_rows,) and not np.any(weight):
        return np.zeros(n_rows)
    try:
        return check_sample_weight(weight, n_rows)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def name_of(blocks: Blocks) -> str:
    """Where the rows come from, for messages: the file's path where there is one."""
    return str(getattr(blocks, "path", "blocks()"))
