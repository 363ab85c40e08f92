"""Rows of a file in blocks: .npy, .npz, Parquet, workbooks, or text as spreadsheets and laboratories write it.

A pipe, and what is packed, is copied first. The chosen columns are read; their names, and all that stands in the other
columns, are known too.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .formats import Content, File, Part, first_bytes, open_file, open_npy, open_parquet
from .text_layout import TextFormat
from .text_table import open_text

SEEN = TextFormat()  # all is seen from the file


@dataclass(frozen=True)
class FileBlocks:
    """A table on disk. Calling it yields the rows from the first one on, in blocks (n, D)."""

    path: File
    names: tuple[str, ...]  # of the columns; their numbers from 0 where they have none
    parts: Sequence[Part]
    read: Callable[[Part], Iterator[np.ndarray]]
    count: Callable[[Part], int]
    content: Content  # with all columns

    @property
    def n_rows(self) -> int:
        """How many rows it has; a text file is read for that."""
        return sum(map(self.count, self.parts))

    @property
    def notes(self) -> list[str]:
        """What was unclear in the file, and how it was understood, in sentences without a full stop."""
        return [] if self.content.layout is None else list(self.content.layout.notes)

    def __call__(self) -> Iterator[Float[np.ndarray, "n D"]]:
        for part in self.parts:
            yield from self.read(part)

    def records(self) -> Iterable[Sequence]:
        """The rows as they stand in the file, with all columns."""
        for part in self.parts:
            yield from self.content.records(part)

    def close(self) -> None:
        """Delete the copy of a pipe; it is deleted with this object too."""
        if self.path.copy is not None:
            self.path.copy.close()


def open_blocks(
    path, *, columns: Sequence[str] = (), drop: Sequence[str] = (), missing: str | None = None, text: TextFormat = SEEN
) -> FileBlocks:
    """The chosen columns of a file; all by default.

    "-" is standard input. It and other pipes, which can be read only once, are copied to a temporary file first, and so
    is what is packed: .csv.gz, .npz, .xlsx. float32 stays float32. Parquet needs pyarrow, .xlsx pandas and openpyxl.

    Args:
        columns: by name, by number from 0, or several as "a,b" and "1-3".
        drop: columns to be left out, named alike.
        missing: "marginalise" makes NaN of missing values in text; else they are an error.
        text: what is known of a text file beforehand; all else is seen from its first lines.

    Raises:
        ValueError: no such column, no table of numbers, or a file that is cut off: here or while it is read.
    """
    file = open_file(path)
    content = _content(file, text, missing)
    names = content.names
    left_out = set(_chosen(drop, names, file))
    chosen = _chosen(columns, names, file) or [j for j in range(len(names)) if j not in left_out]
    if left_out & set(chosen) or not chosen:
        raise ValueError(f"no column of {file} is left, or one is both chosen and dropped: it has {', '.join(names)}.")
    if content.layout is not None:
        _check_numbers({names[j]: entry for j, entry in content.layout.text_columns.items() if j in chosen}, file)
    read = partial(content.read, chosen)
    return FileBlocks(file, tuple(names[j] for j in chosen), content.parts, read, content.count, content)


def open_dask(path, *, columns: Sequence[str] = (), drop: Sequence[str] = (), text=SEEN, n_partitions: int = 64):
    """A Dask array (n, D) of a file's chosen columns, whose partitions are read by the workers that use them.

    The file must lie at that path for every worker. It is float32 where the file is, else float64. Needs Dask.

    Raises:
        ValueError: as `open_blocks`; a pipe; no Dask; a worker that does not see the file.
    """
    try:
        from dask import array, compute, delayed
    except ImportError:
        raise ValueError("rows on Dask's workers need Dask: pip install 'gmm-jax[cluster]'.") from None
    table = open_blocks(path, columns=columns, drop=drop, text=text)
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


def _content(file, text, missing) -> Content:
    begin, suffix = first_bytes(file), Path(file.name).suffix.lower()
    if begin == b"\x93NUMPY" or suffix == ".npy":
        return open_npy(file)
    if begin[:4] == b"PAR1" or suffix == ".parquet":
        return open_parquet(file)
    return open_text(file, text, missing)


def _check_numbers(words, file):
    """A ValueError where a chosen column holds text: column -> its first entry."""
    if words:
        (name, entry), *others = words.items()
        more = f" (and {len(others)} more columns)" if others else ""
        raise ValueError(
            f"{file}, column {name!r} holds text, such as {entry!r}{more}: leave it out with --drop "
            f"{shlex.join(words)}, or say how the file is written (--separator, --decimal, --header)."
        )


def _chosen(columns, names, file):
    """The numbers of the columns, each once."""
    chosen = [j for column in columns for j in _numbers_of(column, names, file)]
    again = next((j for j in chosen if chosen.count(j) > 1), None)
    if again is not None:
        raise ValueError(f"column {names[again]!r} of {file} is chosen twice: name it once.")
    return chosen


def _numbers_of(column, names, file):
    if column in names:
        return [names.index(column)]
    if column.isdecimal() and int(column) < len(names):
        return [int(column)]
    if "," in column:
        return [j for part in column.split(",") for j in _numbers_of(part.strip(), names, file)]
    if found := re.fullmatch(r"(\d+)-(\d+)", column):
        first, last = map(int, found.groups())
        if first <= last < len(names):
            return list(range(first, last + 1))
    near = get_close_matches(column, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"column {column!r} does not exist in {file}{hint}; it has {', '.join(names)}.")
