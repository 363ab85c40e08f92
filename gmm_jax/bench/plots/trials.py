"""Figures of many trials, from rows alone: recovery, numbers against a size, ranks, and where starts end."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from ...judge.calibration import uniform_band
from .primitives import COMPONENTS, GRID, INK, MUTED, TRUTH, draw_trials, method_looks, minus
from .style import legend_below, open_figure, panels_of

SHOWN = 20  # optima


def landscape(path, rows):
    """Where starts end: left how many in each optimum, highest first, right its smallest relative variance.

    Args:
        rows: of `landscape.rows_of`; those without an optimum are counted in the title. The first 20 are shown
            on the left, all on the right, where an area is a fraction of the starts. Grey is spurious.
    """
    optima = [row for row in rows if row["optimum"] is not None]
    failed = sum(row["count"] for row in rows if row["optimum"] is None)
    shown = optima[:SHOWN]
    colours = [GRID if row["spurious"] else COMPONENTS[0] for row in optima]
    with open_figure(path, 9.0, max(1.2 + 0.28 * len(shown), 2.8)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        look = {"color": colours[:SHOWN], "edgecolor": MUTED, "linewidth": 0.5, "height": 0.7}
        bars = left.barh(np.arange(len(shown)), [row["count"] for row in shown], **look)
        texts = [f"{row['count']}  {row['reason'] or ''}" for row in shown]
        left.bar_label(bars, texts, padding=4, fontsize=8, color=INK)
        gaps = [minus(f"{-row['gap']:+.3g}") if row["gap"] else "best" for row in shown]
        left.set_yticks(np.arange(len(shown)), gaps)
        left.invert_yaxis()
        left.margins(x=0.45)
        left.xaxis.get_major_locator().set_params(integer=True)
        left.set(xlabel="starts that ended there", ylabel="log-likelihood − best, nats")
        found = "1 optimum" if len(optima) == 1 else f"{len(optima)} optima"
        hidden = f", the first {len(shown)} shown" if len(optima) > len(shown) else ""
        left.set_title(f"{found}{hidden}" + (f"; {failed} starts reached none" if failed else ""))
        if not optima:
            right.set_axis_off()
            return
        variance, samples, share = (
            np.array([row[key] for row in optima]) for key in ("smallest_eigenvalue", "narrow_count", "share")
        )
        look = {"c": colours, "edgecolors": MUTED, "linewidths": 0.6, "alpha": 0.8}
        right.scatter(np.clip(variance, 1e-16, 1e16), samples, s=10.0 + 500.0 * share, **look)
        right.set(xscale="log", yscale="log", xlabel="smallest relative variance", ylabel="samples in that component")
        right.margins(0.15)
        right.yaxis.get_major_locator().set_params(subs=(1.0, 2.0, 5.0))
        right.yaxis.set_major_formatter("{x:g}")
        right.xaxis.set_minor_formatter("")
        right.yaxis.set_minor_formatter("")
        right.grid()


def recovery(path, rows, metric, problems, methods):
    """Each method on each problem: median and quartiles of a metric over seeds, on a log axis.

    Args:
        rows: dicts with problem, method, seed, status (a Status name) and the metric. Each trial is a faint dot, or a
            cross where its status is not ok; trials without a finite positive value are counted at the right margin.
    """
    looks = method_looks(methods)
    with open_figure(path, 8.0, 1.2 + max(0.12 * len(methods) + 0.2, 0.34) * len(problems)) as figure:
        panel = figure.subplots()
        for i, problem in enumerate(problems):
            for j, method in enumerate(methods):
                trials = [r for r in rows if r.get("problem") == problem and r.get("method") == method]
                draw_trials(panel, trials, metric, i + 0.8 * (j - (len(methods) - 1) / 2) / len(methods), looks[method])
            if i:
                panel.axhline(i - 0.5, color=GRID, linewidth=0.7)
        panel.set_xscale("log")
        panel.set_yticks(range(len(problems)), problems, color=INK)
        panel.set_ylim(len(problems) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x")
        name = metric.replace("_", " ")
        panel.set_title(f"{name}: median and quartiles over seeds; × not converged or unmixed, right: without a value")
        legend_below(figure, looks)


def scaling(path, rows, axes, floor="floor"):
    """Seconds against n, d, K, ... on log axes, a panel an axis, with quartiles; the floor is black and dashed.

    Args:
        rows: dicts with axis, at, method, seconds, seconds_low, seconds_high and, where there is one, floor_seconds.
        axes: axis -> title of its panel.
    """
    looks = method_looks(dict.fromkeys(row["method"] for row in rows))
    with panels_of(path, len(axes), 2, 4.1, 2.9) as (figure, panels):
        for panel, (axis, title) in zip(panels, axes.items(), strict=True):
            shown = sorted((row for row in rows if row["axis"] == axis), key=lambda row: row["at"])
            for name, look in looks.items():
                mine = [row for row in shown if row["method"] == name]
                at, middle, low, high = _columns(mine, "at", "seconds", "seconds_low", "seconds_high")
                panel.errorbar(at, middle, (middle - low, high - middle), markersize=4, elinewidth=1.0, **look)
            floors = sorted((row["at"], row["floor_seconds"]) for row in shown if row.get("floor_seconds"))
            floors = dict(floors)  # at each place the largest, which is that of float64
            panel.plot(list(floors), list(floors.values()), linewidth=1.0, **TRUTH)
            panel.set(xscale="log", yscale="log", xlabel=axis, ylabel="seconds", title=title)
            panel.set_xticks(sorted({row["at"] for row in shown}), minor=False)
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter("")
            panel.grid()
        legend_below(figure, looks | {floor: TRUTH})


def curves(path, rows, axis, panels, *, expected=MappingProxyType({}), logarithmic=(), from_zero=()):
    """Numbers against an axis, a panel a number, a line a method, with 1.96 Monte-Carlo standard errors.

    Args:
        rows: dicts with the axis, method, and for each metric a number (or None: no point) and metric_se; where a
            method has several rows at one place of the axis, `line` tells its lines apart.
        panels: metric -> title.
        expected: metric -> what it should be, in black dashes.
        logarithmic: metrics on a log scale, and the axis if it is to be on one; else its places are the ticks.
        from_zero: metrics whose scale begins at 0.
    """
    looks = method_looks(dict.fromkeys(row["method"] for row in rows))
    with panels_of(path, len(panels), 3, 3.1, 2.5) as (figure, drawn):
        for panel, (metric, title) in zip(drawn, panels.items(), strict=True):
            lines = {}
            for row in rows:
                if row.get(metric) is not None:
                    lines.setdefault((row["method"], row.get("line")), []).append(row)
            for (method, _), mine in lines.items():
                at, value, error = _columns(mine, axis, metric, f"{metric}_se")
                look = {"markersize": 4, "linewidth": 1.1, "elinewidth": 1.0} | looks[method]
                panel.errorbar(at, value, 1.96 * np.nan_to_num(error), **look)
            if metric in expected:
                panel.axhline(expected[metric], linewidth=1.0, **TRUTH)
            panel.set(xlabel=axis.replace("_", " "), title=title)
            panel.set_yscale("log" if metric in logarithmic else "linear")
            if metric in from_zero:
                panel.set_ylim(bottom=0.0)
            if axis in logarithmic:
                panel.set_xscale("log")
            else:
                panel.set_xticks(sorted({row[axis] for row in rows}))
            panel.grid()
        legend_below(figure, looks)


def _columns(rows, *names):
    return [np.array([row.get(name) for row in rows], float) for name in names]


def calibration(path, rows, level):
    """Ranks of the truth among draws: S_i / N − i / (L + 1) of each quantity, within the band at `level`.

    Args:
        rows: dicts with quantity, simulations (N), draws (L) and counts_below: S_i = #{ranks < i}, i = 1, ..., L.
    """
    with panels_of(path, len(rows), 5, 2.3, 1.9, extra=0.2, sharex=True, sharey=True) as (figure, panels):
        for panel, row in zip(panels, rows, strict=True):
            n, counts = row["simulations"], np.asarray(row["counts_below"])
            at = np.arange(1, counts.size + 1) / (counts.size + 1)
            low, high = uniform_band(n, counts.size, level)
            panel.fill_between(at, low / n - at, high / n - at, color=GRID, step="mid", linewidth=0)
            panel.axhline(0.0, color=MUTED, linewidth=0.7)
            colour = COMPONENTS[1] if np.any((counts < low) | (counts > high)) else COMPONENTS[0]
            panel.step(at, counts / n - at, color=colour, where="mid", linewidth=1.2)
            panel.set_title(row["quantity"], fontsize=8)
        figure.supxlabel("rank of the truth / number of draws", fontsize=9)
        figure.supylabel("distribution − uniform", fontsize=9)
