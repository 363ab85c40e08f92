r"""gmm-jax diff: has anything become worse from one folder of results to another?

Trials of one cell (problem, case, n, counts, method, options) are paired by seed, d_i = b_i − a_i, of logarithms where
the metric is an error or a time, so that one bad optimum does not hide a loss of all others; where the two runs share
no two seeds they are independent samples. A comparison is a cell and a metric, with Student's interval of the mean of d
(Welch's without pairs); its level is Holm's, so that all intervals together cover with 95 %. Trials that ran together
have equal parts of one time: they are one measurement of it.

References:
    Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    Agresti & Caffo (2000), The American Statistician 54; Bonett & Price (2012), Journal of Educational and Behavioral
    Statistics 37: intervals of differences of proportions with one success and one failure added.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import report
from .compare import FINISHED, METRICS, read_trials
from .provenance import makers
from .store import plain

CELL = ("problem", "case", "n_samples", "counts", "method", "options")
LEVEL = 0.95
FAILURES = "failures"
SECONDS = "seconds_run"


class Margin(NamedTuple):
    """The practical margin of a metric: smaller changes do not count."""

    value: float
    is_ratio: bool  # of the second run to the first, else a difference
    better: int = -1  # the sign of a change for the better


SMALLEST = 1e-12  # errors below are rounding
SHORTEST = 0.01  # seconds: a trial that takes less waits longer for a busy machine than it works
MARGINS = {
    **dict.fromkeys(("kl", "means_error", "covariances_error", "weights_error"), Margin(0.1, True)),
    "ari": Margin(0.02, False, better=1),
    SECONDS: Margin(1.0, True),  # twice as slow: below that is the machine's other work
    FAILURES: Margin(0.05, False),
}


def diff(
    before: Path,
    after: Path,
    *,
    metrics: Sequence[str] = tuple(MARGINS),
    margins: Mapping[str, float] | None = None,
    as_json: bool = False,
) -> int:
    """Compares two folders, prints what moved, and returns the exit code: 3 with a regression, else 0.

    Args:
        before, after: folders that compare or an experiment wrote.
        margins: metric -> practical margin in place of that of MARGINS.

    A regression is an interval that excludes 0 and an estimate beyond the practical margin, both for the worse.
    """
    limits = {metric: _margin(metric, margins or {}) for metric in dict.fromkeys([*metrics, *(margins or {})])}
    a, b = read_trials(Path(before)), read_trials(Path(after))
    cells_a, cells_b = _cells(a).keys(), _cells(b).keys()
    if not cells_a & cells_b:
        raise ValueError(f"{before} and {after} have no cell in common (same {', '.join(CELL)}): nothing to compare.")
    found = compare_rows(a, b, limits)
    alone = {"only before": len(cells_a - cells_b), "only after": len(cells_b - cells_a)}
    made = {"before": makers(a), "after": makers(b)}
    if as_json:
        print(json.dumps(plain({"comparisons": found, "cells": alone, "made by": made}), allow_nan=False))
    else:
        _print(found, alone, made)
    return 3 if any(record["verdict"] == "regression" for record in found) else 0


def compare_rows(a: Sequence[Mapping], b: Sequence[Mapping], limits: Mapping[str, Margin]) -> list[dict[str, Any]]:
    """A record for every cell that both have and every metric: estimates, interval, Holm's p, margin and verdict.

    Where scale is "ratio", before and after are geometric means, change is after/before and so are low and high. The
    verdict is "regression", "improvement", "same", or "too few" where fewer than two trials have the metric
    (or their time, those that ran together counting once).
    """
    before, after = _cells(a), _cells(b)
    both = [cell for cell in before if cell in after]
    found = [_compared(cell, before[cell], after[cell], *limit) for cell in both for limit in limits.items()]
    found = [record for record in found if record is not None]
    errors = ([record.pop(name) for record in found] for name in ("error", "dof"))
    numbers = holm_intervals([record["change"] for record in found], *errors)
    return [_judged(record, limits[record["metric"]], *each) for record, *each in zip(found, *numbers, strict=True)]


def holm_intervals(value, error, dof, level=LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(p, low, high): Holm-adjusted two-sided p-values, and intervals that exclude 0 exactly where p < 1 − level.

    value, error and dof are (m,). In the order of their p-values the i-th has level 1 − α/(m − i) as long as
    hypotheses are rejected, all others the level of the first that is not. NaN (nothing known) is not counted.
    """
    from scipy import stats

    value, error, dof = (np.asarray(leaf, float) for leaf in (value, error, dof))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(value == 0.0, 0.0 * error, np.abs(value) / error)
    raw = 2.0 * stats.t.sf(t, dof)
    order, m = np.argsort(raw, kind="stable"), int(np.isfinite(error).sum())  # NaN comes last
    left = np.maximum(m - np.arange(raw.size), 1)
    p, width = np.empty_like(raw), np.empty_like(raw)
    p[order] = np.maximum.accumulate(np.minimum(raw[order] * left, 1.0))
    rejected = np.cumprod(raw[order] * left < 1.0 - level).astype(bool)
    left = np.where(rejected, left, left[min(int(rejected.sum()), left.size - 1)] if left.size else 1)
    width[order] = stats.t.isf((1.0 - level) / (2.0 * left), dof[order]) * error[order]
    return p, value - width, value + width


# ---- one comparison


def _cells(rows) -> dict[tuple, dict[Any, Mapping]]:
    """cell -> seed -> row."""
    cells: dict[tuple, dict] = {}
    for row in rows:
        cell = tuple(_hashable(row.get(name)) for name in CELL)
        cells.setdefault(cell, {})[row["seed"]] = row
    return cells


def _hashable(value):
    """Options are text in the runner's rows and dicts in those that were read."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value


def _compared(cell, a, b, metric, margin) -> dict[str, Any] | None:
    """Means of both runs (of logarithms where ratios are compared) and the estimate of b − a with its error, NaN with
    too few trials; None where neither run has the metric.
    """
    x, y = (
        {seed: value for seed, row in run.items() if (value := _value(row, metric, margin)) is not None}
        for run in (a, b)
    )
    if not x and not y:
        return None
    shared = sorted(x.keys() & y.keys(), key=str)
    paired = len(shared) >= 2
    x, y = (np.array([run[seed] for seed in (shared if paired else run)], float) for run in (x, y))
    if metric == SECONDS and any((row.get("together") or 1) > 1 for run in (a, b) for row in run.values()):
        x, y, paired = np.unique(x), np.unique(y), False  # equal parts of one time
    before, after = (float(v.mean()) if v.size else np.nan for v in (x, y))
    n = min(x.size, y.size)
    change, error, dof = (after - before, np.nan, np.nan) if n < 2 else _estimate(x, y, paired, metric == FAILURES)
    head = dict(zip(CELL, cell, strict=True)) | {"metric": metric, "n": n, "paired": paired}
    return head | {"before": before, "after": after, "change": change, "error": error, "dof": dof}


def _estimate(x, y, paired, of_proportions):
    """(estimate, standard error, degrees of freedom) of the mean of y − x: Student's, Welch's without pairs.

    Of proportions the normal approximation with a success and a failure more (Bonett & Price; Agresti & Caffo without
    pairs): where all trials agree the error is still not 0.
    """
    if of_proportions:
        x, y = np.r_[x, 0.0, 1.0], np.r_[y, 1.0, 0.0]
    samples, ddof = [y - x] if paired else [x, y], 0 if of_proportions else 1
    parts = np.array([v.var(ddof=ddof) / v.size for v in samples])
    total = parts.sum()
    dof = total**2 / np.sum(parts**2 / [v.size - 1 for v in samples]) if total > 0.0 else 1.0
    return float(y.mean() - x.mean()), float(np.sqrt(total)), np.inf if of_proportions else float(dof)


def _value(row, metric, margin):
    """A number to average; kl is known no better than its Monte-Carlo error, and a time than to a hundredth second."""
    if metric == FAILURES:
        return float(row["status"] not in FINISHED)
    value = row.get(metric)
    if not isinstance(value, (int, float)) or not np.isfinite(value):
        return None
    least = SHORTEST if metric == SECONDS else max(row.get(f"{metric}_se") or 0.0, SMALLEST)
    return float(np.log(max(value, least))) if margin.is_ratio else float(value)


def _judged(record, margin, p, low, high):
    limit = np.log1p(margin.value) if margin.is_ratio else margin.value
    verdict = "too few" if np.isnan(p) else "same"
    if (low > 0.0 or high < 0.0) and abs(record["change"]) > limit:
        verdict = "improvement" if np.sign(record["change"]) == margin.better else "regression"
    record |= {"low": low, "high": high}
    if margin.is_ratio:
        record |= {name: np.exp(record[name]) for name in ("before", "after", "change", "low", "high")}
    scale = "ratio" if margin.is_ratio else "difference"
    return record | {"scale": scale, "p": p, "margin": margin.value, "verdict": verdict}


def _margin(metric, given):
    if metric not in MARGINS:
        raise ValueError(f"a metric must be one of {', '.join(MARGINS)}; got {metric!r}.")
    value = given.get(metric, MARGINS[metric].value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0.0:
        raise ValueError(f"the margin of {metric} must be a number that is not negative; got {value!r}.")
    return MARGINS[metric]._replace(value=float(value))


# ---- what people read


def _print(found, alone, made):
    console = report.console()
    moved = [record for record in found if record["verdict"] in ("regression", "improvement")]
    head = ("problem", "case", "n", "method", "options", "metric", "before", "after", "change", "p", "verdict")
    if moved:
        report.print_table(console, "", report.Table(head, tuple(map(_line, moved))))
    counts = Counter(record["verdict"] for record in found)
    shown = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("regression", "improvement", "same", "too few"))
    lines = [f"{len(found)} comparisons: {shown}.", f"Cells {', '.join(f'{w}: {n}' for w, n in alone.items())}."]
    lines += [f"{when.capitalize()}, {line}." for when, by in made.items() for line in by]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _line(record):
    name = record["metric"]
    form = "×{:.3g}" if record["scale"] == "ratio" else "{:+.3g}"
    change, low, high = (form.format(record[key]) for key in ("change", "low", "high"))
    names = (str(record[key]) for key in ("problem", "case", "n_samples", "method", "options"))
    before, after = (f"{record[key]:.3g}" for key in ("before", "after"))
    last = (METRICS.get(name, name), before, after, f"{change} [{low}, {high}]", f"{record['p']:.1e}")
    return (*names, *last, record["verdict"])
