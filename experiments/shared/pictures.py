"""Figures of studies, from rows alone: numbers against an axis, seconds against sizes, ranks of the truth."""

from types import MappingProxyType

import numpy as np

from gmm_jax.bench.plots.looks import COMPONENTS, GRID, MUTED, TRUTH, method_looks
from gmm_jax.bench.plots.style import legend_below, panels_of

from .ranks import uniform_band


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


def ratios(path, panels, axes, column, title, *, size, edges, reach=4.0):
    """A ratio at places of two log axes, a panel a title: blue below 1, red above, the area by `size`.

    Args:
        panels: title -> rows, dicts with the axes, the ratio in `column`, and `size`.
        axes: column -> label of the horizontal and the vertical axis.
        title: what the ratio is.
        edges: column -> where classes end, in dashes.
        reach: times and parts of 1 up to which colours differ.
    """
    from matplotlib.colors import LogNorm

    across, up = axes
    norm = LogNorm(1.0 / reach, reach)
    sizes = sorted({row[size] for rows in panels.values() for row in rows})
    with panels_of(path, len(panels), 3, 3.3, 3.2, extra=0.3, sharex=True, sharey=True) as (figure, drawn):
        for panel, (name, rows) in zip(drawn, panels.items(), strict=True):
            x, y, c, s = _columns(rows, across, up, column, size)
            look = {"cmap": "RdBu_r", "norm": norm, "edgecolors": MUTED, "linewidths": 0.5}
            discs = panel.scatter(x, y, s=_area(s), c=c, zorder=3, **look)
            for at in edges.get(across, ()):
                panel.axvline(at, color=GRID, linestyle="--", linewidth=0.9)
            for at in edges.get(up, ()):
                panel.axhline(at, color=GRID, linestyle="--", linewidth=0.9)
            panel.set(xscale="log", yscale="log", xlabel=axes[across], title=name)
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter("")
        drawn[0].set_ylabel(axes[up])
        bar = figure.colorbar(discs, ax=list(drawn), label=title, extend="both", pad=0.01)
        ticks = reach ** np.linspace(-1.0, 1.0, 5)
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()
        looks = {f"{size.removeprefix('n_')}: {n:g}": _disc(n) for n in sizes[:: max(len(sizes) - 1, 1)]}
        legend_below(figure, looks)


def _area(size):
    return 9.0 * np.asarray(size, float)


def _disc(size):
    about = {"marker": "o", "linestyle": "", "color": GRID, "markeredgecolor": MUTED}
    return about | {"markersize": float(np.sqrt(_area(size)))}


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
