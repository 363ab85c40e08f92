"""gmm-jax compare and report: methods on named problems over seeds, read back from rows alone."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import judge
from .. import problems as suite
from ..mixture import GMM, MixtureSpec, Status, match, permute
from . import plots, provenance, report, store
from .grid import Grid
from .runner import FAILED, HERE, KNOWING, How, known_in, run_grid

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
SCORES = {  # of one trial: head -> column, format
    "method": ("method", ""),
    "KL from truth": ("nearness", ""),
    "held-out ℓ/n": ("test_log_likelihood", ".4f"),
    "ARI": ("ari", ".3f"),
    "R-hat": ("r_hat", ".3f"),
    "ESS": ("ess_bulk", ".0f"),
    "status": ("status", ""),
    "compile s": ("seconds_before", ".1f"),
    "run s": ("seconds_run", ".2f"),
}
NOTES = (
    "KL: divergence in nats ± its Monte-Carlo error; ℓ/n: mean log-likelihood of new samples; ARI: with true labels.",
    "compile s: tracing, and compiling or loading compiled programs. The oracle knows the labels.",
)
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
    notes = (
        f"{_over(rows, lines)}; ok: status {', '.join(FINISHED)}.",
        "Seconds are without compiling, and with whatever else ran on the machine.",
    )
    return report.Table(head, tuple(lines), notes=notes)


def nearness_table(rows: Sequence[Mapping[str, Any]]) -> report.Table:
    """A line for each problem and case, a column for each method: the divergence of its fits from the truth."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = []
    for place, group in _groups(rows, "problem", "case").items():
        trials = _groups(group, "method")
        lines.append((*place, *(_nearness(trials.get((method,), ())) for method in methods)))
    note = f"KL(truth ‖ fit) in nats, smaller is better. {_over(rows, lines)}; † the status of some trial is not ok."
    return report.Table(("problem", "case", *methods), tuple(lines), notes=(note,))


def _nearness(trials):
    doubt = "" if all(row["status"] in FINISHED for row in trials) else " †"
    if len(trials) != 1:
        return _median(trials, "kl") + doubt
    kl, error = (np.nan if trials[0].get(name) is None else trials[0][name] for name in ("kl", "kl_se"))
    return report.with_uncertainty(kl, error) + doubt


def _over(rows, lines):
    """What a number in these lines is."""
    seeds = len({row["seed"] for row in rows})
    brackets = " and [quartiles]" if any("[" in cell for line in lines for cell in line) else ""
    return "Of one data set" if seeds == 1 else f"Medians{brackets} over {seeds} seeds"


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which method's median comes nearest to the truth how often, and how many trials ended ok."""
    first, places = Counter(), _groups(rows, "problem", "case")
    for group in places.values():
        known = [row for row in group if row.get("kl") is not None and row["method"] != "oracle"]
        medians = {method: np.median([row["kl"] for row in of]) for (method,), of in _groups(known, "method").items()}
        first.update(min(medians, key=medians.get) for _ in range(bool(medians)))
    won = ", ".join(f"{method} on {count} of {len(places)} problems" for method, count in first.most_common())
    well = sum(row["status"] in FINISHED for row in rows)
    return f"Nearest to the truth: {won or 'no fit'}. {well} of {len(rows)} trials ended ok."


def case_tables(trials: Sequence[Mapping[str, Any]]) -> tuple[report.Table, report.Table]:
    """Of the rows of one data set: φ, μ, Σ beside the truth, a column a method; each method's distance and seconds."""
    problem, case = suite.load(trials[0]["problem"]), trials[0]["case"]
    spec, truth = problem.knowing(*known_in(case)), store.mixture_of(trials[0]["truth"])
    answers, lines = {}, []
    for row in trials:
        answers[row["method"]] = (*in_order(row, truth, spec), Status[row["status"]])
        before = row["seconds_trace"] + row["seconds_compile"]
        lines.append(row | {"nearness": _nearness([row]).removesuffix(" †"), "seconds_before": before})
    return report.parameter_rows(truth, spec.known, answers), report.table_of(lines, SCORES, NOTES)


def in_order(row: Mapping[str, Any], truth: GMM, spec: MixtureSpec) -> tuple[GMM | None, GMM | None]:
    """A row's estimate and standard errors, components in the truth's order; None where it has none."""
    point, errors = (store.mixture_of(row.get(name)) for name in ("estimate", "standard_errors"))
    order = None if point is None else match(point, truth, spec)
    return tuple(None if each is None else permute(each, order) for each in (point, errors))


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
    """Pictures and report.html of a folder, from its rows, its provenance, and the pictures that its run left."""
    rows = read_trials(folder)
    record = provenance.summary(folder, rows)
    problems, methods = (list(dict.fromkeys(row[axis] for row in rows)) for axis in ("problem", "method"))
    strips = [report.Picture(folder / f"{metric}.png", f"{METRICS[metric]}, every trial.") for metric in DRAWN]
    others = report.pictures_in(folder, record, strips)
    lead = [picture for picture in others if picture.path.name.endswith("_recovered.png")][-1:]
    figures = []
    for metric, picture in zip(DRAWN, strips, strict=True):
        if not lead and any(row.get(metric) is not None for row in rows):
            plots.recovery(picture.path, rows, metric, problems, methods)
            figures.append(picture)
    lead = lead or figures[:1]
    sections = [report.Section("Distance from the truth", [nearness_table(rows)], lead)]
    for place, trials in _groups(rows, "problem", "case").items():
        own = [picture for picture in others if picture.path.name.startswith(f"{stem_of(*place)}_")]
        if own:
            one = len(trials) == len(methods) and all(row.get("truth") for row in trials)
            tables = case_tables(trials) if one else ()
            sections.append(report.Section(f"{place[0]}, {place[1]}{_knowing(place[1])}", tables, own))
            others = [picture for picture in others if picture not in own]
    tables = [table for table in (summary_table(rows), uncertainty_table(rows)) if table.rows]
    sections.append(report.Section("Every metric", tables, [each for each in figures if each not in lead]))
    if others:
        sections.append(report.Section("More pictures of the run", figures=others))
    head = ("problem", "case", "method", "seed", "status", "reason")
    if lines := tuple(tuple(str(row[column]) for column in head) for row in rows if row["status"] not in FINISHED):
        sections.append(report.Section("Trials whose status is not ok", (report.Table(head, lines),)))
    summary = "\n\n".join(text for text in (record.get("question"), record.get("answer") or verdict(rows)) if text)
    return report.write_html(folder / "report.html", folder.name, summary, sections, record)


def stem_of(problem: str, case: str) -> str:
    """How the names of the pictures of one problem and case begin."""
    return f"{problem}_{case.lower().replace(' ', '_')}"


def _knowing(case):
    return f": {KNOWING[case]}" if case in KNOWING else ""
