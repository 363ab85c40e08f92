"""Figures of a posterior: its chains before and after relabelling, and the predictive density."""

from __future__ import annotations

import numpy as np

from .primitives import COMPONENTS, TRUTH, colours_of, component_densities, draw_data, one_of
from .style import legend_below, panels_of, same_limits

MOST_CHAINS, MOST_STEPS, MOST_DRAWS = 4, 400, 200
SIDE = 70  # points of the grid along each feature
HELD = (0.9, 0.5, 0.1)  # probability inside the contours


def traces(path, before, after, feature=0):
    """One feature of every μ_k along the chains: left in the labels as drawn, right in one labelling.

    Colours that cross at left and not at right are labels that switched; a level that only some chains reach is a mode.

    Args:
        before, after: GMM with leading (chains, draws); the first 4 chains are shown, a row each, thinned.
    """
    n_chains, n_draws, n_components = np.shape(before.weights)
    n_chains = min(MOST_CHAINS, n_chains)
    steps = np.unique(np.linspace(0, n_draws - 1, MOST_STEPS).astype(int))
    shared = {"sharex": True, "sharey": True}
    with panels_of(path, 2 * n_chains, 2, 3.7, 1.25, extra=0.9, **shared) as (figure, panels):
        for i, panel in enumerate(panels):
            means = np.asarray((before, after)[i % 2].means)[i // 2, :, :, feature]  # (S, K)
            for k, colour in enumerate(colours_of(n_components)):
                panel.plot(steps, means[steps, k], color=colour, linewidth=0.7)
            if i % 2 == 0:
                panel.set_ylabel(f"chain {i // 2 + 1}")
        panels[0].set_title("labels as drawn")
        panels[1].set_title("relabelled")
        panels[-2].set_xlabel("draw")
        panels[-1].set_xlabel("draw")
        figure.supylabel(f"μ, feature {feature + 1}", fontsize=9)
        if n_components <= len(COMPONENTS):
            looks = enumerate(colours_of(n_components))
            legend_below(figure, {f"component {k + 1}": {"color": colour, "marker": ""} for k, colour in looks})


def posterior_predictive(path, x, draws, truth=None):
    """p(x* | x) beside the data: the mean over draws of their densities, which no labelling changes.

    On the line with the band that holds 90 % of the draws' densities at each place; of more features the first two, by
    contours of highest density that hold 90, 50 and 10 %. The truth is black and dashed.

    Args:
        draws: GMM with leading (chains, draws); at most 200 of them are taken, evenly.
    """
    x = np.asarray(x)[:, :2]
    n_chains, n_draws = np.shape(draws.weights)[:2]
    chosen = np.linspace(0, n_chains * n_draws - 1, min(MOST_DRAWS, n_chains * n_draws)).astype(int)
    some = [one_of(draws, divmod(s, n_draws)) for s in chosen]
    looks = {"posterior predictive": {"color": COMPONENTS[0], "linestyle": "-"}}
    with panels_of(path, 1, 1, 4.6, 3.5) as (figure, (panel,)):
        draw_data(panel, x)
        _draw_density(panel, x, some, looks["posterior predictive"])
        if truth is not None:
            looks["truth"] = TRUTH
            _draw_density(panel, x, [truth], TRUTH)
        same_limits([panel], x)
        legend_below(figure, looks)


def _draw_density(panel, x, mixtures, look):
    """The mean of their densities: a curve with its band, or contours."""
    margin = 0.2 * np.where(np.ptp(x, axis=0) > 0.0, np.ptp(x, axis=0), 1.0)
    n_points = 4 * SIDE if x.shape[1] == 1 else SIDE
    axes = [np.linspace(a, b, n_points) for a, b in zip(x.min(axis=0) - margin, x.max(axis=0) + margin, strict=True)]
    sides = np.meshgrid(*axes)
    at = np.stack(sides, axis=-1).reshape(-1, len(axes))
    density = np.stack([component_densities(gmm, at).sum(axis=0) for gmm in mixtures])
    mean = density.mean(axis=0)
    if len(axes) == 1:
        panel.plot(axes[0], mean, **look)
        band = np.quantile(density, (0.05, 0.95), axis=0)
        panel.fill_between(axes[0], *band, color=look["color"], alpha=0.2, linewidth=0)
        return
    falling = np.sort(mean)[::-1]
    inside = np.cumsum(falling) / falling.sum()
    levels = np.unique([falling[np.searchsorted(inside, p)] for p in HELD])
    style = {"colors": look["color"], "linestyles": [look["linestyle"]], "linewidths": 1.2}
    panel.contour(*sides, mean.reshape(sides[0].shape), levels=levels, **style)
