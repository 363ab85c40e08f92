"""Figures of data, and of what was fitted to them beside the truth: from samples, mixtures, traces and draws."""

import numpy as np

from ...judge.metrics import few_draws
from ...mixture import Known
from ..parameters import parameters
from .looks import COMPONENTS, TRUTH, blend, colours_of, method_looks, name_components
from .primitives import draw_cloud, draw_components, draw_data, draw_gaps, draw_trace, minus, one_of, seen
from .style import legend_below, panels_of, pixels_of, same_limits, write_gif

MOST_ROWS, MOST_COMPONENTS, MOST_DRAWS = 30, 9, 1000
FIELD_NAMES = {"weights": "weights φ", "means": "means μ", "covariances": "covariances Σ"}


def data(path, x, labels=None):
    """The samples as they come and, where labels are given, beside them coloured by the component that made them."""
    x = seen(np.asarray(x))
    with panels_of(path, 1 if labels is None else 2, 2, 4.2, 3.9, extra=0.0, n_features=x.shape[1]) as (_, panels):
        draw_data(panels[0], x)
        panels[0].set_title(f"{x.shape[0]} samples")
        if labels is not None:
            draw_data(panels[1], x, labels)
            panels[1].set_title("coloured by component")
            name_components(panels[1], range(1, int(np.max(labels)) + 2))
        same_limits(panels, x)


def em_iterations(path, x, iterates, log_likelihood=None, at=(0, 1, 2, 3, *range(20, 1000, 20))):
    """EM at work: samples coloured by responsibility, components at 1 and 2 sd, at chosen iterations and the last.

    Args:
        iterates: GMM with leading axis T; iterate 0 is the start.
        log_likelihood: (T,) the sum over samples, for the titles.
    """
    last = np.shape(iterates.means)[0] - 1
    shown = [*sorted({t for t in at if t < last})[:7], last]
    x = np.asarray(x)
    view = seen(x)
    height = 2.1 if view.shape[1] == 3 else 2.55
    with panels_of(path, len(shown), 4, 2.5, height, extra=0.3, n_features=view.shape[1]) as (_, panels):
        for panel, t in zip(panels, shown, strict=True):
            _draw_iterate(panel, x, view, one_of(iterates, t))
            known = log_likelihood is not None and np.isfinite(log_likelihood[t])
            panel.set_title(f"iteration {t}" + (minus(f",  ℓ = {log_likelihood[t]:.1f}") if known else ""))
        same_limits(panels, view, bare=True)


def em_animation(path, x, iterates, log_likelihood, n_frames=24):
    """A GIF of at most n_frames, each what em_iterations shows of one iteration: a report makes a slider of it."""
    x = np.asarray(x)
    view, frames = seen(x), []
    for t in frame_steps(int(np.flatnonzero(np.isfinite(log_likelihood))[-1]), n_frames):
        with panels_of(None, 1, 1, 4.4, 4.0, extra=0.0, n_features=view.shape[1]) as (figure, (panel,)):
            _draw_iterate(panel, x, view, one_of(iterates, t))
            panel.set_title(minus(f"iteration {t},  ℓ = {log_likelihood[t]:.2f}"))
            same_limits([panel], view, bare=True)
            frames.append(pixels_of(figure))
    write_gif(path, frames)


def _draw_iterate(panel, x, view, gmm):
    draw_data(panel, view, colours=blend(gmm, x), size=7)
    draw_components(panel, gmm, view)


def frame_steps(last, n_frames):
    """Iterations for the frames: each of the first, ever fewer later, the last for certain."""
    return np.unique(np.round(np.geomspace(1, last + 1, n_frames)).astype(int) - 1).tolist()


def log_likelihood(path, traces):
    """Left the log-likelihood against iterations, without the first two; right its gap to the end, on a log scale.

    Args:
        traces: name -> (T,) sums over samples; a tail of NaN is left out.
    """
    many = len(traces) > len(COMPONENTS)
    with panels_of(path, 2, 2, 4.1, 3.3, extra=0.0) as (_, (left, right)):
        for colour, (name, trace) in zip(colours_of(len(traces)), traces.items(), strict=True):
            look = {"color": COMPONENTS[0], "alpha": 0.3, "linewidth": 0.8} if many else {"color": colour}
            draw_trace(left, trace, label=name, **look)
            draw_gaps(right, trace, **look)
        left.set_title("log-likelihood ℓ, from iteration 2 on")
        right.set(title="final ℓ − ℓ", yscale="log")
        for panel in (left, right):
            panel.set(xlabel="iteration", ylabel="nats")
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
    view = seen(np.asarray(x))
    in_space = view.shape[1] == 3
    radii = (1.5,) if in_space else (1.0, 2.0)  # four shells in one box are too many
    size = {"width": 3.0, "height": 2.5 if in_space else 3.0, "least": 4.2, "n_features": view.shape[1]}
    with panels_of(path, len(fits), 3, **size) as (figure, panels):
        for panel, (name, gmm) in zip(panels, fits.items(), strict=True):
            draw_data(panel, view, labels, size=6, alpha=0.3)
            if truth is not None:
                draw_components(panel, truth, view, truth=True, radii=radii)
            draw_components(panel, gmm, view, radii=radii)
            panel.set_title(name)
        same_limits(panels, view, bare=len(fits) > 1)
        if truth is not None:
            legend_below(figure, {"truth": TRUTH, "method": {"color": COMPONENTS[0]}})


def parameter_errors(path, truth, fits, known=Known()):
    """Estimate − truth of every free number, with ±1.96 standard errors (or posterior sd) of each method.

    Args:
        fits: method -> (GMM, GMM of standard errors or None), in the truth's component order.
    """
    free = [entry for entry in parameters(truth, known) if not entry.known]
    fields = {f: [entry for entry in free if entry.field == f] for f in FIELD_NAMES}
    fields = {f: entries for f, entries in fields.items() if entries} or {"nothing is free": []}
    n_rows = min(max(map(len, fields.values()), default=1), MOST_ROWS)
    looks = method_looks(fits)
    with panels_of(path, len(fields), 3, 2.6, 0.3 * n_rows, extra=1.1, least=3.8) as (figure, panels):
        for panel, (field, entries) in zip(panels, fields.items(), strict=True):
            more = f", first {MOST_ROWS} of {len(entries)}" if len(entries) > MOST_ROWS else ""
            panel.set(title=f"{FIELD_NAMES.get(field, field)}{more}", xlabel="estimate − truth")
            entries = entries[:MOST_ROWS]
            for j, (name, (point, errors)) in enumerate(fits.items()):
                y = np.arange(len(entries)) + 0.7 * (j - (len(fits) - 1) / 2) / len(fits)
                gap = np.array([entry.value(point) - entry.value(truth) for entry in entries])
                panel.plot(gap, y, linestyle="", markersize=4, **looks[name])
                if errors is not None:
                    half = 1.96 * np.array([entry.value(errors) for entry in entries])
                    panel.hlines(y, gap - half, gap + half, color=looks[name]["color"], linewidth=1.1)
            panel.axvline(0.0, linewidth=0.9, **TRUTH)
            panel.set_yticks(np.arange(len(entries)), [entry.label for entry in entries], color=TRUTH["color"])
            panel.set_ylim(max(len(entries), 1) - 0.5, -0.5)
            panel.tick_params(axis="y", length=0, labelsize=9)
            panel.grid(axis="x")
            panel.locator_params(axis="x", nbins=5)
        legend_below(figure, looks)


def posterior_of_means(path, x, draws_by_method, truth=None):
    """Posterior draws of each μ_k with ellipses at 1 and 2 sd, a panel a component; the black cross is the truth.

    Args:
        draws_by_method: method -> GMM with leading (chains, draws), relabelled; at most 1000 draws are shown of each
            method, and the first 9 components. Samples that lie so near are grey dots.
    """
    x = np.asarray(x)
    pairs = {1: [(0,)], 3: [(0, 1), (0, 2), (1, 2)]}.get(x.shape[1], [(0, 1)])
    draws = {name: np.asarray(few_draws(gmm, MOST_DRAWS).means, float) for name, gmm in draws_by_method.items()}
    n_components = min(next(iter(draws.values())).shape[1], MOST_COMPONENTS)
    places = [(k, pair) for k in range(n_components) for pair in pairs]
    looks = method_looks(draws)
    with panels_of(path, len(places), 3, 2.9, 2.6, least=4.2) as (figure, panels):
        for panel, (k, pair) in zip(panels, places, strict=True):
            clouds = {name: means[:, k] for name, means in draws.items()}
            draw_cloud(panel, x, clouds, None if truth is None else np.asarray(truth.means)[k], pair, looks)
            panel.set_title(f"component {k + 1}")
        legend_below(figure, {name: look | {"marker": "o", "linestyle": ""} for name, look in looks.items()})
