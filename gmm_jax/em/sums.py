"""The sum that EM needs, taken over blocks of rows that need not fit into memory.

Blocks are standardised and cut anew to one number of rows, so that one compiled program serves all; the next one is
loaded while this one is summed, and sums of blocks are added in float64 whatever the data. m_step sees no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from ..mixture import GMM, MixtureSpec, Moments, Precision, Scaling, e_step
from .survey import Blocks, Survey, ahead, rows_of

BLOCK_NUMBERS = 1 << 20  # numbers in a block: a call costs little beside it, and a few of them fit into any memory
FEWEST_ROWS = 4096


class Stream(NamedTuple):
    """Rows that have been surveyed, in standardised units."""

    blocks: Blocks
    survey: Survey
    scaling: Scaling
    block_rows: int

    def moments(self, gmm: GMM, whitener: Float[Array, "..."], sums: Precision) -> list[Moments]:
        """The sums of one pass, about gmm.means, in float64 NumPy: one part."""
        total = last = None
        for z, weight, n_rows in ahead(cut(self._rows(), self.scaling, self.block_rows, gmm.means.dtype)):
            plain = n_rows == self.block_rows and not self.survey.weighted
            part = block_moments(gmm, whitener, z, None if plain else weight, sums=sums)
            total, last = _add(total, last), part  # the one before is added while this one is computed
        return [_add(total, last)]

    def _rows(self):
        """The rows that the survey saw, or an error where there are more or fewer."""
        n_seen, n_all = 0, self.survey.columns.n_rows
        for x, weight in rows_of(self.blocks, like=self.survey):
            n_seen += len(x)
            if n_seen > n_all:
                break
            yield x, weight
        if n_seen != n_all:
            raise ValueError(
                f"{self.survey.name} yields {n_seen} rows or more in this pass where the first pass had {n_all}: it "
                "must yield the same rows at every call, and a file must not change meanwhile."
            )


def open_stream(blocks: Blocks, seen: Survey, spec: MixtureSpec, block_rows: int | None = None) -> Stream:
    """Surveyed rows, to be cut into blocks of at most block_rows, as equal as can be."""
    most = block_rows or max(FEWEST_ROWS, BLOCK_NUMBERS // seen.columns.mean.size)
    n_blocks = -(-seen.columns.n_rows // most)
    return Stream(blocks, seen, seen.scaling(spec), -(-seen.columns.n_rows // n_blocks))


def cut(rows: Iterable, scaling: Scaling, block_rows: int, dtype) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """(z, weights, number of rows) of blocks of block_rows standardised rows each, whatever the blocks that come.

    The last one is filled up with rows of weight zero. Arrays are new each time: the last ones may still be read from.
    It may run in another thread, so the dtype is told: JAX's setting of it belongs to a thread.
    """

    def empty():
        return np.zeros((block_rows, scaling.centre.size), dtype), np.zeros(block_rows, dtype), 0

    z, counts, n = empty()
    for x, weight in rows:
        taken = 0
        while taken < len(x):
            part = slice(taken, taken + block_rows - n)
            size = len(x[part])
            scaling.rows_inward(x[part], z[n : n + size])
            counts[n : n + size] = 1.0 if weight is None else weight[part]
            taken, n = taken + size, n + size
            if n == block_rows:
                yield z, counts, n
                z, counts, n = empty()
    if n:
        yield z, counts, n


@partial(jax.jit, static_argnames="sums")
def block_moments(gmm: GMM, whitener, z: Float[Array, "N D"], weight: Float[Array, "N"] | None, sums: Precision) -> Moments:
    """The sums over one block of rows."""
    return e_step(gmm, z, weight, whitener=whitener, sums=sums)


def _add(total, part):
    """Sums in float64; None counts nothing."""
    if part is None:
        return total
    part = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), part)
    return part if total is None else jax.tree.map(np.add, total, part)
