"""Figures of many trials, from rows alone: recovery, seconds, ranks, and where starts end."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from .page import legend_below, open_page
from .pens import (
    DASHED,
    GRID,
    INK,
    MUTED,
    admissible_colour,
    draw_basins,
    draw_ranks,
    draw_trials,
    gap_text,
    method_looks,
)


def landscape(path, rows):
    """Where starts end: left how many in each optimum, highest first, right its narrowest component.

    Args:
        rows: of `bench.landscape.rows_of`; those without an optimum are counted in the title. The first 20 are shown
            on the left, all on the right, where an area is a share of the starts. Grey is inadmissible.
    """
    optima = [row for row in rows if row["optimum"] is not None]
    failed = sum(row["count"] for row in rows if row["optimum"] is None)
    shown = optima[:20]
    with open_page(path, 9.0, max(1.2 + 0.28 * len(shown), 2.8)) as page:
        left, right = page.subplots(1, 2, width_ratios=(3, 2))
        look = {"color": [admissible_colour(row) for row in shown], "edgecolor": MUTED, "linewidth": 0.5, "height": 0.7}
        bars = left.barh(np.arange(len(shown)), [row["count"] for row in shown], **look)
        texts = [f"{row['count']}  {row['reason'] or ''}" for row in shown]
        left.bar_label(bars, texts, padding=4, fontsize=8, color=INK)
        left.set_yticks(np.arange(len(shown)), [gap_text(-row["gap"]) for row in shown])
        left.invert_yaxis()
        left.margins(x=0.45)
        left.xaxis.get_major_locator().set_params(integer=True)
        left.set(xlabel="starts that ended there", ylabel="log-likelihood above the best, nats")
        if optima:
            draw_basins(right, optima)
        else:
            right.set_axis_off()
        found = "1 optimum" if len(optima) == 1 else f"{len(optima)} optima"
        hidden = f", the first {len(shown)} shown" if len(optima) > len(shown) else ""
        left.set_title(f"{found}{hidden}" + (f"; {failed} starts reached none" if failed else ""))


def recovery(path, rows, metric, problems, methods):
    """Each method on each problem: median and quartiles of a metric over seeds, on a log axis.

    Args:
        rows: dicts with problem, method, seed, status (a Status name) and the metric. Each trial is a faint dot, or a
            cross where its status is not ok; trials without a finite positive value are counted at the right margin.
    """
    looks = method_looks(methods)
    step = 0.8 / max(len(methods), 1)
    with open_page(path, 8.0, 1.2 + max(0.12 * len(methods) + 0.2, 0.34) * len(problems)) as page:
        panel = page.subplots()
        for i, problem in enumerate(problems):
            for j, method in enumerate(methods):
                trials = [r for r in rows if r.get("problem") == problem and r.get("method") == method]
                draw_trials(panel, trials, metric, i + (j - (len(methods) - 1) / 2) * step, *looks[method])
        for i in range(len(problems) - 1):
            panel.axhline(i + 0.5, color=GRID, linewidth=0.7)
        panel.set_xscale("log")
        panel.set_yticks(range(len(problems)), problems, color=INK)
        panel.set_ylim(len(problems) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x")
        panel.set_title(f"{metric.replace('_', ' ')}: median and quartiles over seeds; × doubtful, right: failed")
        legend_below(page, [(name, {"color": c, "marker": m, "markersize": 5}) for name, (c, m) in looks.items()])


def scaling(path, rows, axes, floor="floor"):
    """Seconds against n, d, K, ... on log axes, a panel an axis, with quartiles; the floor is black and dashed.

    Args:
        rows: dicts with axis, at, method, seconds, seconds_low, seconds_high and, where there is one, floor_seconds.
        axes: axis -> title of its panel.
    """
    looks = method_looks(dict.fromkeys(row["method"] for row in rows))
    n_columns = min(2, len(axes))
    n_rows = -(-len(axes) // n_columns)
    with open_page(path, 4.1 * n_columns, 2.9 * n_rows + 0.4) as page:
        panels = page.subplots(n_rows, n_columns, squeeze=False).ravel()
        for panel, (axis, title) in zip(panels, axes.items(), strict=False):
            shown = sorted((row for row in rows if row["axis"] == axis), key=lambda row: row["at"])
            for name, (colour, marker) in looks.items():
                at, middle, low, high = (
                    np.array([row[key] for row in shown if row["method"] == name], float)
                    for key in ("at", "seconds", "seconds_low", "seconds_high")
                )
                panel.plot(at, middle, color=colour, marker=marker, markersize=4)
                panel.vlines(at, low, high, color=colour, linewidth=1.0)
            limits = [(row["at"], row["floor_seconds"]) for row in shown if row.get("floor_seconds")]
            limits = dict(sorted(limits))  # at each place the largest, which is that of float64
            panel.plot(list(limits), list(limits.values()), color=INK, linestyle=DASHED, linewidth=1.0)
            panel.set(xscale="log", yscale="log", xlabel=axis, ylabel="seconds", title=title)
            panel.set_xticks(sorted({row["at"] for row in shown}), minor=False)
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter("")
            panel.grid()
        for panel in panels[len(axes) :]:
            panel.set_axis_off()
        entries = [(name, {"color": c, "marker": m, "markersize": 5}) for name, (c, m) in looks.items()]
        legend_below(page, [*entries, (floor, {"color": INK, "linestyle": DASHED})])


def curves(path, rows, axis, panels, *, expected=MappingProxyType({}), logarithmic=(), shares=()):
    """Numbers against an axis, a panel a number, a line a method, with 1.96 Monte-Carlo standard errors.

    Args:
        rows: dicts with the axis, method, and for each metric a number (or None: no point) and metric_se; where a
            method has several rows at one place of the axis, `line` tells its lines apart.
        panels: metric -> title.
        expected: metric -> what it should be, in black dashes.
        logarithmic: metrics on a log scale, and the axis if it is to be on one; else its places are the ticks.
        shares: metrics whose scale begins at 0.
    """
    looks = method_looks(dict.fromkeys(row["method"] for row in rows))
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with open_page(path, 3.1 * n_columns, 2.5 * n_rows + 0.4) as page:
        drawn = page.subplots(n_rows, n_columns, squeeze=False).ravel()
        for panel, (metric, title) in zip(drawn, panels.items(), strict=False):
            known = [row for row in rows if row.get(metric) is not None]
            for method, line in dict.fromkeys((row["method"], row.get("line")) for row in known):
                mine = [row for row in known if (row["method"], row.get("line")) == (method, line)]
                numbers = ([row.get(key) for row in mine] for key in (axis, metric, f"{metric}_se"))
                at, value, error = (np.array(each, float) for each in numbers)
                colour, marker = looks[method]
                look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.1, "elinewidth": 1.0}
                panel.errorbar(at, value, 1.96 * np.nan_to_num(error), **look)
            if metric in expected:
                panel.axhline(expected[metric], color=INK, linestyle=DASHED, linewidth=1.0)
            panel.set(xlabel=axis.replace("_", " "), title=title)
            panel.set_yscale("log" if metric in logarithmic else "linear")
            if metric in shares:
                panel.set_ylim(bottom=0.0)
            if axis in logarithmic:
                panel.set_xscale("log")
            else:
                panel.set_xticks(sorted({row[axis] for row in rows}))
            panel.grid()
        for panel in drawn[len(panels) :]:
            panel.set_axis_off()
        legend_below(page, [(name, {"color": c, "marker": m, "markersize": 5}) for name, (c, m) in looks.items()])


def calibration(path, rows, level):
    """Ranks of the truth among draws: S_i / N − i / (L + 1) of each quantity, within the band at `level`.

    Args:
        rows: dicts with quantity, simulations (N), draws (L) and counts_below: S_i = #{ranks < i}, i = 1, ..., L.
    """
    n_columns = min(5, len(rows))
    n_rows = -(-len(rows) // n_columns)
    with open_page(path, 2.3 * n_columns, 1.9 * n_rows + 0.2) as page:
        panels = page.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).ravel()
        for panel, row in zip(panels, rows, strict=False):
            draw_ranks(panel, row["counts_below"], row["simulations"], level)
            panel.set_title(row["quantity"], fontsize=8)
        for panel in panels[len(rows) :]:
            panel.set_axis_off()
        page.supxlabel("rank of the truth / number of draws", fontsize=9)
        page.supylabel("distribution − uniform", fontsize=9)
