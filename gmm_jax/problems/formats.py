"""Files as people have them: .npy and Parquet are read where they lie, archives and workbooks are unpacked once.

A file is divided into parts (ranges of rows, row groups, ranges of bytes), which are read one after the other here or
by the workers of a Dask cluster. A file that is cut off or holds no numbers is named, with the place.
"""

import gzip
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from ..mixture.blocks import BLOCK_NUMBERS, FEWEST_ROWS
from .text_layout import Layout

Part = tuple[int, int]  # from, to


@dataclass(frozen=True)
class File:
    """Where a file lies and how it is called: the copy of a pipe, or of what was packed, keeps its name."""

    path: Path
    name: str
    copy: Any = None  # the temporary file, deleted when it is closed

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return self.name


class Content(NamedTuple):
    """What a file holds, and how it is read."""

    names: list[str]  # of all columns; their numbers from 0 where they have none
    parts: Sequence[Part]
    read: Callable[[list[int], Part], Iterator[np.ndarray]]  # blocks (n, D) of the chosen columns of a part
    count: Callable[[Part], int]  # rows of a part
    records: Callable[[Part], Iterable[Sequence]]  # the rows of a part as they stand in the file, all columns
    layout: Layout | None = None  # of text


# ---- where it lies


def open_file(path) -> File:
    """The file, or a copy of it that can be read again and again: of a pipe, and of what is packed or a workbook."""
    is_stdin = str(path) == "-"
    if is_stdin or not stat.S_ISREG((seen := Path(path).stat()).st_mode):
        if not is_stdin and stat.S_ISDIR(seen.st_mode):
            raise ValueError(f"{path} is a folder: name a file in it.")
        with sys.stdin.buffer if is_stdin else open(path, "rb") as source:
            return _copied("standard input" if is_stdin else str(path), partial(shutil.copyfileobj, source))
    return _unpacked(File(Path(path), str(path)))


def _copied(name, write):
    """What is written to a temporary file, under the name that it had."""
    copy = NamedTemporaryFile(prefix="gmm-jax-")  # noqa: SIM115 (closed by FileBlocks)
    write(copy)
    copy.flush()
    return _unpacked(File(Path(copy.name), name, copy))


def _unpacked(file):
    begin = first_bytes(file)
    unpack = next((how for magic, how in PACKED.items() if begin.startswith(magic)), None)
    return file if unpack is None else _copied(file.name.removesuffix(".gz"), partial(unpack, file))


def first_bytes(file) -> bytes:
    """The first six, which tell formats apart."""
    with open(file, "rb") as content:
        return content.read(6)


def _gunzip(file, copy):
    try:
        with gzip.open(file, "rb") as source:
            shutil.copyfileobj(source, copy)
    except (OSError, EOFError) as error:
        raise ValueError(f"{file} is no whole .gz file ({error}): write it again.") from None


def _from_utf16(file, copy):
    try:
        copy.write(file.path.read_text(encoding="utf-16").encode())
    except UnicodeError as error:
        raise ValueError(f"{file} is not a text file ({error}): save it as CSV.") from None


def _from_archive(file, copy):
    """Of an .npz archive its only array, or that called x; of a workbook the first sheet, as CSV."""
    if Path(file.name).suffix.lower() in (".xlsx", ".xlsm"):
        return _from_workbook(file, copy)
    try:
        with open(file, "rb") as packed, np.load(packed, allow_pickle=False) as archive:
            names = list(archive)
            chosen = names if len(names) == 1 else [name for name in names if name.lower() == "x"]
            if len(chosen) != 1:
                raise ValueError(f"it holds {', '.join(names) or 'nothing'}: save one array, or call it x")
            np.save(copy, archive[chosen[0]], allow_pickle=False)
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"{file} is no .npz archive of one table ({error}).") from None


def _from_workbook(file, copy):
    try:
        import pandas

        pandas.read_excel(file.path, header=None).to_csv(copy, index=False, header=False)
    except ImportError:
        how = "needs pandas and openpyxl: pip install 'gmm-jax[excel]', or save it as CSV"
        raise ValueError(f"{file} is a workbook, which {how}.") from None
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise ValueError(f"{file} is no whole workbook ({error}): save it again, or as CSV.") from None


PACKED = {b"\x1f\x8b": _gunzip, b"PK\x03\x04": _from_archive, b"\xff\xfe": _from_utf16, b"\xfe\xff": _from_utf16}


def rows_at_a_time(n_columns: int) -> int:
    """How many rows a block has."""
    return max(FEWEST_ROWS, BLOCK_NUMBERS // n_columns)


# ---- .npy


class _Npy(NamedTuple):
    """Where the numbers of a .npy file lie."""

    shape: tuple[int, int]
    dtype: np.dtype
    by_column: bool  # Fortran's order
    offset: int  # of the first number


def open_npy(file: File) -> Content:
    """A table (N, D) of numbers, or (N,), which is one column."""
    layout = _layout(file)
    n_rows, n_columns = layout.shape
    parts, columns = list(pairwise([*range(0, n_rows, rows_at_a_time(n_columns)), n_rows])), list(range(n_columns))
    read = partial(_read_npy, file, layout)

    def records(part):
        return (row for block in read(columns, part) for row in block.tolist())

    return Content(list(map(str, columns)), parts, read, lambda part: part[1] - part[0], records)


def _layout(file):
    try:
        table = np.load(file.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file} is no whole .npy file of numbers ({error}): write it again with np.save.") from None
    if table.ndim not in (1, 2) or 0 in table.shape:
        raise ValueError(f"{file} must hold one table of shape (rows, columns), not empty; it holds {table.shape}.")
    if table.dtype.kind not in "fiub":
        raise ValueError(f"{file} holds {table.dtype}, not real numbers: write a table of numbers with np.save.")
    return _Npy((*table.shape, 1)[:2], table.dtype, not table.flags.c_contiguous, table.offset)


def _read_npy(file, layout, chosen, part):
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


def open_parquet(file: File) -> Content:
    """Row groups of a Parquet file."""
    if find_spec("pyarrow") is None:
        raise ValueError(f"{file} is a Parquet file, which needs pyarrow: pip install 'gmm-jax[parquet]'.")
    with _parquet(file) as content:
        names = list(content.schema_arrow.names)
        sizes = [content.metadata.row_group(g).num_rows for g in range(content.num_row_groups)]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{file} must have columns of different names; it has {', '.join(names) or 'none'}.")
    parts = [(g, g + 1) for g in range(len(sizes))]

    def records(part):
        with _parquet(file) as content:
            return zip(*content.read_row_group(part[0]).to_pydict().values(), strict=True)

    return Content(names, parts, partial(_read_parquet, file, names), lambda part: sizes[part[0]], records)


def _parquet(file):
    from pyarrow import ArrowInvalid, parquet

    try:
        return parquet.ParquetFile(file.path)
    except ArrowInvalid as error:
        raise ValueError(f"{file} is no whole Parquet file ({error}): write it again.") from None


def _read_parquet(file, names, chosen, part):
    from pyarrow import ArrowException

    names = [names[j] for j in chosen]
    with _parquet(file) as content:
        missing = [name for name in names if name not in content.schema_arrow.names]
        if missing or part[0] >= content.num_row_groups:
            gone = f"column {missing[0]!r} is gone" if missing else "it has fewer rows"
            raise ValueError(f"{file} has changed since it was opened: {gone}.")
        try:
            for batch in content.iter_batches(rows_at_a_time(len(names)), row_groups=[part[0]], columns=names):
                yield np.stack([_column(batch.column(name), file, name) for name in names], axis=1)
        except (ArrowException, OSError) as error:
            raise ValueError(f"{file} is damaged ({error}): write it again.") from None


def _column(values, file, name):
    """A missing value becomes NaN, which whoever checks the rows then names."""
    from pyarrow import float64, types

    of = values.type
    if not (types.is_integer(of) or types.is_floating(of) or types.is_boolean(of) or types.is_decimal(of)):
        raise ValueError(f"{file}, column {name!r} holds {of}, not numbers: leave it out with --drop {name}.")
    plain = types.is_floating(of) or (types.is_integer(of) and not values.null_count)
    return (values if plain else values.cast(float64())).to_numpy(zero_copy_only=False)
