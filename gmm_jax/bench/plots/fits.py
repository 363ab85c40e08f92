"""Figures of data, and of what was fitted to them beside the truth: from samples, mixtures, traces and draws."""

from __future__ import annotations

import numpy as np

from ...mixture import Known
from ..parameters import parameters
from .page import legend_below, movie_panels, name_components, open_page, panels_for, same_limits, write_gif
from .pens import (
    COMPONENTS,
    DASHED,
    INK,
    MUTED,
    blend,
    colours_of,
    draw_clouds,
    draw_components,
    draw_data,
    draw_errors,
    frame_steps,
    iteration_title,
    method_looks,
    minus,
    one_of,
    seen,
    thin,
)


def data(path, x, labels=None):
    """The samples as they come and, where labels are given, beside them coloured by the component that made them."""
    x = seen(np.asarray(x))
    n_panels = 1 if labels is None else 2
    with open_page(path, 4.2 * n_panels, 3.9) as page:
        panels = panels_for(page, 1, n_panels, x.shape[1])
        draw_data(panels[0], x, np.full(x.shape[0], MUTED))
        panels[0].set_title(f"{x.shape[0]} samples")
        if labels is not None:
            labels = np.asarray(labels)
            draw_data(panels[1], x, labels=labels)
            panels[1].set_title("coloured by source")
            name_components(panels[1], int(labels.max()) + 1)
        same_limits(panels, x)


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
    with open_page(path, 2.5 * n_columns, (2.1 if view.shape[1] == 3 else 2.55) * n_rows + 0.3) as page:
        panels = panels_for(page, n_rows, n_columns, view.shape[1])
        for panel, t in zip(panels, shown, strict=False):
            gmm = one_of(iterates, t)
            draw_data(panel, view, blend(gmm, x), size=7)
            draw_components(panel, gmm, view)
            panel.set_title(iteration_title(t, log_likelihood))
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        same_limits(panels[: len(shown)], view, bare=True)


def em_animation(path, x, iterates, log_likelihood, n_frames=24):
    """A GIF of at most n_frames: left what em_iterations shows, right the log-likelihood as it grows."""
    trace = np.asarray(log_likelihood, float)
    last = int(np.flatnonzero(np.isfinite(trace))[-1])
    steps = frame_steps(last, min(n_frames, 60))
    x = np.asarray(x)
    view = seen(x)
    frames = []
    with open_page(None, 7.2, 3.4, dpi=90, layout=None) as page:
        left, right = movie_panels(page, view, trace, last)
        gmm = one_of(iterates, last)
        drawn = [*draw_data(left, view, blend(gmm, x)), *draw_components(left, gmm, view)]  # sets the limits
        same_limits([left], view, bare=True)
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
    write_gif(path, frames)


def log_likelihood(path, traces):
    """Left the log-likelihood against iterations, without the first two; right its gap to the end, in powers of ten.

    Args:
        traces: name -> (T,) sums over samples; a tail of NaN is left out.
    """
    with open_page(path, 8.2, 3.3) as page:
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
    with open_page(path, max(3.0 * n_columns, 4.2), (2.5 if view.shape[1] == 3 else 3.0) * n_rows + 0.4) as page:
        panels = panels_for(page, n_rows, n_columns, view.shape[1])
        for panel, (name, gmm) in zip(panels, fits.items(), strict=False):
            colours = np.full(view.shape[0], MUTED) if labels is None else None
            draw_data(panel, view, colours, labels=labels, size=6, alpha=0.3)
            if truth is not None:
                draw_components(panel, truth, view, colours=[INK] * truth.n_components, dashed=True, radii=radii)
            draw_components(panel, gmm, view, radii=radii)
            panel.set_title(name)
        for panel in panels[len(fits) :]:
            panel.set_axis_off()
        same_limits(panels[: len(fits)], view, bare=n_rows * n_columns > 1)
        if truth is not None:
            legend_below(page, [("truth", {"color": INK, "linestyle": DASHED}), ("method", {"color": COMPONENTS[0]})])


def parameter_errors(path, truth, fits, known=Known()):
    """Estimate − truth of every free number, with ±1.96 standard errors (or posterior sd) of each method.

    Args:
        fits: method -> (GMM, GMM of standard errors or None), in the truth's component order.
    """
    free = [entry for entry in parameters(truth, known) if not entry.known]
    fields = [f for f in ("weights", "means", "covariances") if any(entry.field == f for entry in free)]
    shown = {f: [entry for entry in free if entry.field == f] for f in fields}
    n_rows = min(max((len(entries) for entries in shown.values()), default=1), MOST_ROWS)
    with open_page(path, 1.2 + 2.6 * max(len(fields), 1), 1.1 + 0.3 * n_rows) as page:
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
        legend_below(page, [(name, {"color": c, "marker": m, "markersize": 5}) for name, (c, m) in looks.items()])


MOST_ROWS = 30
FIELD_NAMES = {"weights": "weights φ", "means": "means μ", "covariances": "covariances Σ"}


def posterior_of_means(path, x, draws_by_method, truth=None):
    """Posterior draws of each μ_k with ellipses at 1 and 2 sd, a panel a component; the black cross is the truth.

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
    with open_page(path, max(2.9 * n_columns, 4.2), 2.6 * n_rows + 0.4) as page:
        panels = page.subplots(n_rows, n_columns, squeeze=False).ravel()
        places = [(k, pair) for k in range(n_components) for pair in pairs]
        for panel, (k, pair) in zip(panels, places, strict=False):
            clouds = {name: means[:, k] for name, means in draws.items()}
            draw_clouds(panel, x, clouds, None if truth is None else np.asarray(truth.means)[k], pair, looks)
            panel.set_title(f"component {k + 1}")
        for panel in panels[len(places) :]:
            panel.set_axis_off()
        legend_below(page, [(name, {"color": looks[name][0], "marker": "o", "linestyle": ""}) for name in draws])


MOST_CLOUDS = 9
