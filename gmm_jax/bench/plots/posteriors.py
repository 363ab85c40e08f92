"""Figures of a posterior: draws of the means, and the predictive density."""

from __future__ import annotations

import numpy as np

from .primitives import COMPONENTS, TRUTH, component_densities, draw_cloud, draw_data, method_looks, one_of
from .style import legend_below, panels_of, same_limits

MOST_COMPONENTS, MOST_DRAWS, MOST_DENSITIES = 9, 1000, 200
SIDE = 70  # points of the grid along each feature
HELD = (0.9, 0.5, 0.1)  # probability inside the contours


def posterior_of_means(path, x, draws_by_method, truth=None):
    """Posterior draws of each μ_k with ellipses at 1 and 2 sd, a panel a component; the black cross is the truth.

    Args:
        draws_by_method: method -> GMM with leading (chains, draws), relabelled; at most 1000 draws are shown of each
            method, and the first 9 components. Samples that lie so near are grey dots.
    """
    x = np.asarray(x)
    pairs = {1: [(0,)], 3: [(0, 1), (0, 2), (1, 2)]}.get(x.shape[1], [(0, 1)])
    draws = {name: np.asarray(_thinned(gmm, MOST_DRAWS).means, float) for name, gmm in draws_by_method.items()}
    n_components = min(next(iter(draws.values())).shape[1], MOST_COMPONENTS)
    places = [(k, pair) for k in range(n_components) for pair in pairs]
    looks = method_looks(draws)
    with panels_of(path, len(places), 3, 2.9, 2.6, least=4.2) as (figure, panels):
        for panel, (k, pair) in zip(panels, places, strict=True):
            clouds = {name: means[:, k] for name, means in draws.items()}
            draw_cloud(panel, x, clouds, None if truth is None else np.asarray(truth.means)[k], pair, looks)
            panel.set_title(f"component {k + 1}")
        legend_below(figure, {name: look | {"marker": "o", "linestyle": ""} for name, look in looks.items()})


def posterior_predictive(path, x, draws, truth=None):
    """p(x* | x) beside the data: the mean over draws of their densities, which no labelling changes.

    On the line with the band that holds 90 % of the draws' densities at each place; of more features the first two, by
    contours of highest density that hold 90, 50 and 10 %. The truth is black and dashed.

    Args:
        draws: GMM with leading (chains, draws); at most 200 of them are taken, evenly.
    """
    x = np.asarray(x)[:, :2]
    some = _thinned(draws, MOST_DENSITIES)
    shown = {"posterior predictive": [one_of(some, s) for s in range(len(some.weights))]}
    looks = {"posterior predictive": {"color": COMPONENTS[0], "linestyle": "-"}}
    if truth is not None:
        shown["truth"], looks["truth"] = [truth], TRUTH
    with panels_of(path, 1, 1, 4.6, 3.5) as (figure, (panel,)):
        draw_data(panel, x)
        for name, mixtures in shown.items():
            _draw_density(panel, x, mixtures, looks[name])
        same_limits([panel], x)
        legend_below(figure, looks)


def _thinned(draws, most):
    """At most so many draws, evenly chosen, with one leading axis."""
    n_chains, n_draws = np.shape(draws.weights)[:2]
    chosen = np.linspace(0, n_chains * n_draws - 1, min(most, n_chains * n_draws)).astype(int)
    return one_of(draws, np.divmod(chosen, n_draws))


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
