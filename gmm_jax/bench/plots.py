"""Figures from data, mixtures and rows: the only place that knows Matplotlib.

A component N(μ, Σ) is drawn as the images μ + r·L·u of the unit sphere, Σ = L Lᵀ, at r = 1 and 2 standard deviations;
in one dimension as its density φ N(x | μ, Σ). Of more than three features the first two are shown, which is the exact
marginal. The truth is black and dashed, a component keeps its colour, a method keeps its colour and its marker.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np

from ..mixture import Known
from .parameters import parameters
from .pens import (
    COMPONENTS,
    DASHED,
    GRID,
    INK,
    MUTED,
    blend,
    colours_of,
    draw_clouds,
    draw_components,
    draw_data,
    draw_errors,
    draw_ranks,
    draw_trials,
    frame_steps,
    gap_text,
    iteration_title,
    method_looks,
    minus,
    one_of,
    seen,
    thin,
)
from .store import write_bytes_atomic

DPI = 110
MOST_BYTES = 120_000
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def data(path, x, labels=None):
    """The samples as they come and, where labels are given, beside them coloured by the component that made them."""
    x = seen(np.asarray(x))
    n_panels = 1 if labels is None else 2
    with _page(path, 4.2 * n_panels, 3.9) as page:
        panels = _panels(page, 1, n_panels, x.shape[1])
        draw_data(panels[0], x, np.full(x.shape[0], MUTED))
        panels[0].set_title(f"{x.shape[0]} samples")
        if labels is not None:
            labels = np.asarray(labels)
            draw_data(panels[1], x, labels=labels)
            panels[1].set_title("coloured by source")
            _name_components(panels[1], int(labels.max()) + 1)
        _finish(panels, x)


def em_iterations(path, x, iterates, log_likelihood=None, at=(0, 1, 2, 3, *range(20, 1000, 20))):
    """EM at work: samples coloured by responsibility, components at 1 and 2 sd, at chosen iterations and the last.

    Args:
        iterates: GMM with leading axis T; iterate 0 is the start.
        log_likelihood: (T,) the sum over samples, for the titles.
    """
    n_iterates = np.asarray(iterates.means).shape[0]
    shown = sorted({t for t in at if t < n_iterates - 1} | {n_iterates - 1})
    shown = [*shown[:7], shown[-1]] if len(shown) > 8 else shown
    n_columns = min(4, len(shown))
    n_rows = -(-len(shown) // n_columns)
    x = np.asarray(x)
    view = seen(x)
    with _page(path, 2.5 * n_columns, (2.1 if view.shape[1] == 3 else 2.55) * n_rows + 0.3) as page:
        panels = _panels(page, n_rows, n_columns, view.shape[1])
        for panel, t in zip(panels, shown, strict=False):
            gmm = one_of(iterates, t)
            draw_data(panel, view, blend(gmm, x), size=7)
            draw_components(panel, gmm, view)
            panel.set_title(iteration_title(t, log_likelihood))
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        _finish(panels[: len(shown)], view, bare=True)


def em_animation(path, x, iterates, log_likelihood, n_frames=24):
    """A GIF of at most n_frames: left what em_iterations shows, right the log-likelihood as it grows."""
    trace = np.asarray(log_likelihood, float)
    last = int(np.flatnonzero(np.isfinite(trace))[-1])
    steps = frame_steps(last, min(n_frames, 60))
    x = np.asarray(x)
    view = seen(x)
    frames = []
    with _page(None, 7.2, 3.4, dpi=90, layout=None) as page:
        left, right = _movie_panels(page, view, trace, last)
        gmm = one_of(iterates, last)
        drawn = [*draw_data(left, view, blend(gmm, x)), *draw_components(left, gmm, view)]  # sets the limits
        _finish([left], view, bare=True)
        curve = right.plot([], [], color=COMPONENTS[0])[0]
        point = right.plot([], [], "o", color=COMPONENTS[0], markersize=5)[0]
        for t in steps:
            for artist in drawn:
                artist.remove()
            gmm = one_of(iterates, t)
            drawn = [*draw_data(left, view, blend(gmm, x), size=7), *draw_components(left, gmm, view)]
            left.set_title(f"iteration {t}")
            right.set_title(minus(f"ℓ = {trace[t]:.2f}"))
            curve.set_data(np.arange(t + 1), trace[: t + 1])
            point.set_data([t], [trace[t]])
            page.canvas.draw()
            frames.append(np.asarray(page.canvas.buffer_rgba())[..., :3].copy())
    _write_gif(path, frames)


def log_likelihood(path, traces):
    """Left the log-likelihood against iterations, without the first two; right its gap to the end, in powers of ten.

    Args:
        traces: name -> (T,) sums over samples; a tail of NaN is left out.
    """
    with _page(path, 8.2, 3.3) as page:
        left, right = page.subplots(1, 2)
        many = len(traces) > len(COMPONENTS)
        for i, (name, trace) in enumerate(traces.items()):
            trace = np.asarray(trace, float)
            trace = trace[: np.flatnonzero(np.isfinite(trace))[-1] + 1]
            look = {"color": COMPONENTS[0], "alpha": 0.3, "linewidth": 0.8} if many else {"color": colours_of(i + 1)[i]}
            first = 2 if trace.size > 6 else 0
            left.plot(np.arange(first, trace.size), trace[first:], label=name, **look)
            gap = trace[-1] - trace
            seen = gap > 4.0 * np.finfo(float).eps * abs(trace[-1])  # below that it is rounding
            right.plot(np.flatnonzero(seen), gap[seen], label=name, **look)
        right.set_yscale("log")
        left.set(title="log-likelihood ℓ, from iteration 2 on", xlabel="iteration", ylabel="nats")
        right.set(title="what is missing to its end", xlabel="iteration", ylabel="nats")
        for panel in (left, right):
            panel.grid(axis="y")
            panel.margins(x=0.02)
        if not many and len(traces) > 1:
            left.legend(loc="lower right")


def recovered(path, x, labels, truth, fits):
    """One panel a method: its components at 1 and 2 sd (3-D: 1.5) over the data, and the truth's in black dashes.

    Args:
        labels: (N,) the components that made the samples, or None.
        truth: a GMM in whose order the fits stand, or None.
        fits: method -> GMM.
    """
    x = np.asarray(x)
    view = seen(x)
    n_columns = min(3, len(fits))
    n_rows = -(-len(fits) // n_columns)
    radii = (1.5,) if view.shape[1] == 3 else (1.0, 2.0)  # four shells in one box are too many
    with _page(path, max(3.0 * n_columns, 4.2), (2.5 if view.shape[1] == 3 else 3.0) * n_rows + 0.4) as page:
        panels = _panels(page, n_rows, n_columns, view.shape[1])
        for panel, (name, gmm) in zip(panels, fits.items(), strict=False):
            colours = np.full(view.shape[0], MUTED) if labels is None else None
            draw_data(panel, view, colours, labels=labels, size=6, alpha=0.3)
            if truth is not None:
                draw_components(panel, truth, view, colours=[INK] * truth.n_components, dashed=True, radii=radii)
            draw_components(panel, gmm, view, radii=radii)
            panel.set_title(name)
        for panel in panels[len(fits) :]:
            panel.set_axis_off()
        _finish(panels[: len(fits)], view, bare=n_rows * n_columns > 1)
        if truth is not None:
            _legend_below(page, [("truth", {"color": INK, "linestyle": DASHED}), ("method", {"color": COMPONENTS[0]})])


def parameter_errors(path, truth, fits, known=Known()):
    """Estimate − truth of every free number, with ±1.96 standard errors (or posterior sd) of each method.

    Args:
        fits: method -> (GMM, GMM of standard errors or None), in the truth's component order.
    """
    free = [entry for entry in parameters(truth, known) if not entry.known]
    fields = [f for f in ("weights", "means", "covariances") if any(entry.field == f for entry in free)]
    shown = {f: [entry for entry in free if entry.field == f] for f in fields}
    n_rows = min(max((len(entries) for entries in shown.values()), default=1), MOST_ROWS)
    with _page(path, 1.2 + 2.6 * max(len(fields), 1), 1.1 + 0.3 * n_rows) as page:
        panels = np.atleast_1d(page.subplots(1, max(len(fields), 1)))
        for panel, field in zip(panels, fields, strict=False):
            entries = shown[field][:MOST_ROWS]
            more = "" if len(entries) == len(shown[field]) else f", first {len(entries)} of {len(shown[field])}"
            draw_errors(panel, truth, fits, entries)
            panel.set_title(f"{FIELD_NAMES[field]}{more}")
            panel.set_xlabel("estimate − truth")
        if not fields:
            panels[0].set_axis_off()
            panels[0].text(0.5, 0.5, "everything is known", ha="center")
        looks = method_looks(fits)
        _legend_below(page, [(name, {"color": c, "marker": m, "markersize": 5}) for name, (c, m) in looks.items()])


MOST_ROWS = 30
FIELD_NAMES = {"weights": "weights φ", "means": "means μ", "covariances": "covariances Σ"}


def posterior_of_means(path, x, draws_by_method, truth=None):
    """Posterior draws of each μ_k, every method in one panel a component; the black cross is the truth.

    Args:
        draws_by_method: method -> GMM with leading (chains, draws), relabelled; at most 1000 draws are shown of each
            method, and the first MOST_CLOUDS components. Samples that lie so near are grey dots.
    """
    x = np.asarray(x)
    pairs = {1: [(0, None)], 3: [(0, 1), (0, 2), (1, 2)]}.get(x.shape[1], [(0, 1)])
    draws = {name: thin(gmm.means) for name, gmm in draws_by_method.items()}
    n_components = min(next(iter(draws.values())).shape[1], MOST_CLOUDS)
    n_rows, n_columns = (n_components, 3) if len(pairs) == 3 else (-(-n_components // 3), min(n_components, 3))
    looks = method_looks(draws)
    with _page(path, max(2.9 * n_columns, 4.2), 2.6 * n_rows + 0.4) as page:
        panels = page.subplots(n_rows, n_columns, squeeze=False).ravel()
        places = [(k, pair) for k in range(n_components) for pair in pairs]
        for panel, (k, pair) in zip(panels, places, strict=False):
            clouds = {name: means[:, k] for name, means in draws.items()}
            draw_clouds(panel, x, clouds, None if truth is None else np.asarray(truth.means)[k], pair, looks)
            panel.set_title(f"component {k + 1}")
        for panel in panels[len(places) :]:
            panel.set_axis_off()
        _legend_below(page, [(name, {"color": looks[name][0], "marker": "o", "linestyle": ""}) for name in draws])


MOST_CLOUDS = 9


def landscape(path, log_likelihood, count, spurious):
    """The distinct optima, best first: how many starts reached each, and how far below the best its likelihood lies.

    The gap is to the best optimum that is not spurious; a spurious one may lie above it. At most 20 are shown.
    """
    log_likelihood, count, spurious = np.asarray(log_likelihood, float), np.asarray(count), np.asarray(spurious, bool)
    order = np.argsort(-log_likelihood, kind="stable")[:20]
    real = log_likelihood[~spurious]
    best = real.max() if real.size else log_likelihood.max()
    with _page(path, 6.0, 1.1 + 0.3 * len(order)) as page:
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
    with _page(path, 8.0, 1.2 + max(0.12 * len(methods) + 0.2, 0.34) * len(problems)) as page:
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
        _legend_below(page, [(name, {"color": c, "marker": m, "markersize": 5}) for name, (c, m) in looks.items()])


def scaling(path, rows, axes, floor="floor"):
    """Seconds against n, d, K, ... on log axes, a panel an axis, with quartiles; the floor is black and dashed.

    Args:
        rows: dicts with axis, at, method, seconds, seconds_low, seconds_high and, where there is one, floor_seconds.
        axes: axis -> title of its panel.
    """
    looks = method_looks(dict.fromkeys(row["method"] for row in rows))
    n_columns = min(2, len(axes))
    n_rows = -(-len(axes) // n_columns)
    with _page(path, 4.1 * n_columns, 2.9 * n_rows + 0.4) as page:
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
        _legend_below(page, [*entries, (floor, {"color": INK, "linestyle": DASHED})])


def curves(path, rows, axis, panels, *, expected=MappingProxyType({}), logarithmic=()):
    """Numbers against an axis, a panel a number, a line a method, with 1.96 Monte-Carlo standard errors.

    Args:
        rows: dicts with the axis, method, and for each metric a number (or None: no point) and metric_se; where a
            method has several rows at one place of the axis, `line` tells its lines apart.
        panels: metric -> title.
        expected: metric -> what it should be, in black dashes.
        logarithmic: metrics on a log scale, and the axis if it is to be on one; else its places are the ticks.
    """
    looks = method_looks(dict.fromkeys(row["method"] for row in rows))
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with _page(path, 3.1 * n_columns, 2.5 * n_rows + 0.4) as page:
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
            if axis in logarithmic:
                panel.set_xscale("log")
            else:
                panel.set_xticks(sorted({row[axis] for row in rows}))
            panel.grid()
        for panel in drawn[len(panels) :]:
            panel.set_axis_off()
        _legend_below(page, [(name, {"color": c, "marker": m, "markersize": 5}) for name, (c, m) in looks.items()])


def calibration(path, rows, level):
    """Ranks of the truth among draws: S_i / N − i / (L + 1) of each quantity, within the band at `level`.

    Args:
        rows: dicts with quantity, simulations (N), draws (L) and counts_below: S_i = #{ranks < i}, i = 1, ..., L.
    """
    n_columns = min(5, len(rows))
    n_rows = -(-len(rows) // n_columns)
    with _page(path, 2.3 * n_columns, 1.9 * n_rows + 0.2) as page:
        panels = page.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).ravel()
        for panel, row in zip(panels, rows, strict=False):
            draw_ranks(panel, row["counts_below"], row["simulations"], level)
            panel.set_title(row["quantity"], fontsize=8)
        for panel in panels[len(rows) :]:
            panel.set_axis_off()
        page.supxlabel("rank of the truth / number of draws", fontsize=9)
        page.supylabel("distribution − uniform", fontsize=9)


# ---- pages and panels


@contextmanager
def _page(path, width, height, dpi=DPI, layout="constrained"):
    """A figure in our style that is written to path as a small PNG, at once or not at all; nowhere if path is None."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        page = Figure(figsize=(width, height), dpi=dpi, layout=layout)
        FigureCanvasAgg(page)
        yield page
        if path is not None:
            page.canvas.draw()
            write_bytes_atomic(path, _png(np.asarray(page.canvas.buffer_rgba())[..., :3]))


def _png(pixels):
    """PNG; of 256 colours where it would be large otherwise."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    content = _encoded(image)
    return content if len(content) < MOST_BYTES else _encoded(image.quantize(256, dither=Image.Dither.NONE))


def _encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG", dpi=(DPI, DPI), optimize=True)
    return file.getvalue()


def _write_gif(path, frames):
    from PIL import Image

    spread = Image.fromarray(np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]]))
    palette = spread.quantize(96)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[np.argmax(colours.sum(axis=1))] = 255  # white stays white
    palette.putpalette(colours.ravel().tolist())
    first, *others = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    file = io.BytesIO()
    durations = [150] * len(others) + [2500]
    first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)
    write_bytes_atomic(path, file.getvalue())


def _panels(page, n_rows, n_columns, n_features):
    keywords = {"projection": "3d"} if n_features == 3 else {}
    return page.subplots(n_rows, n_columns, squeeze=False, subplot_kw=keywords).ravel()


def _movie_panels(page, view, trace, last):
    """The two panels of the animation, with fixed limits and margins so that nothing jumps."""
    keywords = {"projection": "3d"} if view.shape[1] == 3 else {}
    left = page.add_axes((0.07, 0.05, 0.36, 0.83) if keywords else (0.05, 0.08, 0.44, 0.8), **keywords)
    right = page.add_axes((0.6, 0.15, 0.37, 0.73))
    seen = trace[min(2, last) : last + 1]
    room = 0.08 * max(np.ptp(seen), 1e-9)
    right.set(xlim=(-0.02 * last - 0.1, last * 1.03 + 0.1), ylim=(seen.min() - 3 * room, seen.max() + room))
    right.set(xlabel="iteration", ylabel="log-likelihood ℓ, nats")
    right.grid(axis="y")
    return left, right


def _finish(panels, x, *, bare=False):
    """The same limits everywhere, with the data well inside; `bare` leaves tick labels out of small panels."""
    low, high = x.min(axis=0), x.max(axis=0)
    room = (0.0 if x.shape[1] == 3 else 0.07) * np.where(high > low, high - low, 1.0) + np.where(high > low, 0.0, 0.5)
    top = max(panel.get_ylim()[1] for panel in panels) if x.shape[1] == 1 else 0.0
    for panel in panels:
        panel.set_xlim(low[0] - room[0], high[0] + room[0])
        if x.shape[1] == 1:
            panel.set_ylim(0.0, top)
            panel.set_yticks([])
            panel.spines["left"].set_visible(False)
            continue
        panel.set_ylim(low[1] - room[1], high[1] + room[1])
        if x.shape[1] == 3:
            panel.set_zlim(low[2] - room[2], high[2] + room[2])
            _calm_box(panel, x, bare)
        elif bare:
            panel.tick_params(labelsize=7)
    if x.shape[1] == 2 and not bare:
        panels[0].set(xlabel="feature 1", ylabel="feature 2")


def _calm_box(panel, x, bare):
    """A quiet 3-D box, seen across the direction in which the data spread most."""
    spread = np.linalg.eigh(np.cov((x / np.ptp(x, axis=0).clip(1e-300)).T))[1][:, -1]
    across = np.degrees(np.arctan2(spread[1], spread[0])) - 90.0
    off_axis = (across + 45.0) % 90.0 - 45.0  # face on, a box looks flat
    panel.view_init(elev=16, azim=across + (np.copysign(20.0, off_axis) - off_axis if abs(off_axis) < 20.0 else 0.0))
    panel.set_box_aspect(None, zoom=1.45 if bare else 0.92)
    for i, axis in enumerate((panel.xaxis, panel.yaxis, panel.zaxis)):
        axis.set_pane_color((0.97, 0.97, 0.97, 1.0))
        axis._axinfo["grid"].update(color=GRID, linewidth=0.6)
        axis.set_major_locator(_few_ticks())
        if bare:
            axis.set_ticklabels([])
        else:
            (panel.set_xlabel, panel.set_ylabel, panel.set_zlabel)[i](f"feature {i + 1}")


def _few_ticks():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _legend_below(page, entries):
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **look) for name, look in entries]
    page.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8))


def _name_components(panel, n_components):
    from matplotlib.lines import Line2D

    if n_components > len(COMPONENTS):
        return
    handles = [
        Line2D([], [], color=c, marker="o", linestyle="", markersize=4, label=f"{k + 1}")
        for k, c in enumerate(colours_of(n_components))
    ]
    panel.legend(handles=handles, title="component", title_fontsize=8, loc="best", handletextpad=0.2)
