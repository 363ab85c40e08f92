"""What made a result: for each row the commit, time, device and seconds; for each run all that repeats it.

provenance.json is a list with one entry a run that added rows, in order; a run that goes on appends its entry and
leaves the earlier ones as they are. Nothing in it names a folder, user, host or environment variable.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .store import UnreadableResult, read_json, source

PACKAGES = ("jax", "jaxlib", "numpyro", "blackjax", "numpy", "scipy", "arviz-stats")
STAMP = ("commit", "made", "device", "seconds")  # columns of every row
PARTS = ("Data", "Estimands", "Methods", "Performance", "Expected")
_BREAK = re.compile(rf"\n\s*\n|^(?=(?:{'|'.join(PARTS)}): )|(?=Found: )", re.MULTILINE)


# ---- of a row


def stamped(row: Mapping[str, Any], seconds: float | None = None) -> dict[str, Any]:
    """A new row with commit, made (ISO time, UTC), device and seconds; one that has a commit was made before."""
    if "commit" in row:
        return dict(row)
    made = dict(zip(STAMP, (commit(), now(), device(), seconds), strict=True))
    return {**row, **{name: value for name, value in made.items() if row.get(name) is None}}


def earlier(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an earlier run as it is: no commit where it names none, which is then not known."""
    return {**row, "commit": row.get("commit")}


def commit() -> str:
    """The commit of the code that runs, with "+" and a digest of its source where that was changed since.

    Of an installed package that is no checkout: its version, "+" and the digest.
    """
    from .. import __version__

    found = git()
    if found is None:
        return f"{__version__}+{source()}"
    return found["commit"][:12] + (f"+{source()}" if found["dirty"] else "")


@cache
def device() -> str:
    """The accelerator's kind, or the processor's name and how many cores this process may use."""
    import jax

    kind = jax.devices()[0].device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpu() or 'cpu'}, {cores} core{'s' * (cores > 1)}" if kind == "cpu" else kind


def makers(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """How many rows each commit has made, when and where: a line for each; what old rows do not say is "not known"."""
    groups: dict[tuple, list[str]] = {}
    for row in rows:
        key = tuple(str(row.get(name) or f"{name} not known") for name in ("commit", "device"))
        groups.setdefault(key, []).append(str(row.get("made") or row.get("measured") or "")[:10] or "time not known")
    return [
        f"{len(days)} rows: {by}, {' to '.join(sorted({min(days), max(days)}))}, {where}"
        for (by, where), days in groups.items()
    ]


# ---- of a run


def command_of(text: str) -> str:
    """What was typed, its absolute paths cut to their last part."""
    return shlex.join(map(bare, shlex.split(text)))


def here() -> dict[str, Any]:
    """Versions, machine and commit of what runs."""
    return {"versions": _versions(), "machine": _machine(), "git": git()}


def read_provenance(folder) -> list[dict[str, Any]]:
    """The entries of a folder's provenance.json, oldest first, or UnreadableResult; before it was a list it was one."""
    path = Path(folder) / "provenance.json"
    found = read_json(path)
    entries = [found] if isinstance(found, dict) else found
    if not isinstance(entries, list) or not entries or not all(isinstance(each, dict) for each in entries):
        raise UnreadableResult(path, "not a provenance")
    return entries


def summary(folder, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a report says of the folder: its last run's entry, all runs, and who made the rows."""
    runs = read_provenance(folder)
    return runs[-1] | {"runs": runs_of(runs), "made by": makers(rows)}


def runs_of(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each run: when, how many rows it added, by which commit."""
    return [
        f"{(each.get('started') or '')[:10] or 'time not known'}: "
        f"{'an unknown number of' if each.get('rows') is None else each['rows']} rows, "
        f"commit {((each.get('git') or {}).get('commit') or 'not known')[:12]}"
        for each in entries
    ]


def design_of(doc: str) -> dict[str, Any]:
    """The question that a docstring begins with, None where it asks nothing, and its parts by ADEMP, each on one line.

    A part (aim, data, estimands, methods, performance) begins a line with its name and a colon, and ends at an empty
    line or the next part.

    Reference:
        Morris, White & Crowther (2019), Statistics in Medicine 38.
    """
    pieces = (piece.partition(":") for piece in _BREAK.split(doc))
    parts = {name: " ".join(text.split()) for name, _, text in pieces if name in PARTS}
    question = " ".join(doc.partition("?")[0].split())
    return {"question": f"{question}?" if "?" in doc else None, "design": parts}


# ---- what is here


@cache
def _versions():
    from importlib.metadata import distributions

    from .. import __version__

    found = {package: next((each.version for each in distributions(name=package)), None) for package in PACKAGES}
    return {"gmm_jax": __version__, "python": platform.python_version()} | found


def _machine():
    import jax

    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "n_devices": jax.device_count(),
        "x64": jax.eval_shape(lambda: jax.numpy.zeros(())).dtype == np.float64,
    }


@cache
def _cpu():
    facts = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", facts.read_text() if facts.exists() else "", re.MULTILINE)
    return found.group(1) if found else platform.processor() or None


@cache
def git() -> dict[str, Any] | None:
    """Commit, and whether code differs from it; None where gmm_jax does not lie in a checkout of its own."""
    root, program = Path(__file__).resolve().parents[2], shutil.which("git")
    if program is None or not (root / ".git").exists():
        return None

    def ask(*words):
        how = {"capture_output": True, "text": True, "check": True, "timeout": 10}
        return subprocess.run([program, "-C", str(root), *words], **how).stdout.strip()  # noqa: S603 - fixed words

    try:
        changed = ask("status", "--porcelain", "--", "gmm_jax", "experiments", "constraints.txt")
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (subprocess.SubprocessError, OSError):
        return None


def now() -> str:
    """ISO time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


_PLACE = re.compile(r"(?<![\w.:/\\~-])(?:~[\w.-]*|[A-Za-z]:)?[/\\](?:[^\s'\"=,;:/\\]+[/\\])*([^\s'\"=,;:/\\]*)")


def bare(value):
    """The same value with absolute and home paths cut to their last part, also inside texts."""
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items()}
    if isinstance(value, list):
        return [bare(item) for item in value]
    if not isinstance(value, str):
        return value
    option, equals, rest = value.rpartition("=") if value.startswith("-") else ("", "", value)
    if " " in rest and re.match(r"(/|~|[A-Za-z]:[/\\])", rest) and Path(rest.replace("\\", "/")).parent.is_dir():
        return option + equals + Path(rest.replace("\\", "/")).name  # one path with spaces in it
    return _PLACE.sub(r"\1", value)
