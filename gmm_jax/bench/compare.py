"""gmm-jax compare and report: methods on named problems over seeds, read back from rows alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import problems as suite
from . import methods as registry
from . import plots, report, store
from .runner import FAILED, HERE, Cell, How, run_grid

METRICS = {
    "kl": "KL from truth",
    "means_error": "RMSE of μ",
    "covariances_error": "RMSE of Σ",
    "weights_error": "RMSE of φ",
    "ari": "ARI",
    "seconds_run": "run s",
}
DRAWN = ("kl", "means_error", "seconds_run")
FIELDS = ("weights", "means", "covariances")
FINISHED = ("CONVERGED", "MAX_ITER", "SAMPLED")


def compare(
    name: str,
    problems: Sequence[str],
    methods: Mapping[str, Mapping[str, Any]],
    *,
    known: Sequence[str] = (),
    seeds: int = 3,
    n: int | None = None,
    leave_out: Mapping[str, Sequence[str]] = MappingProxyType({}),
    results="results",
    command: str = "",
    question: str = "",
    answer=None,
    how: How = HERE,
    as_json: bool = False,
) -> int:
    """Every method (name -> options) on every problem; rows, table, pictures and report; returns the exit code.

    Finished trials on disk are kept, so the same command goes on where it was interrupted. Exit code 3: some failed.
    `leave_out` (method -> problems) names what would take too long; `how` says where trials run.
    """
    problems = tuple(dict.fromkeys(problems))
    for problem in problems:
        suite.load(problem).knowing(*known)
    known = tuple(field for field in FIELDS if field in known)  # in one order, so that a trial has one name
    for method, options in methods.items():
        registry.check_options(registry.load(method), options)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1; got {seeds}.")
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1; got {n}.")
    cells = [
        Cell(problem, known, method=method, options=tuple(sorted(options.items())), seed=seed, n=n)
        for problem in problems
        for seed in range(seeds)
        for method, options in methods.items()
        if problem not in leave_out.get(method, ())
    ]
    rows = run_grid(name, cells, results=results, command=command, question=question, answer=answer, how=how)
    folder = store.result_folder(results, name)
    path = write_report(folder)
    if as_json:
        print(json.dumps(store.plain(rows), allow_nan=False))
    else:
        console = report.console()
        report.print_table(console, f"{name}: medians over {seeds} seeds", summary_table(rows))
        console.print(f"Rows and report: {path}", soft_wrap=True)
    return 3 if any(row["status"] in FAILED for row in rows) else 0


def report_folder(folder: Path) -> int:
    """Tables, pictures and report.html again from a folder's rows, without refitting."""
    folder = Path(folder)
    path = write_report(folder)
    console = report.console()
    report.print_table(console, f"{folder.name}: medians over seeds", summary_table(store.read_rows(folder)))
    console.print(f"Report: {path}", soft_wrap=True)
    return 0


def summary_table(rows: Sequence[Mapping[str, Any]]) -> report.Table:
    """A line for each problem, case and method: medians, and how many trials ended well."""
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault((row["problem"], row["case"], row["method"]), []).append(row)
    lines = []
    for (problem, case, method), group in groups.items():
        well = sum(row["status"] in FINISHED for row in group)
        cells = [_median(group, metric) for metric in METRICS]
        lines.append((problem, case, method, *cells, f"{well}/{len(group)}"))
    head = ("problem", "case", "method", *METRICS.values(), "ended well")
    notes = (
        "Medians, and in brackets quartiles, over seeds; trials without an answer count only in the last column.",
        "Seconds are without compiling, and with whatever else ran on the machine.",
    )
    return report.Table(head, tuple(lines), notes=notes)


def _median(group, metric):
    values = np.array([row[metric] for row in group if row.get(metric) is not None], float)
    if not values.size:
        return report.DASH
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3g}" if values.size < 3 or metric != "kl" else f"{middle:.3g} [{low:.2g}, {high:.2g}]"


def read_trials(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder, or UnreadableResult where they are not trials."""
    rows = store.read_rows(folder)
    if not rows or not {"problem", "case", "method", "seed", "status"} <= rows[0].keys():
        raise store.UnreadableResult(folder / "rows.csv", "no table of trials as compare writes it")
    return rows


def write_report(folder: Path) -> Path:
    """Pictures and report.html of a folder with rows.csv and provenance.json."""
    rows = read_trials(folder)
    record = store.read_json(folder / "provenance.json")
    problems, methods = (list(dict.fromkeys(row[axis] for row in rows)) for axis in ("problem", "method"))
    figures = []
    for metric in DRAWN:
        if any(row.get(metric) is not None for row in rows):
            path = folder / f"{metric}.png"
            plots.recovery(path, rows, metric, problems, methods)
            figures.append(report.Picture(path, f"{METRICS[metric]}, every method on every problem."))
    failures = [row for row in rows if row["status"] not in FINISHED]
    sections = [report.Section("All trials", (), (summary_table(rows),), figures)]
    if failures:
        head = ("problem", "method", "seed", "status", "reason")
        lines = tuple(tuple(str(row[column]) for column in head) for row in failures)
        sections.append(report.Section("Trials that did not end well", (), (report.Table(head, lines),)))
    summary = "\n\n".join(text for text in (record.get("question"), record.get("answer")) if text)
    return report.write_html(folder / "report.html", folder.name, summary, sections, record)
