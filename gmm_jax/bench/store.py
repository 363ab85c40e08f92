"""Rows and trials on disk: written whole or not at all, checked when read, safe to resume.

A trial is one file, cells/<hash of its configuration>.json, that carries the SHA-256 of its own payload. What cannot be
read is named with a remedy and never guessed at. JSON has no NaN: numbers that are not finite are written as null.
"""

import csv
import enum
import hashlib
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..mixture import GMM
from ..mixture.files import whole_file, write_bytes_atomic

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SCHEMA = 1  # of a trial's configuration and row; a reader refuses what a later one wrote
MOST_BYTES = 64 * 2**20  # no trial and no provenance is larger
MIXTURES, LONGEST = ("truth", "estimate", "standard_errors"), 32_767  # characters, which a spreadsheet's field holds


class UnreadableResult(RuntimeError):
    """A file of results that is missing, cut off or damaged; the message names it and says what to do."""

    def __init__(self, path, what: str, remedy: str = "delete it and run the same command again"):
        super().__init__(f"{path}: {what}; {remedy}.")
        self.path = Path(path)


# ---- places


def result_folder(root, name: str) -> Path:
    """root/name, which must lie inside root even when links are followed; it is not made."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"a name of results may hold letters, digits, '.', '_' and '-', at most 100, and begins with a letter or a "
            f"digit; got {name!r}."
        )
    folder = Path(root) / name
    if not folder.resolve().is_relative_to(Path(root).resolve()):
        raise ValueError(f"{name!r} leads out of the results folder: remove that link or choose another name.")
    return folder


def cell_path(folder, config: Mapping[str, Any]) -> Path:
    """Where the trial with this configuration lies: the order of its keys does not matter."""
    return Path(folder) / "cells" / f"{_digest(plain(config))[:24]}.json"


# ---- writing


def write_text_atomic(path, text: str) -> Path:
    """`write_bytes_atomic` of UTF-8 text, line ends as they are."""
    return write_bytes_atomic(path, text.encode())


def write_json(path, value) -> Path:
    """JSON that people can read; NumPy becomes plain, enumerations their names, non-finite numbers null."""
    return write_text_atomic(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_cell(folder, config: Mapping[str, Any], row: Mapping[str, Any]) -> Path:
    """Keep the row of one trial under its configuration."""
    payload = {"config": plain(config), "row": plain(row), "source": source()}
    return write_json(cell_path(folder, config), {"sha256": _digest(payload), "payload": payload})


def write_csv(path: Path | None, names, lines: Iterable, separator: str = ",") -> None:
    """Lines of fields under the names of their columns to a file, whole or not at all, or as they come to stdout."""
    with nullcontext() if path is None else whole_file(path) as file:
        text = sys.stdout if path is None else io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, delimiter=separator, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(lines)
        if path is not None:
            text.detach()


def write_rows(folder, rows: Iterable[Mapping[str, Any]]) -> Path:
    """rows.csv: a column for every key, in the order of first appearance; dicts and lists as compact JSON.

    A mixture that is longer than a spreadsheet's field (in 50 dimensions) is left out: its cell has it.
    """
    rows = [plain(row) for row in rows]
    columns, path = list(dict.fromkeys(key for row in rows for key in row)), Path(folder) / "rows.csv"
    write_csv(path, columns, ([_to_field(name, row.get(name)) for name in columns] for row in rows))
    return path


def mixture_record(gmm: GMM | None) -> dict[str, Any] | None:
    """A mixture as JSON can hold it; None stays None."""
    if gmm is None:
        return None
    leaves = {name: np.asarray(getattr(gmm, name), float).tolist() for name in ("weights", "means", "covariances")}
    return leaves | {"covariance_type": gmm.covariance_type}


def mixture_of(record: Mapping[str, Any] | str | None) -> GMM | None:
    """The mixture of a row's truth, estimate or standard_errors; null entries become NaN."""
    if record in (None, ""):
        return None
    record = json.loads(record) if isinstance(record, str) else record
    leaves = (np.array(record[name], float) for name in ("weights", "means", "covariances"))
    return GMM(*leaves, record["covariance_type"])


# ---- reading


def read_bytes(path, most: float = math.inf) -> bytes:
    """The content of a file of results, or UnreadableResult: missing, more than so many bytes, not permitted."""
    path = Path(path)
    try:
        if path.stat().st_size > most:
            raise UnreadableResult(path, f"larger than {most // 2**20} MiB, so no result of gmm_jax")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableResult(path, "does not exist", "run the command that makes it first") from None
    except OSError as error:
        raise UnreadableResult(path, f"cannot be read ({error.strerror})", "check the file's permissions") from None


def read_json(path):
    """What a JSON file says, or UnreadableResult: cut off, not JSON, or holding NaN."""
    try:
        return json.loads(read_bytes(path, MOST_BYTES).decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UnreadableResult(path, f"cut off or damaged ({error})") from None


def read_cell(path) -> dict[str, Any]:
    """{"config": ..., "row": ..., "source": ...} of one trial, or UnreadableResult where its checksum disagrees."""
    cell = read_json(path)
    payload = cell.get("payload") if isinstance(cell, dict) else None
    if not isinstance(payload, dict) or not {"config", "row"} <= payload.keys():
        raise UnreadableResult(path, "not a trial of gmm_jax")
    if _digest(payload) != cell.get("sha256"):
        raise UnreadableResult(path, "its content does not agree with its checksum")
    schema = payload["config"].get("schema", SCHEMA) if isinstance(payload["config"], dict) else SCHEMA
    if schema != SCHEMA:
        raise UnreadableResult(path, f"written in schema {schema}, this is {SCHEMA}", "read it with a newer gmm_jax")
    return payload


def read_rows(folder) -> list[dict[str, Any]]:
    """What write_rows wrote: empty fields are None, numbers are numbers, also where a text looked like one."""
    path = Path(folder) / "rows.csv"
    try:
        text = read_bytes(path).decode()
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # it is 128 KiB otherwise
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns, rows = next(lines, []), []
        for line in lines:
            if len(line) != len(columns):
                raise ValueError(f"line {lines.line_num} has {len(line)} fields where the head has {len(columns)}")
            rows.append({column: _from_field(field) for column, field in zip(columns, line, strict=True)})
    except (csv.Error, ValueError) as error:
        raise UnreadableResult(path, f"damaged ({error})") from None
    return rows


# ---- plain values


@cache
def source() -> str:
    """A digest of this package's source: what other source has measured may mean something else."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def plain(value):
    """Python's own types only, so that JSON and hashes do not depend on NumPy; NaN and infinity become None."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        if names := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"keys of what is stored must be text; got {names[0]!r}.")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    raise TypeError(f"a {type(value).__name__} cannot be stored; make it numbers, text, lists or dicts: {value!r}.")


def _digest(plain):
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _to_field(name, value):
    """A field of rows.csv: JSON, but text as it is and nothing for null."""
    if value is None or isinstance(value, str):
        return value or ""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return "" if name in MIXTURES and len(text) > LONGEST else text


_JSON = re.compile(r"-?\d|[\[{]|(true|false)\Z")


def _from_field(field):
    if not field or not _JSON.match(field):
        return field or None
    try:
        return json.loads(field, parse_constant=_no_constant)
    except ValueError:  # text after all
        return field


def _no_constant(text):
    raise ValueError(f"{text} is no number of JSON")
