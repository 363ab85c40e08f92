"""The table of EM's optima for the terminal (see `judge.landscape`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import report

SHOWN = 10  # optima in a table for the terminal
SMALLEST = ("smallest component, samples", "smallest relative variance")


def table(rows: Sequence[Mapping[str, Any]], most: int = SHOWN) -> report.Table:
    """The first rows as text, and those without an optimum."""
    optima = [row for row in rows if row["optimum"] is not None]
    lines = [
        (
            str(row["optimum"]),
            f"{row['log_likelihood']:.4f}",
            f"{row['gap']:.3g}",
            str(row["count"]),
            f"{row['share']:.1%}",
            f"{row['smallest_count']:.3g}",
            f"{row['smallest_eigenvalue']:.2g}",
            row["reason"] or "",
        )
        for row in optima[:most]
    ]
    if len(optima) > most:
        left = sum(row["count"] for row in optima[most:])
        lines.append((f"{len(optima) - most} more", *(report.DASH,) * 2, str(left), *(report.DASH,) * 3, ""))
    lines += [
        (report.DASH, *(report.DASH,) * 2, str(row["count"]), f"{row['share']:.1%}", *(report.DASH,) * 2, row["reason"])
        for row in rows
        if row["optimum"] is None
    ]
    head = ("optimum", "log-likelihood", "gap", "starts", "share", *SMALLEST, "spurious because")
    return report.Table(head, tuple(lines))
