"""Rows in the order of a k-d tree, so that each block of them is a leaf: rows that are near each other.

Sums from statistics about the means of leaves lose fewer digits (see `moments`). The tree halves rows at the median of
their widest feature.

Reference:
    Bentley (1975), Multidimensional binary search trees used for associative searching, Comm. ACM 18.
"""

import numpy as np
from jaxtyping import Float, Int

from .moments import BLOCK_ROWS, even_rows

MOST_LEAVES = 64  # more cost more time than they save digits
LOOKED_AT = 256  # rows of a branch, from which its widest feature is judged


def in_leaves(z: Float[np.ndarray, "N D"], *others: np.ndarray | None, n_filled: int | None = None) -> list:
    """The rows z, and the same rows of other arrays, in the order of `leaf_order`."""
    order = leaf_order(z, n_filled)
    return [None if rows is None else rows[order] for rows in (z, *others)]


def leaf_order(z: Float[np.ndarray, "N D"], n_filled: int | None = None) -> Int[np.ndarray, "N"]:
    """The order of rows in which the blocks that sums are taken over are leaves.

    n_filled: how many rows there will be when others have been added at the end.
    """
    n_samples = len(z)
    order, size = np.arange(n_samples), even_rows(n_filled or n_samples, BLOCK_ROWS)
    size *= max(1, -(-n_samples // (size * MOST_LEAVES)))
    branches = [(0, n_samples)]
    while branches:
        begin, end = branches.pop()
        n_leaves = -(-(end - begin) // size)
        if n_leaves < 2:
            continue
        rows = order[begin:end]
        some = z[rows[:: max(1, rows.size // LOOKED_AT)]]
        half = size * (n_leaves // 2)
        order[begin:end] = rows[np.argpartition(z[rows, np.argmax(np.var(some, axis=0))], half)]
        branches += [(begin, begin + half), (begin + half, end)]
    return order
