"""Rows of a file, block by block: .npy, Parquet, or text with commas, semicolons, tabs or blanks.

What comes back is a function without arguments that reads the file from its first row on at every call, as
`em.fit_em_stream` wants it. A file that is cut off or holds no numbers is named, with the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .text_table import open_text

BLOCK_NUMBERS = 1 << 20  # numbers read at a time
FEWEST_ROWS = 4096


@dataclass(frozen=True)
class FileBlocks:
    """A table on disk. Calling it yields its blocks, (rows, D)."""

    path: Path
    names: tuple[str, ...]  # of the columns; their numbers from 0 where they have none
    read: Callable[[], Iterator[np.ndarray]]

    def __call__(self) -> Iterator[Float[np.ndarray, "N D"]]:
        return self.read()


def open_blocks(path, *, columns: Sequence[str] = ()) -> FileBlocks:
    """The chosen columns, by name or by number from 0, of a .npy, .parquet or text file; all by default.

    float32 stays float32. Parquet needs pyarrow.

    Raises:
        ValueError: no such column, no table of numbers, or a file that is cut off: here or while it is read.
    """
    path = Path(path)
    opener = {".npy": _open_npy, ".parquet": _open_parquet}.get(path.suffix.lower(), open_text)
    names, read = opener(path)
    chosen = _choose(columns, names, path)
    return FileBlocks(path, tuple(names[j] for j in chosen), lambda: read(chosen))


def _choose(columns, names, path):
    chosen = []
    for column in columns:
        if column in names:
            chosen.append(names.index(column))
        elif column.isdigit() and int(column) < len(names):
            chosen.append(int(column))
        else:
            near = get_close_matches(column, names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"column {column!r} does not exist in {path}{hint}; it has {', '.join(names)}.")
    return chosen or list(range(len(names)))


def _rows_at_a_time(n_columns):
    return max(FEWEST_ROWS, BLOCK_NUMBERS // n_columns)


# ---- .npy


class _Layout(NamedTuple):
    shape: tuple[int, int]
    dtype: np.dtype
    by_column: bool  # Fortran's order
    offset: int  # of the first number


def _open_npy(path):
    layout = _layout(path)
    return [str(j) for j in range(layout.shape[1])], lambda chosen: _read_npy(path, layout, chosen)


def _layout(path):
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no whole .npy file of numbers ({error}): write it again with np.save.") from None
    if not isinstance(table, np.memmap) or table.ndim != 2 or 0 in table.shape:
        shape = getattr(table, "shape", "an archive")
        raise ValueError(f"{path} must hold one table of shape (rows, columns), not empty; it holds {shape}.")
    return _Layout(table.shape, table.dtype, not table.flags.c_contiguous, table.offset)


def _read_npy(path, layout, chosen):
    """Read, not mapped: the pages of a map count as memory of ours, and a file cut off under it ends the process."""
    if _layout(path) != layout:
        raise ValueError(f"{path} has changed since it was opened: its rows must stay as they are while they are read.")
    (n_rows, n_columns), size = layout.shape, _rows_at_a_time(layout.shape[1])
    with open(path, "rb") as file:
        for start in range(0, n_rows, size):
            count = min(size, n_rows - start)
            if layout.by_column:
                places = [(j * n_rows + start, count) for j in range(n_columns)]
            else:
                places = [(start * n_columns, count * n_columns)]
            parts = [_numbers(file, layout, *place) for place in places]
            if sum(part.size for part in parts) < count * n_columns:
                raise ValueError(f"{path} is cut off within rows {start} to {start + count - 1}: write it again.")
            block = np.stack(parts, axis=1) if layout.by_column else parts[0].reshape(count, n_columns)
            yield block if chosen == list(range(n_columns)) else block[:, chosen]


def _numbers(file, layout, place, count):
    file.seek(layout.offset + place * layout.dtype.itemsize)
    return np.fromfile(file, layout.dtype, count)


# ---- Parquet


def _open_parquet(path):
    if find_spec("pyarrow") is None:
        raise ValueError(f"{path} is a Parquet file, which needs pyarrow: pip install pyarrow.")
    with _parquet(path) as file:
        names = list(file.schema_arrow.names)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path} must have columns of different names; it has {', '.join(names) or 'none'}.")
    return names, lambda chosen: _read_parquet(path, [names[j] for j in chosen])


def _parquet(path):
    from pyarrow import ArrowInvalid, parquet

    try:
        return parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise ValueError(f"{path} is no whole Parquet file ({error}): write it again.") from None


def _read_parquet(path, names):
    with _parquet(path) as file:
        missing = [name for name in names if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"{path} has changed since it was opened: column {missing[0]!r} is gone.")
        for batch in _batches(file, path, names):
            yield np.stack([_column(batch.column(name), path, name) for name in names], axis=1)


def _batches(file, path, names):
    from pyarrow import ArrowException

    try:
        yield from file.iter_batches(_rows_at_a_time(len(names)), columns=names)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): write it again.") from None


def _column(values, path, name):
    """A missing value becomes NaN, which whoever checks the rows then names."""
    from pyarrow import float64, types

    of = values.type
    if not (types.is_integer(of) or types.is_floating(of) or types.is_boolean(of) or types.is_decimal(of)):
        raise ValueError(f"{path}, column {name!r} holds {of}, not numbers: choose other columns.")
    plain = types.is_floating(of) or (types.is_integer(of) and not values.null_count)
    return (values if plain else values.cast(float64())).to_numpy(zero_copy_only=False)
