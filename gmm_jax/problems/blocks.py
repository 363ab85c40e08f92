"""Rows of a file in blocks: .npy, Parquet, or text with commas, semicolons, tabs or blanks; a pipe is copied first.

A file is divided into parts (ranges of rows, row groups, ranges of bytes), which are read one after the other here or
by the workers of a Dask cluster. A file that is cut off or holds no numbers is named, with the place.
"""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..mixture.blocks import BLOCK_NUMBERS, FEWEST_ROWS
from .text_table import open_text

Part = tuple[int, int]  # from, to


@dataclass(frozen=True)
class File:
    """Where a file lies and how it is called: a pipe has a copy, but keeps its name."""

    path: Path
    name: str
    copy: Any = None  # the temporary file, deleted when it is closed

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class FileBlocks:
    """A table on disk. Calling it yields the rows from the first one on, in blocks (n, D)."""

    path: File
    names: tuple[str, ...]  # of the columns; their numbers from 0 where they have none
    parts: Sequence[Part]
    read: Callable[[Part], Iterator[np.ndarray]]
    count: Callable[[Part], int]

    @property
    def n_rows(self) -> int:
        """How many rows it has; a text file is read for that."""
        return sum(map(self.count, self.parts))

    def __call__(self) -> Iterator[Float[np.ndarray, "n D"]]:
        for part in self.parts:
            yield from self.read(part)

    def close(self) -> None:
        """Delete the copy of a pipe; it is deleted with this object too."""
        if self.path.copy is not None:
            self.path.copy.close()


def open_blocks(path, *, columns: Sequence[str] = ()) -> FileBlocks:
    """The chosen columns, by name or by number from 0, of a .npy, Parquet or text file; all by default.

    "-" is standard input. It and other pipes, which can be read only once, are copied to a temporary file first.
    float32 stays float32. Parquet needs pyarrow.

    Raises:
        ValueError: no such column, no table of numbers, or a file that is cut off: here or while it is read.
    """
    file = _file(path)
    # names of all columns; parts; read(part, numbers of columns) -> blocks of a part; count(part) -> its rows
    names, parts, read, count = _format(file)(file)
    chosen = _choose(columns, names, file)
    return FileBlocks(file, tuple(names[j] for j in chosen), parts, lambda part: read(part, chosen), count)


def open_dask(path, *, columns: Sequence[str] = (), n_partitions: int = 64):
    """A Dask array (n, D) of the chosen columns of a file, whose partitions are read by the workers that use them.

    The file must lie at that path for every worker. It is float32 where the file is, else float64. Needs Dask.

    Raises:
        ValueError: as `open_blocks`; a pipe; no Dask; a worker that does not see the file.
    """
    try:
        from dask import array, compute, delayed
    except ImportError:
        raise ValueError("rows on Dask's workers need Dask: pip install 'gmm-jax[cluster]'.") from None
    table = open_blocks(path, columns=columns)
    if table.path.copy is not None:
        raise ValueError(f"Dask's workers cannot read {table.path}: write its rows to a file that all of them see.")
    dtype = np.float32 if next(table()).dtype in (np.float16, np.float32) else np.float64
    groups = [g.tolist() for g in np.array_split(table.parts, min(n_partitions, len(table.parts)))]
    try:
        counts = compute(*[delayed(_count, pure=False)(table.count, group) for group in groups])
    except FileNotFoundError:
        raise ValueError(f"a worker does not see {table.path}: put it where all workers find it at one path.") from None
    read = [delayed(_read, pure=False)(table.read, group, dtype) for group in groups]
    shapes = [(count, len(table.names)) for count in counts]
    arrays = [array.from_delayed(*what, dtype) for what in zip(read, shapes, strict=True) if what[1][0]]
    return array.concatenate(arrays)


def _count(count, parts):
    return sum(count(tuple(part)) for part in parts)


def _read(read, parts, dtype):
    return np.concatenate([block.astype(dtype, copy=False) for part in parts for block in read(tuple(part))])


def _file(path):
    is_stdin = str(path) == "-"
    if not is_stdin:
        seen = Path(path).stat()
        if stat.S_ISDIR(seen.st_mode):
            raise ValueError(f"{path} is a folder: name a file in it.")
        if stat.S_ISREG(seen.st_mode):
            return File(Path(path), str(path))
    copy = NamedTemporaryFile(prefix="gmm-jax-")  # noqa: SIM115 (closed by FileBlocks)
    with sys.stdin.buffer if is_stdin else open(path, "rb") as source:
        shutil.copyfileobj(source, copy)
    copy.flush()
    return File(Path(copy.name), "standard input" if is_stdin else str(path), copy)


def _format(file):
    with open(file, "rb") as content:
        begin = content.read(6)
    suffix = Path(file.name).suffix.lower()
    if begin == b"\x93NUMPY" or suffix == ".npy":
        return _open_npy
    return _open_parquet if begin[:4] == b"PAR1" or suffix == ".parquet" else open_text


def _choose(columns, names, file):
    chosen = []
    for column in columns:
        if names.count(column) > 1:
            raise ValueError(f"{names.count(column)} columns of {file} are named {column!r}: choose by number, from 0.")
        if column in names:
            chosen.append(names.index(column))
        elif column.isdecimal() and int(column) < len(names):
            chosen.append(int(column))
        else:
            near = get_close_matches(column, names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"column {column!r} does not exist in {file}{hint}; it has {', '.join(names)}.")
        if chosen.count(chosen[-1]) > 1:
            raise ValueError(f"column {names[chosen[-1]]!r} of {file} is chosen twice: name it once.")
    return chosen or list(range(len(names)))


def _rows_at_a_time(n_columns):
    return max(FEWEST_ROWS, BLOCK_NUMBERS // n_columns)


# ---- .npy


class _Layout(NamedTuple):
    shape: tuple[int, int]
    dtype: np.dtype
    by_column: bool  # Fortran's order
    offset: int  # of the first number


def _open_npy(file):
    layout = _layout(file)
    n_rows, n_columns = layout.shape
    parts = list(pairwise([*range(0, n_rows, _rows_at_a_time(n_columns)), n_rows]))
    names = [str(j) for j in range(n_columns)]
    return names, parts, lambda *what: _read_npy(file, layout, *what), lambda part: part[1] - part[0]


def _layout(file):
    try:
        table = np.load(file.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file} is no whole .npy file of numbers ({error}): write it again with np.save.") from None
    if not isinstance(table, np.memmap) or table.ndim != 2 or 0 in table.shape:
        shape = getattr(table, "shape", "an archive")
        raise ValueError(f"{file} must hold one table of shape (rows, columns), not empty; it holds {shape}.")
    if table.dtype.kind not in "fiub":
        raise ValueError(f"{file} holds {table.dtype}, not real numbers: write a table of numbers with np.save.")
    return _Layout(table.shape, table.dtype, not table.flags.c_contiguous, table.offset)


def _read_npy(file, layout, part, chosen):
    """Read, not mapped: the pages of a map count as memory of ours, and a file cut off under it ends the process."""
    if part[0] == 0 and _layout(file) != layout:
        raise ValueError(f"{file} has changed since it was opened: its rows must stay as they are while they are read.")
    (n_rows, n_columns), (start, stop) = layout.shape, part
    n = stop - start
    places = [(j * n_rows + start, n) for j in chosen] if layout.by_column else [(start * n_columns, n * n_columns)]
    with open(file, "rb") as content:
        numbers = [_numbers(content, layout, *place) for place in places]
    if sum(part.size for part in numbers) < sum(count for _, count in places):
        raise ValueError(f"{file} is cut off within rows {start} to {stop - 1}: write it again.")
    if layout.by_column:
        yield np.stack(numbers, axis=1)
    else:
        block = numbers[0].reshape(n, n_columns)
        yield block if chosen == list(range(n_columns)) else block[:, chosen]


def _numbers(content, layout, place, count):
    content.seek(layout.offset + place * layout.dtype.itemsize)
    return np.fromfile(content, layout.dtype, count).astype(layout.dtype.newbyteorder("="), copy=False)


# ---- Parquet


def _open_parquet(file):
    if find_spec("pyarrow") is None:
        raise ValueError(f"{file} is a Parquet file, which needs pyarrow: pip install 'gmm-jax[parquet]'.")
    with _parquet(file) as content:
        names = list(content.schema_arrow.names)
        sizes = [content.metadata.row_group(g).num_rows for g in range(content.num_row_groups)]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{file} must have columns of different names; it has {', '.join(names) or 'none'}.")
    parts = [(g, g + 1) for g in range(len(sizes))]
    return names, parts, lambda *what: _read_parquet(file, names, *what), lambda part: sizes[part[0]]


def _parquet(file):
    from pyarrow import ArrowInvalid, parquet

    try:
        return parquet.ParquetFile(file.path)
    except ArrowInvalid as error:
        raise ValueError(f"{file} is no whole Parquet file ({error}): write it again.") from None


def _read_parquet(file, names, part, chosen):
    from pyarrow import ArrowException

    names = [names[j] for j in chosen]
    with _parquet(file) as content:
        missing = [name for name in names if name not in content.schema_arrow.names]
        if missing or part[0] >= content.num_row_groups:
            gone = f"column {missing[0]!r} is gone" if missing else "it has fewer rows"
            raise ValueError(f"{file} has changed since it was opened: {gone}.")
        try:
            for batch in content.iter_batches(_rows_at_a_time(len(names)), row_groups=[part[0]], columns=names):
                yield np.stack([_column(batch.column(name), file, name) for name in names], axis=1)
        except (ArrowException, OSError) as error:
            raise ValueError(f"{file} is damaged ({error}): write it again.") from None


def _column(values, file, name):
    """A missing value becomes NaN, which whoever checks the rows then names."""
    from pyarrow import float64, types

    of = values.type
    if not (types.is_integer(of) or types.is_floating(of) or types.is_boolean(of) or types.is_decimal(of)):
        raise ValueError(f"{file}, column {name!r} holds {of}, not numbers: choose other columns.")
    plain = types.is_floating(of) or (types.is_integer(of) and not values.null_count)
    return (values if plain else values.cast(float64())).to_numpy(zero_copy_only=False)
