"""Figures of many trials, from rows alone: recovery, seconds, ranks, and where starts end."""

from __future__ import annotations

import numpy as np

from .page import legend_below, open_page
from .pens import COMPONENTS, DASHED, GRID, INK, MUTED, draw_ranks, draw_trials, gap_text, method_looks


def landscape(path, log_likelihood, count, spurious):
    """The distinct optima, best first: how many starts reached each, and how far below the best its likelihood lies.

    The gap is to the best optimum that is not spurious; a spurious one may lie above it. At most 20 are shown.
    """
    log_likelihood, count, spurious = np.asarray(log_likelihood, float), np.asarray(count), np.asarray(spurious, bool)
    order = np.argsort(-log_likelihood, kind="stable")[:20]
    real = log_likelihood[~spurious]
    best = real.max() if real.size else log_likelihood.max()
    with open_page(path, 6.0, 1.1 + 0.3 * len(order)) as page:
        panel = page.subplots()
        colours = [GRID if spurious[i] else COMPONENTS[0] for i in order]
        look = {"color": colours, "edgecolor": MUTED, "linewidth": 0.5, "height": 0.7}
        bars = panel.barh(np.arange(len(order)), count[order], **look)
        texts = [f"{count[i]}{'  spurious' if spurious[i] else ''}" for i in order]
        panel.bar_label(bars, texts, padding=4, fontsize=8, color=INK)
        panel.set_yticks(np.arange(len(order)), [gap_text(log_likelihood[i] - best) for i in order])
        panel.invert_yaxis()
        panel.margins(x=0.15)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set(xlabel="starts that ended there", ylabel="gap to the best, nats")
        hidden = len(log_likelihood) - len(order)
        panel.set_title(f"{len(log_likelihood)} distinct optima" + (f", the best {len(order)} shown" if hidden else ""))


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
            panel.grid()
        for panel in panels[len(axes) :]:
            panel.set_axis_off()
        entries = [(name, {"color": c, "marker": m, "markersize": 5}) for name, (c, m) in looks.items()]
        legend_below(page, [*entries, (floor, {"color": INK, "linestyle": DASHED})])


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
