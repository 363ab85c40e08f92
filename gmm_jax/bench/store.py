"""Rows and provenance on disk: written whole or not at all, checked when read, safe to resume.

A trial is one cell, cells/<hash of its configuration>.json, that carries the SHA-256 of its own payload. What cannot be
read is named with a remedy and never guessed at. JSON has no NaN: numbers that are not finite are written as null.
"""

from __future__ import annotations

import csv
import enum
import hashlib
import io
import json
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..mixture import GMM
from ..mixture.files import write_bytes_atomic
from .design import design_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SCHEMA = 1  # of a trial's configuration and row; a reader refuses what a later one wrote
MOST_BYTES = 64 * 2**20  # no result is larger
PACKAGES = ("jax", "jaxlib", "numpyro", "blackjax", "numpy", "scipy", "arviz-stats")


class UnreadableResult(RuntimeError):
    """A file of results that is missing, cut off or damaged; the message names it and says what to do."""

    def __init__(self, path, what: str, remedy: str = "delete it and run the same command again"):
        super().__init__(f"{path}: {what}; {remedy}.")
        self.path = Path(path)


# ---- places


def check_name(name: str) -> str:
    """The name itself if it can be a folder of results, else a ValueError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"a name of results may hold letters, digits, '.', '_' and '-', at most 100, and begins with a letter or a "
            f"digit; got {name!r}."
        )
    return name


def result_folder(root, name: str) -> Path:
    """root/name, which must lie inside root even when links are followed; it is not made."""
    folder = Path(root) / check_name(name)
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


def write_rows(folder, rows: Iterable[Mapping[str, Any]]) -> Path:
    """rows.csv: a column for every key, in the order of first appearance; dicts and lists as compact JSON."""
    rows = [plain(row) for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_to_field(row.get(column)) for column in columns] for row in rows)
    return write_text_atomic(Path(folder) / "rows.csv", text.getvalue())


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


class Cells(NamedTuple):
    """All trials of a folder: what could be read, and what could not."""

    rows: list[dict[str, Any]]
    unreadable: list[UnreadableResult]


def read_json(path):
    """What a JSON file says, or UnreadableResult: missing, too large, cut off, not JSON, or holding NaN."""
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UnreadableResult(path, f"larger than {MOST_BYTES // 2**20} MiB, so no result of gmm_jax")
        return json.loads(path.read_bytes().decode(), parse_constant=_no_constant)
    except FileNotFoundError:
        raise UnreadableResult(path, "does not exist", "run the command that makes it first") from None
    except OSError as error:
        raise UnreadableResult(path, f"cannot be read ({error.strerror})", "check the file's permissions") from None
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


def load_cells(folder) -> Cells:
    """Every trial of a folder, in the order of file names; a damaged one is named and the others are read."""
    rows, unreadable = [], []
    for path in sorted((Path(folder) / "cells").glob("*.json")):
        try:
            rows.append(read_cell(path)["row"])
        except UnreadableResult as error:
            unreadable.append(error)
    return Cells(rows, unreadable)


def read_rows(folder) -> list[dict[str, Any]]:
    """What write_rows wrote: empty fields are None, numbers are numbers, also where a text looked like one."""
    path = Path(folder) / "rows.csv"
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise UnreadableResult(path, "does not exist", "run the command that makes it first") from None
    except (OSError, ValueError) as error:
        raise UnreadableResult(path, f"cannot be read ({error})") from None
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # it is 128 KiB otherwise
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(lines, [])
        rows = []
        for line in lines:
            if len(line) != len(columns):
                raise ValueError(f"line {lines.line_num} has {len(line)} fields where the head has {len(columns)}")
            rows.append({column: _from_field(field) for column, field in zip(columns, line, strict=True)})
    except (csv.Error, ValueError) as error:
        raise UnreadableResult(path, f"damaged ({error})") from None
    return rows


# ---- provenance


def provenance(
    command: str | Sequence[str],
    config: Mapping[str, Any],
    started: datetime,
    ended: datetime,
    seconds: Mapping[str, float],
    *,
    seeds: Sequence[int] | None = None,
    doc: str = "",
    answer: str | None = None,
) -> dict[str, Any]:
    """What is needed to repeat a result. It names no folder, user, host or environment variable.

    Args:
        command: what was typed, as text or as argv; absolute paths are cut to their last part.
        started: aware datetimes; stored in UTC.
        seconds: compile, trace and run apart.
        doc: the experiment's docstring, with its question and its design (see design.py).
        answer: what it found, a sentence, or a line for each thing; results/README.md shows them all.
    """
    command = _bare(command) if isinstance(command, str) else shlex.join(map(_bare, command))
    return {
        **design_of(doc),
        "answer": answer,
        "command": command,
        "config": _bare(plain(config)),
        "seeds": plain(config.get("seeds") if seeds is None else seeds),
        "versions": _versions(),
        "machine": _machine(),
        "git": _git(),
        "started": _utc(started),
        "ended": _utc(ended),
        "seconds": plain(seconds),
    }


@cache
def source() -> str:
    """A digest of this package's source: what other source has measured may mean something else."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _versions():
    from importlib.metadata import PackageNotFoundError, version

    from .. import __version__

    found = {"gmm_jax": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _machine():
    import jax

    device = jax.devices()[0]
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "device": device.device_kind,
        "n_devices": jax.device_count(),
        "x64": jax.eval_shape(lambda: jax.numpy.zeros(())).dtype == np.float64,
    }


def _cpu():
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or None
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.processor() or None


def _git():
    """Commit, and whether code differs from it; None where gmm_jax does not lie in a checkout of its own."""
    root = Path(__file__).resolve().parents[2]
    git = shutil.which("git")

    def ask(*arguments):
        command = [git, "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed words
        return done.stdout.strip()

    if git is None or not (root / ".git").exists():
        return None
    try:
        changed = ask("status", "--porcelain", "--", "gmm_jax", "experiments", "constraints.txt")
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (subprocess.SubprocessError, OSError):
        return None


def _utc(moment):
    if moment.tzinfo is None:
        raise ValueError(f"started and ended need a time zone; use datetime.now(timezone.utc), got {moment!r}.")
    return moment.astimezone(UTC).isoformat(timespec="seconds")


_PLACE = re.compile(r"(?<![\w.:/\\~-])(?:~[\w.-]*|[A-Za-z]:)?[/\\](?:[^\s'\"=,;:/\\]+[/\\])*([^\s'\"=,;:/\\]*)")


def _bare(value):
    """The same value with absolute and home paths cut to their last part, also inside texts."""
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if not isinstance(value, str):
        return value
    option, equals, rest = value.rpartition("=") if value.startswith("-") else ("", "", value)
    if " " in rest and re.match(r"(/|~|[A-Za-z]:[/\\])", rest) and Path(rest.replace("\\", "/")).parent.is_dir():
        return option + equals + Path(rest.replace("\\", "/")).name  # one path with spaces in it
    return _PLACE.sub(r"\1", value)


# ---- plain values


def plain(value):
    """Python's own types only, so that JSON and hashes do not depend on NumPy; NaN and infinity become None."""
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, datetime):
        return _utc(value)
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    raise TypeError(f"a {type(value).__name__} cannot be stored; make it numbers, text, lists or dicts: {value!r}.")


def _key(key):
    if not isinstance(key, str):
        raise TypeError(f"keys of what is stored must be text; got {key!r}.")
    return key


def _digest(plain):
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _to_field(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return repr(value) if isinstance(value, float) else str(value)


_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def _from_field(field):
    if field in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[field]
    if field[0] in "[{":
        return json.loads(field, parse_constant=_no_constant)
    found = _NUMBER.fullmatch(field)
    if not found:
        return field
    return float(field) if found.group(1) or found.group(2) else int(field)


def _no_constant(text):
    raise ValueError(f"{text} is no number of JSON")
