"""rows.parquet beside rows.csv, where pyarrow is installed: the same columns, typed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .store import plain, write_bytes_atomic


def write_parquet(folder, rows: Iterable[Mapping[str, Any]]) -> Path | None:
    """A column for every key, in the order of first appearance; None where pyarrow is not installed.

    A column is of numbers (float64, int64 where all are whole), of booleans or of text; dicts, lists and columns of
    several kinds are JSON text.
    """
    if find_spec("pyarrow") is None:
        return None
    import pyarrow
    from pyarrow import parquet

    rows = [plain(row) for row in rows]
    columns = dict.fromkeys(key for row in rows for key in row)
    table = pyarrow.table({name: _column([row.get(name) for row in rows]) for name in columns})
    content = io.BytesIO()
    parquet.write_table(table, content)
    return write_bytes_atomic(Path(folder) / "rows.parquet", content.getvalue())


def _column(values):
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) == 1 and kinds <= {bool, int, float, str}:
        return values
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
