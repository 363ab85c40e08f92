"""What is drawn on a panel, and the numbers for the pen: colours, ellipses, ellipsoids. Panels come from `page`."""

from __future__ import annotations

from colorsys import hsv_to_rgb

import numpy as np

from ...judge.calibration import uniform_band
from ...mixture import GMM, Status, log_prob, responsibilities, structure

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
OTHER_METHODS = (
    ("#44aa99", "v"),
    ("#aa4499", "X"),
    ("#88ccee", "<"),
    ("#882255", ">"),
    ("#ddcc77", "p"),
    ("#000000", "*"),
)


def draw_data(panel, x, colours=None, *, labels=None, size=9, alpha=0.65):
    """Samples as dots; in one dimension a histogram a label, and dots along its foot. Returns the artists."""
    if colours is None:
        colours = np.array(colours_of(int(np.max(labels)) + 1))[np.asarray(labels)]
    if x.shape[1] > 1:
        look = {"depthshade": False} if x.shape[1] == 3 else {}
        return [panel.scatter(*x.T, s=size, c=colours, alpha=alpha, linewidths=0, **look)]
    edges = np.histogram_bin_edges(x[:, 0], bins=min(60, max(10, int(1.5 * x.shape[0] ** 0.5))))
    heights = np.histogram(x[:, 0], edges, density=True)[0]
    bars = panel.stairs(heights, edges, fill=True, color=GRID)
    height = np.full(x.shape[0], 0.015 * heights.max())
    foot = panel.scatter(x[:, 0], height, s=10, c=colours, marker="|", linewidths=0.8)
    return [bars, foot]


def draw_components(panel, gmm, x, *, colours=None, dashed=False, radii=(1.0, 2.0)):
    """Components at 1 and 2 sd in two and three dimensions, weighted densities in one. Returns the artists."""
    colours = colours_of(gmm.n_components) if colours is None else colours
    means, covariances = marginal(gmm, x.shape[1])
    if x.shape[1] == 1:
        return draw_densities(panel, gmm, x, colours, dashed)
    artists = []
    for mean, covariance, colour in zip(means, covariances, colours, strict=True):
        root = square_root(covariance)
        for radius in radii:
            width = (0.9 if radius == 2.0 else 1.6) * (0.75 if x.shape[1] == 3 else 1.0)
            look = {"color": colour, "linewidth": width, "linestyle": DASHED if dashed else "-"}
            if x.shape[1] == 3 and radius == 2.0:
                look["alpha"] = 0.45
            for circle in sphere(x.shape[1], sparse=radius == 2.0):
                artists += panel.plot(*(mean[:, None] + radius * root @ circle), **look)
    artists += panel.plot(*means.T, "+", color=INK, markersize=6, markeredgewidth=1.1)
    return artists


def draw_densities(panel, gmm, x, colours, dashed):
    """The weighted density of each component on the line, and their sum."""
    room = 0.07 * max(np.ptp(x), 1e-300)
    at = np.linspace(x.min() - room, x.max() + room, 300)
    means, covariances = marginal(gmm, 1)
    sd = np.sqrt(covariances[:, 0])
    z = (at[None, :] - means) / sd
    densities = np.asarray(gmm.weights)[:, None] * np.exp(-0.5 * z**2) / (sd * np.sqrt(2.0 * np.pi))
    style = DASHED if dashed else "-"
    artists = [panel.plot(at, y, color=c, linestyle=style)[0] for y, c in zip(densities, colours, strict=True)]
    total = np.exp(np.asarray(log_prob(gmm, at[:, None].astype(np.asarray(gmm.means).dtype))))
    return artists + panel.plot(at, total, color=INK, linewidth=0.9, linestyle=style)


def draw_errors(panel, truth, fits, entries):
    """Estimate − truth of these parameters, a row each, with 1.96 standard errors."""
    looks = method_looks(fits)
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
    panel.locator_params(axis="x", nbins=5)


def draw_clouds(panel, x, clouds, truth, pair, looks):
    """(S, D) draws of one mean by each method, features `pair`, with ellipses of their covariance at 1 and 2 sd.

    In one dimension a curve of their density.
    """
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
        seen = cloud[:, [first, second]]
        root = square_root(np.cov(seen.T))
        for radius in (1.0, 2.0):
            ellipse = seen.mean(axis=0)[:, None] + radius * root @ sphere(2, sparse=True)[0]
            panel.plot(*ellipse, color=looks[name][0], linewidth=1.6 / radius)
    if truth is not None:
        panel.plot(truth[first], truth[second], "+", color="white", markersize=13, markeredgewidth=3.6, zorder=5)
        panel.plot(truth[first], truth[second], "+", color=INK, markersize=12, markeredgewidth=1.8, zorder=6)
    limits = panel.get_xlim(), panel.get_ylim()
    panel.plot(x[:, first], x[:, second], ".", color=MUTED, markersize=3, alpha=0.3, mew=0, zorder=0)
    panel.set(xlim=limits[0], ylim=limits[1], ylabel=f"μ, feature {second + 1}")
    panel.grid()


def draw_ranks(panel, counts_below, n_simulations, level):
    """The ECDF of ranks less the uniform one, in the band where it should stay; another colour where it leaves it."""
    counts = np.asarray(counts_below)
    at = np.arange(1, counts.size + 1) / (counts.size + 1)
    low, high = uniform_band(n_simulations, counts.size, level)
    panel.fill_between(at, low / n_simulations - at, high / n_simulations - at, color=GRID, step="mid", linewidth=0)
    panel.axhline(0.0, color=MUTED, linewidth=0.7)
    colour = COMPONENTS[1] if np.any((counts < low) | (counts > high)) else COMPONENTS[0]
    panel.step(at, counts / n_simulations - at, color=colour, where="mid", linewidth=1.2)


def draw_basins(panel, optima):
    """Each optimum of a landscape by its narrowest component: its variance and its samples. The area is its share."""
    variance, samples, share = (
        np.array([row[key] for row in optima]) for key in ("smallest_eigenvalue", "narrow_count", "share")
    )
    look = {"c": [admissible_colour(row) for row in optima], "edgecolors": MUTED, "linewidths": 0.6, "alpha": 0.8}
    panel.scatter(np.clip(variance, 1e-16, 1e16), samples, s=10.0 + 500.0 * share, **look)
    panel.set(xscale="log", yscale="log", xlabel="narrowest variance, in those of the data", ylabel="its samples, n·φ")
    panel.margins(0.15)
    panel.yaxis.get_major_locator().set_params(subs=(1.0, 2.0, 5.0))
    panel.yaxis.set_major_formatter("{x:g}")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_minor_formatter("")
    panel.grid()


def admissible_colour(row):
    """Of an optimum of a landscape: grey where it is inadmissible."""
    return GRID if row["spurious"] else COMPONENTS[0]


def draw_trials(panel, trials, metric, y, colour, marker):
    """Every trial as a faint dot or cross, their median and quartiles, and at the margin how many have no value."""
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


def seen(x):
    """The features that are drawn: all up to three, else the first two."""
    return x if x.shape[1] <= 3 else x[:, :2]


def marginal(gmm, n_seen):
    """(K, n) means and (K, n, n) covariances of the features that are seen."""
    means = np.asarray(gmm.means, float)
    matrices = np.asarray(structure(gmm.covariance_type).dense(gmm.covariances, *means.shape), float)
    return means[:, :n_seen], matrices[:, :n_seen, :n_seen]


def square_root(covariance):
    """A with A Aᵀ = Σ, also for a singular Σ."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def sphere(n_features, sparse):
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


def colours_of(n):
    """n component colours; beyond the palette, hues by the golden ratio."""
    hues = [(0.13 + 0.618034 * i) % 1.0 for i in range(n - len(COMPONENTS))]
    more = ["#" + "".join(f"{round(255 * part):02x}" for part in hsv_to_rgb(hue, 0.65, 0.75)) for hue in hues]
    return [*COMPONENTS[:n], *more]


def blend(gmm, x):
    """(N, 3): the component colours mixed by responsibility."""
    r = np.asarray(responsibilities(gmm, x.astype(np.asarray(gmm.means).dtype)))
    mixed = np.nan_to_num(r) @ np.array([_rgb(c) for c in colours_of(gmm.n_components)])
    return np.clip(mixed, 0.0, 1.0)


def _rgb(colour):
    return [int(colour[i : i + 2], 16) / 255.0 for i in (1, 3, 5)]


def method_looks(names):
    """name -> (colour, marker), the same in every figure for the methods that ship."""
    others = iter(OTHER_METHODS * 10)
    return {name: METHODS.get(name) or next(others) for name in names}


def one_of(gmm, t):
    """Mixture t of a GMM with a leading axis."""
    leaves = (np.asarray(leaf)[t] for leaf in (gmm.weights, gmm.means, gmm.covariances))
    return GMM(*leaves, covariance_type=gmm.covariance_type)


def thin(means, most=1000):
    """(C, S, K, D) -> at most `most` of them, evenly chosen."""
    flat = np.asarray(means, float).reshape(-1, *np.shape(means)[-2:])
    return flat[np.linspace(0, len(flat) - 1, min(most, len(flat))).astype(int)]


def frame_steps(last, n_frames):
    """Iterations for the frames: each of the first, ever fewer later, the last for certain."""
    steps = np.unique(np.round(np.geomspace(1, last + 1, 4 * n_frames)).astype(int) - 1)
    if len(steps) > n_frames:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, n_frames).astype(int))]
    return [int(t) for t in steps]


def iteration_title(t, log_likelihood):
    """Iteration and log-likelihood."""
    if log_likelihood is None or not np.isfinite(log_likelihood[t]):
        return f"iteration {t}"
    return minus(f"iteration {t},  ℓ = {log_likelihood[t]:.1f}")


def gap_text(gap):
    """A gap in nats as a label."""
    return "best" if gap == 0.0 else minus(f"{gap:+.3g}")


def minus(text):
    """Hyphens as minus signs."""
    return text.replace("-", "−")
