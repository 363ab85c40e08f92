"""gmm-jax compare and report: methods on named problems over seeds, read back from rows alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import judge
from ..mixture import Status
from . import plots, provenance, report, store
from .grid import Grid
from .runner import FAILED, HERE, How, run_grid

METRICS = {
    "kl": "KL from truth",
    "kl_predictive": "KL of predictive",
    "means_error": "RMSE of μ",
    "covariances_error": "RMSE of Σ",
    "weights_error": "RMSE of φ",
    "ari": "ARI",
    "seconds_run": "run s",
}
DRAWN = ("kl", "means_error", "seconds_run")
FINISHED = tuple(status.name for status in Status if status.ok)


def compare(name: str, grid: Grid, *, results="results", command="", how: How = HERE, as_json: bool = False) -> int:
    """Every cell of the grid; rows, table, pictures and report; returns the exit code, 3 where a trial failed.

    Finished trials on disk are kept, so the same command goes on where it was interrupted; `how` says where trials run.
    """
    rows = run_grid(name, grid.cells(), results=results, command=command, how=how, config={"grid": asdict(grid)})
    return show(store.result_folder(results, name), rows, as_json=as_json)


def report_folder(folder: Path) -> int:
    """Tables, pictures and report.html again from a folder's rows, without refitting."""
    show(Path(folder), store.read_rows(folder))
    return 0


def show(folder: Path, rows: Sequence[Mapping[str, Any]], *, as_json: bool = False) -> int:
    """Tables, or rows as JSON, on stdout; pictures and report to the folder; 3 where a trial failed, else 0."""
    path, console = write_report(folder), report.console()
    if as_json:
        print(json.dumps(store.plain(rows), allow_nan=False))
    else:
        seeds = len({row["seed"] for row in rows})
        report.print_table(console, f"{folder.name}: medians over {seeds} seeds", summary_table(rows))
        errors = uncertainty_table(rows)
        if errors.rows:
            report.print_table(console, "Standard errors and posterior sds", errors)
        console.print(f"Rows and report: {path}", soft_wrap=True)
    return 3 if any(row["status"] in FAILED for row in rows) else 0


def summary_table(rows: Sequence[Mapping[str, Any]]) -> report.Table:
    """A line for each problem, case and method: medians, and how many trials ended ok."""
    lines = []
    for (problem, case, method), group in _groups(rows, "problem", "case", "method").items():
        well = sum(row["status"] in FINISHED for row in group)
        cells = [_median(group, metric) for metric in METRICS]
        lines.append((problem, case, method, *cells, f"{well}/{len(group)}"))
    head = ("problem", "case", "method", *METRICS.values(), "ok")
    brackets = " and [quartiles]" if any("[" in cell for line in lines for cell in line[3:-1]) else ""
    notes = (
        f"Medians{brackets} over seeds; ok: status {', '.join(FINISHED)}.",
        "Seconds are without compiling, and with whatever else ran on the machine.",
    )
    return report.Table(head, tuple(lines), notes=notes)


def _median(group, metric):
    values = np.array([row[metric] for row in group if row.get(metric) is not None], float)
    if not values.size:
        return report.DASH
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3g}" if values.size < 3 or metric != "kl" else f"{middle:.3g} [{low:.2g}, {high:.2g}]"


def uncertainty_table(rows: Sequence[Mapping[str, Any]]) -> report.Table:
    """EM's standard errors and the posteriors' sds beside each other: a line for each problem, case and kind of number.

    Medians over seeds of the root mean square over entries.
    """
    said = [row | _mean_errors(row["standard_errors"]) for row in rows if row.get("standard_errors")]
    methods = list(dict.fromkeys(row["method"] for row in said))
    lines = []
    for (problem, case), group in _groups(said, "problem", "case").items():
        mine = _groups(group, "method")
        for letter in ("φ", "μ", "Σ"):
            cells = [_median(mine.get((method,), ()), letter) for method in methods]
            lines.append((problem, case, letter, *cells))
    notes = (
        "em: standard errors from the observed information; samplers: posterior sds. Compare with the RMSE above.",
        "Root mean squares over entries, in units of φ, μ and Σ, and medians of them over seeds; 0 for what is known.",
    )
    return report.Table(("problem", "case", "parameter", *methods), tuple(lines), notes=notes)


def _mean_errors(record):
    """φ, μ, Σ -> root mean square of their standard errors; of Σ over all entries of all matrices, as its RMSE is."""
    errors = store.mixture_of(record)
    leaves = {"φ": errors.weights, "μ": errors.means, "Σ": judge.dense_covariances(errors)}
    return {letter: np.sqrt(np.mean(np.square(leaf))) for letter, leaf in leaves.items()}


def _groups(rows, *axes):
    """Rows by these columns, in the order in which they come."""
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault(tuple(row[axis] for axis in axes), []).append(row)
    return groups


def read_trials(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder, or UnreadableResult where they are not trials."""
    rows = store.read_rows(folder)
    if not rows or not {"problem", "case", "method", "seed", "status"} <= rows[0].keys():
        raise store.UnreadableResult(folder / "rows.csv", "no table of trials as compare writes it")
    return rows


def write_report(folder: Path) -> Path:
    """Pictures and report.html of a folder with rows.csv and provenance.json."""
    rows = read_trials(folder)
    record = provenance.summary(folder, rows)
    problems, methods = (list(dict.fromkeys(row[axis] for row in rows)) for axis in ("problem", "method"))
    figures = []
    for metric in DRAWN:
        if any(row.get(metric) is not None for row in rows):
            path = folder / f"{metric}.png"
            plots.recovery(path, rows, metric, problems, methods)
            figures.append(report.Picture(path, f"{METRICS[metric]}, every method on every problem."))
    tables = [table for table in (summary_table(rows), uncertainty_table(rows)) if table.rows]
    sections = [report.Section("All trials", (), tables, figures)]
    head = ("problem", "method", "seed", "status", "reason")
    if lines := tuple(tuple(str(row[column]) for column in head) for row in rows if row["status"] not in FINISHED):
        sections.append(report.Section("Trials whose status is not ok", (), (report.Table(head, lines),)))
    if others := report.pictures_in(folder, record, figures):
        sections.append(report.Section("Pictures of the run", figures=others))
    summary = "\n\n".join(text for text in (record.get("question"), record.get("answer")) if text)
    return report.write_html(folder / "report.html", folder.name, summary, sections, record)
