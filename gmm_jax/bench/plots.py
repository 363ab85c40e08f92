"""Figures from data, mixtures and rows: the only place that knows Matplotlib.

A component N(μ, Σ) is drawn as the images μ + r·L·u of the unit sphere, Σ = L Lᵀ, at r = 1 and 2 standard deviations;
in one dimension as its density φ N(x | μ, Σ). Of more than three features the first two are shown, which is the exact
marginal. The truth is black and dashed, a component keeps its colour, a method keeps its colour and its marker.
"""

from __future__ import annotations

import io
from contextlib import contextmanager

import numpy as np

from ..mixture import GMM, Known, Status, log_prob, responsibilities, structure
from .parameters import parameters
from .store import write_bytes_atomic

DPI = 110
MOST_BYTES = 120_000
INK, MUTED, GRID = "#222222", "#6f6f6f", "#e4e4e4"
DASHED = (0, (4, 2))
COMPONENTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#555555")  # Okabe & Ito
METHODS = {  # Tol's muted scheme, which is safe for colour-blind readers too
    "em": ("#332288", "o"),
    "nuts": ("#cc6677", "s"),
    "gibbs": ("#117733", "^"),
    "svi": ("#999933", "D"),
    "oracle": ("#777777", "P"),
}
OTHER_METHODS = (("#44aa99", "v"), ("#aa4499", "X"), ("#88ccee", "<"), ("#882255", ">"), ("#ddcc77", "p"))
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
    x = _seen(np.asarray(x))
    n_panels = 1 if labels is None else 2
    with _page(path, 4.2 * n_panels, 3.9) as page:
        panels = _panels(page, 1, n_panels, x.shape[1])
        _draw_data(panels[0], x, np.full(x.shape[0], MUTED))
        panels[0].set_title(f"{x.shape[0]} samples")
        if labels is not None:
            labels = np.asarray(labels)
            _draw_data(panels[1], x, labels=labels)
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
    view = _seen(x)
    with _page(path, 2.5 * n_columns, (2.1 if view.shape[1] == 3 else 2.55) * n_rows + 0.3) as page:
        panels = _panels(page, n_rows, n_columns, view.shape[1])
        for panel, t in zip(panels, shown, strict=False):
            gmm = _at(iterates, t)
            _draw_data(panel, view, _blend(gmm, x), size=7)
            _draw_components(panel, gmm, view)
            panel.set_title(_iteration_title(t, log_likelihood))
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        _finish(panels[: len(shown)], view, bare=True)


def em_animation(path, x, iterates, log_likelihood, n_frames=24):
    """A GIF of at most n_frames: left what em_iterations shows, right the log-likelihood as it grows."""
    trace = np.asarray(log_likelihood, float)
    last = int(np.flatnonzero(np.isfinite(trace))[-1])
    steps = _frame_steps(last, min(n_frames, 60))
    x = np.asarray(x)
    view = _seen(x)
    frames = []
    with _page(None, 7.2, 3.4, dpi=90, layout=None) as page:
        left, right = _movie_panels(page, view, trace, last)
        gmm = _at(iterates, last)
        drawn = [*_draw_data(left, view, _blend(gmm, x)), *_draw_components(left, gmm, view)]  # sets the limits
        _finish([left], view, bare=True)
        curve = right.plot([], [], color=COMPONENTS[0])[0]
        point = right.plot([], [], "o", color=COMPONENTS[0], markersize=5)[0]
        for t in steps:
            for artist in drawn:
                artist.remove()
            gmm = _at(iterates, t)
            drawn = [*_draw_data(left, view, _blend(gmm, x), size=7), *_draw_components(left, gmm, view)]
            left.set_title(f"iteration {t}")
            right.set_title(_minus(f"ℓ = {trace[t]:.2f}"))
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
            look = {"color": COMPONENTS[0], "alpha": 0.3, "linewidth": 0.8} if many else {"color": _colours(i + 1)[i]}
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
    view = _seen(x)
    n_columns = min(3, len(fits))
    n_rows = -(-len(fits) // n_columns)
    radii = (1.5,) if view.shape[1] == 3 else (1.0, 2.0)  # four shells in one box are too many
    with _page(path, max(3.0 * n_columns, 4.2), (2.5 if view.shape[1] == 3 else 3.0) * n_rows + 0.4) as page:
        panels = _panels(page, n_rows, n_columns, view.shape[1])
        for panel, (name, gmm) in zip(panels, fits.items(), strict=False):
            colours = np.full(view.shape[0], MUTED) if labels is None else None
            _draw_data(panel, view, colours, labels=labels, size=6, alpha=0.3)
            if truth is not None:
                _draw_components(panel, truth, view, colours=[INK] * truth.n_components, dashed=True, radii=radii)
            _draw_components(panel, gmm, view, radii=radii)
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
            _draw_errors(panel, truth, fits, entries)
            panel.set_title(f"{FIELD_NAMES[field]}{more}")
            panel.set_xlabel("estimate − truth")
        if not fields:
            panels[0].set_axis_off()
            panels[0].text(0.5, 0.5, "everything is known", ha="center")
        looks = _method_looks(fits)
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
    draws = {name: _thin(gmm.means) for name, gmm in draws_by_method.items()}
    n_components = min(next(iter(draws.values())).shape[1], MOST_CLOUDS)
    n_rows, n_columns = (n_components, 3) if len(pairs) == 3 else (-(-n_components // 3), min(n_components, 3))
    looks = _method_looks(draws)
    with _page(path, max(2.9 * n_columns, 4.2), 2.6 * n_rows + 0.4) as page:
        panels = page.subplots(n_rows, n_columns, squeeze=False).ravel()
        places = [(k, pair) for k in range(n_components) for pair in pairs]
        for panel, (k, pair) in zip(panels, places, strict=False):
            clouds = {name: means[:, k] for name, means in draws.items()}
            _draw_clouds(panel, x, clouds, None if truth is None else np.asarray(truth.means)[k], pair, looks)
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
        panel.set_yticks(np.arange(len(order)), [_gap_text(log_likelihood[i] - best) for i in order])
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
    looks = _method_looks(methods)
    step = 0.8 / max(len(methods), 1)
    with _page(path, 8.0, 1.2 + max(0.12 * len(methods) + 0.2, 0.34) * len(problems)) as page:
        panel = page.subplots()
        for i, problem in enumerate(problems):
            for j, method in enumerate(methods):
                trials = [r for r in rows if r.get("problem") == problem and r.get("method") == method]
                _draw_trials(panel, trials, metric, i + (j - (len(methods) - 1) / 2) * step, *looks[method])
        for i in range(len(problems) - 1):
            panel.axhline(i + 0.5, color=GRID, linewidth=0.7)
        panel.set_xscale("log")
        panel.set_yticks(range(len(problems)), problems, color=INK)
        panel.set_ylim(len(problems) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x")
        panel.set_title(f"{metric.replace('_', ' ')}: median and quartiles over seeds; × doubtful, right: failed")
        _legend_below(page, [(name, {"color": c, "marker": m, "markersize": 5}) for name, (c, m) in looks.items()])


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
        for k, c in enumerate(_colours(n_components))
    ]
    panel.legend(handles=handles, title="component", title_fontsize=8, loc="best", handletextpad=0.2)


# ---- what is drawn on a panel


def _draw_data(panel, x, colours=None, *, labels=None, size=9, alpha=0.65):
    """Samples as dots; in one dimension a histogram a label, and dots along its foot. Returns the artists."""
    if colours is None:
        colours = np.array(_colours(int(np.max(labels)) + 1))[np.asarray(labels)]
    if x.shape[1] > 1:
        look = {"depthshade": False} if x.shape[1] == 3 else {}
        return [panel.scatter(*x.T, s=size, c=colours, alpha=alpha, linewidths=0, **look)]
    edges = np.histogram_bin_edges(x[:, 0], bins=min(60, max(10, int(1.5 * x.shape[0] ** 0.5))))
    heights = np.histogram(x[:, 0], edges, density=True)[0]
    bars = panel.stairs(heights, edges, fill=True, color=GRID)
    height = np.full(x.shape[0], 0.015 * heights.max())
    foot = panel.scatter(x[:, 0], height, s=10, c=colours, marker="|", linewidths=0.8)
    return [bars, foot]


def _draw_components(panel, gmm, x, *, colours=None, dashed=False, radii=(1.0, 2.0)):
    """Components at 1 and 2 sd in two and three dimensions, weighted densities in one. Returns the artists."""
    colours = _colours(gmm.n_components) if colours is None else colours
    means, covariances = _marginal(gmm, x.shape[1])
    if x.shape[1] == 1:
        return _draw_densities(panel, gmm, x, colours, dashed)
    artists = []
    for mean, covariance, colour in zip(means, covariances, colours, strict=True):
        root = _root(covariance)
        for radius in radii:
            width = (0.9 if radius == 2.0 else 1.6) * (0.75 if x.shape[1] == 3 else 1.0)
            look = {"color": colour, "linewidth": width, "linestyle": DASHED if dashed else "-"}
            if x.shape[1] == 3 and radius == 2.0:
                look["alpha"] = 0.45
            for circle in _sphere(x.shape[1], sparse=radius == 2.0):
                artists += panel.plot(*(mean[:, None] + radius * root @ circle), **look)
    artists += panel.plot(*means.T, "+", color=INK, markersize=6, markeredgewidth=1.1)
    return artists


def _draw_densities(panel, gmm, x, colours, dashed):
    room = 0.07 * max(np.ptp(x), 1e-300)
    at = np.linspace(x.min() - room, x.max() + room, 300)
    means, covariances = _marginal(gmm, 1)
    sd = np.sqrt(covariances[:, 0])
    z = (at[None, :] - means) / sd
    densities = np.asarray(gmm.weights)[:, None] * np.exp(-0.5 * z**2) / (sd * np.sqrt(2.0 * np.pi))
    style = DASHED if dashed else "-"
    artists = [panel.plot(at, y, color=c, linestyle=style)[0] for y, c in zip(densities, colours, strict=True)]
    total = np.exp(np.asarray(log_prob(gmm, at[:, None].astype(np.asarray(gmm.means).dtype))))
    return artists + panel.plot(at, total, color=INK, linewidth=0.9, linestyle=style)


def _draw_errors(panel, truth, fits, entries):
    looks = _method_looks(fits)
    step = 0.7 / max(len(fits), 1)
    for j, (name, (point, errors)) in enumerate(fits.items()):
        y = np.arange(len(entries)) + (j - (len(fits) - 1) / 2) * step
        gap = np.array([entry.value(point) - entry.value(truth) for entry in entries])
        colour, marker = looks[name]
        panel.plot(gap, y, marker, color=colour, markersize=4)
        if errors is not None:
            reach = 1.96 * np.array([entry.value(errors) for entry in entries])
            panel.hlines(y, gap - reach, gap + reach, color=colour, linewidth=1.1)
    panel.axvline(0.0, color=INK, linewidth=0.9, linestyle=DASHED)
    panel.set_yticks(np.arange(len(entries)), [entry.label for entry in entries], color=INK, fontsize=9)
    panel.set_ylim(len(entries) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x")
    panel.xaxis.set_major_locator(_few_ticks())


def _draw_clouds(panel, x, clouds, truth, pair, looks):
    """(S, D) draws of one mean by each method, features `pair`; a curve of their density in one dimension."""
    first, second = pair
    panel.set_xlabel(f"μ, feature {first + 1}")
    if second is None:
        edges = np.histogram_bin_edges(np.concatenate([c[:, first] for c in clouds.values()]), bins=30)
        for name, cloud in clouds.items():
            heights = np.histogram(cloud[:, first], edges, density=True)[0]
            panel.stairs(heights, edges, color=looks[name][0], linewidth=1.4)
        if truth is not None:
            panel.axvline(truth[first], color=INK, linewidth=1.2, linestyle=DASHED)
        panel.set_yticks([])
        panel.set_ylabel("posterior density")
        return
    for name, cloud in clouds.items():
        panel.plot(cloud[:, first], cloud[:, second], ".", color=looks[name][0], markersize=3, alpha=0.35, mew=0)
    if truth is not None:
        panel.plot(truth[first], truth[second], "+", color="white", markersize=13, markeredgewidth=3.6, zorder=5)
        panel.plot(truth[first], truth[second], "+", color=INK, markersize=12, markeredgewidth=1.8, zorder=6)
    limits = panel.get_xlim(), panel.get_ylim()
    panel.plot(x[:, first], x[:, second], ".", color=MUTED, markersize=3, alpha=0.3, mew=0, zorder=0)
    panel.set(xlim=limits[0], ylim=limits[1], ylabel=f"μ, feature {second + 1}")
    panel.grid()


def _draw_trials(panel, trials, metric, y, colour, marker):
    values = np.array([np.nan if r.get(metric) is None else float(r[metric]) for r in trials])
    seen = np.isfinite(values) & (values > 0.0)
    doubtful = np.array([r.get("status") in Status.__members__ and not Status[r["status"]].ok for r in trials], bool)
    for which, mark, alpha in ((seen & ~doubtful, ".", 0.35), (seen & doubtful, "x", 1.0)):
        panel.plot(values[which], np.full(which.sum(), y), mark, color=colour, alpha=alpha, markersize=4)
    if seen.any():
        low, middle, high = np.quantile(values[seen], (0.25, 0.5, 0.75))
        panel.hlines(y, low, high, color=colour, linewidth=1.6)
        panel.plot(middle, y, marker, color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.5)
    n_failed = int(np.sum(~seen))
    if n_failed:
        place = {"transform": panel.get_yaxis_transform(), "va": "center", "fontsize": 7, "color": colour}
        panel.text(1.01, y, f"{n_failed} ×", **place)


# ---- numbers for the pen


def _seen(x):
    return x if x.shape[1] <= 3 else x[:, :2]


def _marginal(gmm, n_seen):
    """(K, n) means and (K, n, n) covariances of the features that are seen."""
    means = np.asarray(gmm.means, float)
    matrices = np.asarray(structure(gmm.covariance_type).dense(gmm.covariances, *means.shape), float)
    return means[:, :n_seen], matrices[:, :n_seen, :n_seen]


def _root(covariance):
    """A with A Aᵀ = Σ, also for a singular Σ."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _sphere(n_features, sparse):
    """The unit circle, or a few circles of the unit sphere: (n, points) each."""
    angle = np.linspace(0.0, 2.0 * np.pi, 61)
    if n_features == 2:
        return [np.stack([np.cos(angle), np.sin(angle)])]
    heights = (0.0,) if sparse else (-0.6, 0.0, 0.6)
    parallels = [
        np.stack([np.sqrt(1 - h * h) * np.cos(angle), np.sqrt(1 - h * h) * np.sin(angle), np.full(angle.size, h)])
        for h in heights
    ]
    longitudes = np.arange(2 if sparse else 4) * np.pi / (2 if sparse else 4)
    meridians = [np.stack([np.cos(angle) * np.cos(a), np.cos(angle) * np.sin(a), np.sin(angle)]) for a in longitudes]
    return parallels + meridians


def _colours(n):
    """n component colours; beyond the palette, hues by the golden ratio."""
    from matplotlib.colors import hsv_to_rgb, to_hex

    more = [to_hex(hsv_to_rgb(((0.13 + 0.618034 * i) % 1.0, 0.65, 0.75))) for i in range(n - len(COMPONENTS))]
    return [*COMPONENTS[:n], *more]


def _blend(gmm, x):
    """(N, 3): the component colours mixed by responsibility."""
    from matplotlib.colors import to_rgb

    r = np.asarray(responsibilities(gmm, x.astype(np.asarray(gmm.means).dtype)))
    mixed = np.nan_to_num(r) @ np.array([to_rgb(c) for c in _colours(gmm.n_components)])
    return np.clip(mixed, 0.0, 1.0)


def _method_looks(names):
    """name -> (colour, marker), the same in every figure for the methods that ship."""
    others = iter(OTHER_METHODS * 10)
    return {name: METHODS.get(name) or next(others) for name in names}


def _at(gmm, t):
    leaves = (np.asarray(leaf)[t] for leaf in (gmm.weights, gmm.means, gmm.covariances))
    return GMM(*leaves, covariance_type=gmm.covariance_type)


def _thin(means, most=1000):
    """(C, S, K, D) -> at most `most` of them, evenly chosen."""
    flat = np.asarray(means, float).reshape(-1, *np.shape(means)[-2:])
    return flat[np.linspace(0, len(flat) - 1, min(most, len(flat))).astype(int)]


def _frame_steps(last, n_frames):
    """Iterations for the frames: each of the first, ever fewer later, the last for certain."""
    steps = np.unique(np.round(np.geomspace(1, last + 1, 4 * n_frames)).astype(int) - 1)
    if len(steps) > n_frames:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, n_frames).astype(int))]
    return [int(t) for t in steps]


def _iteration_title(t, log_likelihood):
    if log_likelihood is None or not np.isfinite(log_likelihood[t]):
        return f"iteration {t}"
    return _minus(f"iteration {t},  ℓ = {log_likelihood[t]:.1f}")


def _gap_text(gap):
    return "best" if gap == 0.0 else _minus(f"{gap:+.3g}")


def _minus(text):
    return text.replace("-", "−")
