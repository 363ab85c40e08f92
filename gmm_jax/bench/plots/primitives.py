"""Drawing primitives: samples, components, uncertainty and trials on a panel, and the numbers they need."""

import numpy as np

from ...mixture import GMM, Status, structure
from .looks import DASHED, GRID, INK, MUTED, TRUTH, colours_of

# ---- on a panel


def draw_data(panel, x, labels=None, *, colours=MUTED, size=9, alpha=0.65):
    """Samples as dots; in one dimension a histogram, and dots along its foot. Returns the artists."""
    if labels is not None:
        colours = np.array(colours_of(int(np.max(labels)) + 1))[np.asarray(labels)]
    if x.shape[1] > 1:
        look = {"depthshade": False} if x.shape[1] == 3 else {}
        return [panel.scatter(*x.T, s=size, c=colours, alpha=alpha, linewidths=0, **look)]
    edges = np.histogram_bin_edges(x[:, 0], bins=min(60, max(10, int(1.5 * x.shape[0] ** 0.5))))
    heights = np.histogram(x[:, 0], edges, density=True)[0]
    foot = np.full(x.shape[0], 0.015 * heights.max())
    return [
        panel.stairs(heights, edges, fill=True, color=GRID),
        panel.scatter(x[:, 0], foot, s=10, c=colours, marker="|", linewidths=0.8),
    ]


def draw_components(panel, gmm, x, *, truth=False, radii=(1.0, 2.0)):
    """Components at 1 and 2 sd in two and three dimensions, weighted densities in one. Returns the artists."""
    n_seen = x.shape[1]
    looks = [TRUTH] * gmm.n_components if truth else [{"color": colour} for colour in colours_of(gmm.n_components)]
    if n_seen == 1:
        margin = 0.07 * max(np.ptp(x), 1e-300)
        at = np.linspace(x.min() - margin, x.max() + margin, 300)
        densities = component_densities(gmm, at[:, None])
        lines = [panel.plot(at, density, **look)[0] for density, look in zip(densities, looks, strict=True)]
        total = {"color": INK, "linewidth": 0.9} | ({"linestyle": DASHED} if truth else {})
        return lines + panel.plot(at, densities.sum(axis=0), **total)
    shown = on(gmm, range(n_seen))
    artists = []
    for mean, covariance, look in zip(shown.means, shown.covariances, looks, strict=True):
        for radius in radii:
            width = (0.9 if radius == 2.0 else 1.6) * (0.75 if n_seen == 3 else 1.0)
            fade = {"alpha": 0.45} if n_seen == 3 and radius == 2.0 else {}
            for curve in ellipse(mean, covariance, radius, sparse=radius == 2.0):
                artists += panel.plot(*curve, linewidth=width, **look, **fade)
    return artists + panel.plot(*shown.means.T, "+", color=INK, markersize=6, markeredgewidth=1.1)


def draw_cloud(panel, x, clouds, truth, pair, looks):
    """(S, D) draws of one mean by each method, features `pair`, with ellipses of their covariance at 1 and 2 sd.

    In one dimension, where `pair` holds one feature, a curve of their density.
    """
    pair = list(pair)
    panel.set_xlabel(f"μ, feature {pair[0] + 1}")
    if len(pair) == 1:
        edges = np.histogram_bin_edges(np.concatenate([cloud[:, pair[0]] for cloud in clouds.values()]), bins=30)
        for name, cloud in clouds.items():
            heights = np.histogram(cloud[:, pair[0]], edges, density=True)[0]
            panel.stairs(heights, edges, color=looks[name]["color"], linewidth=1.4)
        if truth is not None:
            panel.axvline(truth[pair[0]], linewidth=1.2, **TRUTH)
        panel.set(yticks=[], ylabel="posterior density")
        return
    for name, cloud in clouds.items():
        colour, seen = looks[name]["color"], cloud[:, pair]
        panel.plot(*seen.T, ".", color=colour, markersize=3, alpha=0.35, mew=0)
        for radius in (1.0, 2.0):
            (curve,) = ellipse(seen.mean(axis=0), np.cov(seen.T), radius)
            panel.plot(*curve, color=colour, linewidth=1.6 / radius)
    if truth is not None:
        for look in ({"color": "white", "ms": 13, "mew": 3.6}, {"color": INK, "ms": 12, "mew": 1.8}):
            panel.plot(*truth[pair], "+", zorder=5, **look)
    limits = {"xlim": panel.get_xlim(), "ylim": panel.get_ylim()}
    panel.plot(*x[:, pair].T, ".", color=MUTED, markersize=3, alpha=0.3, mew=0, zorder=0)
    panel.set(**limits, ylabel=f"μ, feature {pair[1] + 1}")
    panel.grid()


def draw_trace(panel, trace, **look):
    """The log-likelihood against iterations, without the first two of many and without a tail of NaN."""
    trace = np.asarray(trace, float)
    trace = trace[: np.flatnonzero(np.isfinite(trace))[-1] + 1]
    first = 2 if trace.size > 6 else 0
    panel.plot(np.arange(first, trace.size), trace[first:], **look)


def draw_gaps(panel, trace, **look):
    """What the log-likelihood still lacks of its end; below rounding it is not shown."""
    trace = np.asarray(trace, float)
    end = trace[np.flatnonzero(np.isfinite(trace))[-1]]
    gap = end - trace
    shown = gap > 4.0 * np.finfo(float).eps * abs(end)
    panel.plot(np.flatnonzero(shown), gap[shown], **look)


def draw_trials(panel, trials, metric, y, look):
    """Every trial as a faint dot or cross, their median and quartiles, and at the margin how many have no value."""
    values = np.array([np.nan if r.get(metric) is None else float(r[metric]) for r in trials])
    seen = np.isfinite(values) & (values > 0.0)
    doubtful = np.array([r.get("status") in Status.__members__ and not Status[r["status"]].ok for r in trials], bool)
    colour = look["color"]
    for which, mark, alpha in ((seen & ~doubtful, ".", 0.35), (seen & doubtful, "x", 1.0)):
        panel.plot(values[which], np.full(which.sum(), y), mark, color=colour, alpha=alpha, markersize=4)
    if seen.any():
        low, middle, high = np.quantile(values[seen], (0.25, 0.5, 0.75))
        panel.hlines(y, low, high, color=colour, linewidth=1.6)
        panel.plot(middle, y, **look, markersize=5, markeredgecolor="white", markeredgewidth=0.5)
    if not seen.all():
        place = {"transform": panel.get_yaxis_transform(), "va": "center", "fontsize": 7, "color": colour}
        panel.text(1.01, y, f"{np.sum(~seen)} ×", **place)


# ---- numbers


def seen(x):
    """The features that are drawn: all up to three, else the first two."""
    return x if x.shape[1] <= 3 else x[:, :2]


def on(gmm, features):
    """The mixture of some features alone: its exact marginal."""
    means = np.asarray(gmm.means, float)
    matrices = np.asarray(structure(gmm.covariance_type).dense(gmm.covariances, *means.shape), float)
    return GMM(np.asarray(gmm.weights), means[:, features], matrices[:, features][:, :, features])


def component_densities(gmm, at):
    """(K, G): φ_k N(· | μ_k, Σ_k) at the points (G, n), of the first n features."""
    shown = on(gmm, range(at.shape[1]))
    d = at[None] - shown.means[:, None]
    squares = np.einsum("kni,kij,knj->kn", d, np.linalg.inv(shown.covariances), d)
    scale = shown.weights / np.sqrt(np.linalg.det(2.0 * np.pi * shown.covariances))
    return scale[:, None] * np.exp(-0.5 * squares)


def ellipse(mean, covariance, radius, *, sparse=True):
    """Curves (n, points) at this many sd: the ellipse, or in three dimensions circles of the ellipsoid."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))  # A Aᵀ = Σ, also for a singular Σ
    angle = np.linspace(0.0, 2.0 * np.pi, 61)
    cos, sin = np.cos(angle), np.sin(angle)
    curves = [np.stack([cos, sin])]
    if len(mean) == 3:
        heights, turns = ((0.0,), np.arange(2) / 2) if sparse else ((-0.6, 0.0, 0.6), np.arange(4) / 4)
        curves = [np.stack([np.sqrt(1 - h**2) * cos, np.sqrt(1 - h**2) * sin, 0.0 * cos + h]) for h in heights]
        curves += [np.stack([cos * np.cos(a), cos * np.sin(a), sin]) for a in np.pi * turns]
    return [mean[:, None] + radius * root @ curve for curve in curves]


def one_of(gmm, t):
    """Mixture t of a GMM with a leading axis."""
    leaves = (np.asarray(leaf)[t] for leaf in (gmm.weights, gmm.means, gmm.covariances))
    return GMM(*leaves, covariance_type=gmm.covariance_type)


def minus(text):
    """Hyphens as minus signs."""
    return text.replace("-", "−")
