"""Figures of a posterior: its chains before and after relabelling, its marginals, and the density that it foretells."""

from __future__ import annotations

import jax
import numpy as np

from ...judge.diagnostics import quantities
from ...mixture import Known, MixtureSpec
from .page import legend_below, open_page, same_limits
from .pens import COMPONENTS, DASHED, INK, MUTED, colours_of, draw_data, marginal, one_of

MOST_CHAINS, MOST_STEPS, MOST_DRAWS = 4, 400, 200
MOST_MARGINALS = 24
SIDE = 70  # points of the grid along each feature
HELD = (0.9, 0.5, 0.1)  # probability inside the contours


def traces(path, before, after, feature=0):
    """One feature of every μ_k along the chains: left in the labels as drawn, right in one labelling.

    Colours that cross at left and not at right are labels that switched; a level that only some chains reach is a mode.

    Args:
        before, after: GMM with leading (chains, draws); the first 4 chains are shown, a row each, thinned.
    """
    n_chains = min(MOST_CHAINS, np.shape(before.means)[0])
    steps = np.unique(np.linspace(0, np.shape(before.means)[1] - 1, MOST_STEPS).astype(int))
    with open_page(path, 7.4, 1.25 * n_chains + 0.9) as page:
        panels = page.subplots(n_chains, 2, squeeze=False, sharex=True, sharey=True)
        for column, (gmm, title) in enumerate(((before, "labels as drawn"), (after, "relabelled"))):
            means = np.asarray(gmm.means)[..., feature][:, steps]  # (C, S, K)
            for panel, chain in zip(panels[:, column], means, strict=False):
                for k, colour in enumerate(colours_of(means.shape[2])):
                    panel.plot(steps, chain[:, k], color=colour, linewidth=0.7)
            panels[0, column].set_title(title)
            panels[-1, column].set_xlabel("draw")
        for c, panel in enumerate(panels[:, 0]):
            panel.set_ylabel(f"chain {c + 1}")
        page.supylabel(f"μ, feature {feature + 1}", fontsize=9)
        if before.n_components <= len(COMPONENTS):
            looks = enumerate(colours_of(before.n_components))
            legend_below(page, [(f"component {k + 1}", {"color": colour}) for k, colour in looks])


def marginals(path, draws, truth=None, known=Known()):
    """The posterior density of every free number, a panel each: a histogram of all draws, and the truth a dashed line.

    Args:
        draws: GMM with leading (chains, draws), relabelled; the first 24 numbers are shown, φ before μ before Σ.
        known: has no panels; of symmetric matrices the lower triangle has.
    """
    spec = MixtureSpec(draws.n_components, draws.covariance_type, known)
    found = dict(list(quantities(draws, spec).items())[:MOST_MARGINALS])
    true = None if truth is None else quantities(jax.tree.map(lambda leaf: np.asarray(leaf)[None, None], truth), spec)
    n_columns = min(4, len(found))
    n_rows = -(-len(found) // n_columns)
    with open_page(path, 1.9 * n_columns + 0.4, 1.5 * n_rows + 0.5) as page:
        panels = page.subplots(n_rows, n_columns, squeeze=False).ravel()
        for panel, (name, values) in zip(panels, found.items(), strict=False):
            panel.hist(np.ravel(values), bins=40, density=True, color=COMPONENTS[0], alpha=0.6)
            if true is not None:
                panel.axvline(true[name].item(), color=INK, linestyle=DASHED)
            panel.set_title(name, fontsize=8)
            panel.set_yticks([])
        for panel in panels[len(found) :]:
            panel.set_axis_off()
        entries = [("posterior", {"color": COMPONENTS[0]})]
        legend_below(page, entries + [("truth", {"color": INK, "linestyle": DASHED})] * (truth is not None))


def posterior_predictive(path, x, draws, truth=None):
    """p(x* | x) beside the data: the mean over draws of their densities, which no labelling changes.

    On the line with the band that holds 90 % of the draws' densities at each place; of more features the first two, by
    contours of highest density that hold 90, 50 and 10 %. The truth is black and dashed.

    Args:
        draws: GMM with leading (chains, draws); at most 200 of them are taken, evenly.
    """
    x = np.asarray(x)[:, :2]
    some = _thinned(draws)
    grid, shape = _grid(x)
    density = np.stack([_density(one_of(some, s), grid) for s in range(len(some.weights))])
    with open_page(path, 4.6, 3.9) as page:
        panel = page.subplots()
        draw_data(panel, x, np.full(len(x), MUTED))
        _draw(panel, grid, shape, density, COMPONENTS[0], "-")
        if truth is not None:
            _draw(panel, grid, shape, _density(truth, grid)[None], INK, DASHED)
        same_limits([panel], x)
        entries = [("posterior predictive", {"color": COMPONENTS[0]})]
        legend_below(page, entries + [("truth", {"color": INK, "linestyle": DASHED})] * (truth is not None))


def _draw(panel, grid, shape, density, colour, style):
    """The mean of densities (S, G) on the grid: a curve with its band, or contours."""
    mean = density.mean(axis=0)
    if len(shape) == 1:
        panel.plot(grid[:, 0], mean, color=colour, linestyle=style)
        panel.fill_between(
            grid[:, 0], *np.quantile(density, (0.05, 0.95), axis=0), color=colour, alpha=0.2, linewidth=0
        )
        return
    falling = np.sort(mean)[::-1]
    inside = np.cumsum(falling) / falling.sum()
    levels = np.unique([falling[np.searchsorted(inside, p)] for p in HELD])
    first, second = (grid[:, i].reshape(shape) for i in (0, 1))
    look = {"colors": colour, "linestyles": [style], "linewidths": 1.2}
    panel.contour(first, second, mean.reshape(shape), levels=levels, **look)


def _thinned(draws):
    """Draws with one leading axis."""
    n_chains, n_draws = np.shape(draws.weights)[:2]
    rows = np.linspace(0, n_chains * n_draws - 1, min(MOST_DRAWS, n_chains * n_draws)).astype(int)
    return one_of(draws, np.divmod(rows, n_draws))


def _grid(x):
    """Points (G, n) over the data and a little beyond, and the shape that they form."""
    room = 0.2 * np.where(np.ptp(x, axis=0) > 0.0, np.ptp(x, axis=0), 1.0)
    n_points = 4 * SIDE if x.shape[1] == 1 else SIDE
    axes = [np.linspace(a, b, n_points) for a, b in zip(x.min(axis=0) - room, x.max(axis=0) + room, strict=True)]
    return np.stack([side.ravel() for side in np.meshgrid(*axes)], axis=-1), (n_points,) * x.shape[1]


def _density(gmm, at):
    """Σ_k φ_k N(· | μ_k, Σ_k) of the features that are seen."""
    means, covariances = marginal(gmm, at.shape[1])
    d = at[None] - means[:, None]
    squares = np.einsum("kni,kij,knj->kn", d, np.linalg.inv(covariances), d)
    scale = np.sqrt(np.linalg.det(2.0 * np.pi * covariances))
    return np.sum(np.asarray(gmm.weights)[:, None] * np.exp(-0.5 * squares) / scale[:, None], axis=0)
