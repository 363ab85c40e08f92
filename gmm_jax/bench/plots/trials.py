"""Figures of many trials, from rows alone: recovery by every method, and where starts end."""

import numpy as np

from .looks import COMPONENTS, GRID, INK, MUTED, method_looks
from .primitives import draw_trials, minus
from .style import legend_below, open_figure

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
    """Each method on each problem and case: median and quartiles of a metric over seeds, on a log axis.

    Args:
        rows: dicts with problem, case, method, seed, status (a Status name) and the metric. Each trial is a faint dot,
            or a cross where its status is not ok; trials without a finite positive value are counted at the right.
    """
    looks = method_looks(methods)
    cases = {p: dict.fromkeys(r.get("case") for r in rows if r.get("problem") == p) or [None] for p in problems}
    places = {p if len(cases[p]) == 1 else f"{p}, {case}": (p, case) for p in problems for case in cases[p]}
    with open_figure(path, 8.0, 1.2 + max(0.12 * len(methods) + 0.2, 0.34) * len(places)) as figure:
        panel = figure.subplots()
        for i, place in enumerate(places.values()):
            for j, method in enumerate(methods):
                trials = [r for r in rows if (r.get("problem"), r.get("case"), r.get("method")) == (*place, method)]
                draw_trials(panel, trials, metric, i + 0.8 * (j - (len(methods) - 1) / 2) / len(methods), looks[method])
            if i:
                panel.axhline(i - 0.5, color=GRID, linewidth=0.7)
        panel.set_xscale("log")
        panel.set_yticks(range(len(places)), places, color=INK)
        panel.set_ylim(len(places) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x")
        seeds = len({row.get("seed") for row in rows})
        over = "one seed" if seeds == 1 else f"median and quartiles over {seeds} seeds"
        panel.set_title(f"{metric.replace('_', ' ')}: {over}\n× not converged or unmixed, right: without a value")
        legend_below(figure, looks)
