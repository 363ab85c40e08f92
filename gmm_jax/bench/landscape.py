"""The table of EM's optima for the terminal (see `judge.landscape`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from . import report

SHOWN = 10  # optima in a table for the terminal
COLUMNS = {  # head -> column of the rows, format
    "optimum": ("optimum", ""),
    "log-likelihood": ("log_likelihood", ".4f"),
    "gap": ("gap", ".3g"),
    "starts": ("count", ""),
    "share": ("share", ".1%"),
    "smallest component, samples": ("smallest_count", ".3g"),
    "smallest relative variance": ("smallest_eigenvalue", ".2g"),
    "spurious because": ("reason", ""),
}


def table(rows: Sequence[Mapping[str, Any]], most: int = SHOWN) -> report.Table:
    """The first rows as text, and those without an optimum."""
    optima = [row for row in rows if row["optimum"] is not None]
    left = optima[most:]
    more = [{"optimum": f"{len(left)} more", "count": sum(row["count"] for row in left)}] if left else []
    shown = [*optima[:most], *more, *(row for row in rows if row["optimum"] is None)]
    shown = [row | {"reason": row.get("reason") or ""} for row in shown]
    return report.table_of(shown, COLUMNS)
