"""Pictures of one's own data and fit: Matplotlib axes in and out, labelled by the names of the features.

`x` is an array or a data frame, whose column names label the axes (else `names`). `fit` is a GMM or whatever holds
one: the results of `em`, a `Fit`, a fitted estimator. Without axes a new figure is made. Components keep their colour
in every picture, and are drawn at 1 and 2 standard deviations.
"""

from collections.abc import Sequence

import jax
import numpy as np

from .bayes.checks import host_mixture
from .bench.plots.looks import COMPONENTS, MUTED, colours_of, mixed, name_components
from .bench.plots.primitives import draw_cloud, draw_components, draw_data, draw_gaps, draw_trace, on
from .bench.plots.style import in_style, new_axes
from .judge.metrics import few_draws
from .mixture import Fit, Posterior, check_data
from .mixture.predictive import predictive

MOST_ROWS, MOST_DRAWS = 5_000, 1_000  # drawn as dots, evenly chosen
MOST_FEATURES = 6  # in a pairs plot
SURE = 0.95  # probability of its component from which a row is not in doubt


@in_style
def scatter(x, fit=None, *, features: Sequence[int] | None = None, labels=None, names=None, ax=None):
    """Axes with the rows in one to three features, coloured by responsibility or by labels, and the components.

    Args:
        features: their numbers; by default the first two, or all of up to three.
        labels: (N,) the component of each row, where it is known.
    """
    x, names, gmm = _inputs(x, names, fit)
    features = list(range(x.shape[1] if x.shape[1] <= 3 else 2)) if features is None else list(features)
    if not 1 <= len(features) <= 3:
        raise ValueError(f"features must name one to three features; got {features}: see plot.pairs for more.")
    ax = new_axes(1, 1, 5.0, 4.2, n_features=len(features))[0] if ax is None else ax
    _draw(ax, x, features, gmm, _colours(gmm, x, labels))
    for axis, j in zip("xyz", features, strict=False):
        ax.set(**{f"{axis}label": names[j]})
    return _with_legend(ax, gmm)


@in_style
def pairs(x, fit=None, *, labels=None, names=None, axes=None):
    """Axes (D, D): each pair of the first six features below the diagonal, and on it the density of each."""
    x, names, gmm = _inputs(x, names, fit)
    d = min(x.shape[1], MOST_FEATURES)
    axes = np.asarray(new_axes(d * d, d, 2.3, 2.1) if axes is None else axes).reshape(d, d)
    colours = _colours(gmm, x, labels)
    for i in range(d):
        for j in range(d):
            if j > i:
                axes[i, j].set_axis_off()
                continue
            _draw(axes[i, j], x, [j, i] if j < i else [i], gmm, colours, size=5)
            axes[i, j].tick_params(labelsize=7, labelbottom=i == d - 1, labelleft=0 == j < i)
            axes[i, j].set(xlabel=names[j] if i == d - 1 else "", ylabel=names[i] if 0 == j < i else "")
    _with_legend(axes[0, -1] if d > 1 else axes[0, 0], gmm)
    return axes


@in_style
def densities(x, fit, *, names=None, axes=None):
    """Axes (D,): of each feature a histogram, the components' weighted densities and their sum."""
    x, names, gmm = _inputs(x, names, fit)
    axes = (new_axes(len(names), 3, 3.1, 2.4) if axes is None else np.ravel(axes))[: len(names)]
    colours = _colours(gmm, x, None)
    for j, ax in enumerate(axes):
        _draw(ax, x, [j], gmm, colours)
        ax.set(xlabel=names[j])
    _with_legend(axes[0], gmm)
    return axes


@in_style
def responsibilities(x, fit, *, ax=None):
    """Axes with p(component | row) of all rows, stacked, in the order of component and certainty."""
    x, _, gmm = _inputs(x, None, fit)
    r = _responsibilities(gmm, x)
    ax = new_axes(1, 1, 5.6, 2.6)[0] if ax is None else ax
    order = np.lexsort((-r.max(axis=1), r.argmax(axis=1)))
    ax.stackplot(np.arange(len(r)), r[order].T, colors=colours_of(r.shape[1]), linewidth=0.0)
    clear = np.mean(r.max(axis=1) > SURE)
    ax.set(xlim=(0, max(len(r) - 1, 1)), ylim=(0, 1))
    ax.set(xlabel="rows, by component and certainty", ylabel="p(component | row)")
    ax.set_title(f"{clear:.0%} of the rows belong to one component with p > {SURE:g}")
    return ax


@in_style
def traces(result, *, axes=None):
    """Axes (2,): log-likelihood of EM by iteration and its gap to the end; or log density and φ of a posterior.

    Args:
        result: of `em.fit_em` or `em.fit_em_restarts` (every fit, the best in colour), or a Posterior.
    """
    left, right = axes = new_axes(2, 2, 4.1, 3.0) if axes is None else np.ravel(axes)
    draws = result.draws if isinstance(result, Fit) else result
    if isinstance(draws, Posterior):
        for chain in np.asarray(draws.log_density):
            left.plot(chain, linewidth=0.6, alpha=0.8)
        for k, colour in enumerate(colours_of(np.shape(draws.draws.weights)[-1])):
            right.plot(np.asarray(draws.draws.weights)[..., k].T, color=colour, linewidth=0.5, alpha=0.6)
        left.set(xlabel="draw", ylabel="log density, nats", title="every chain")
        right.set(xlabel="draw", ylabel="φ", title="weights of the components")
        return axes
    best = getattr(result, "best", result)
    for trace in np.atleast_2d(getattr(result, "fits", best).trace):
        faint = {"color": COMPONENTS[0], "alpha": 0.25, "linewidth": 0.8}
        draw_trace(left, trace, **faint)
        draw_gaps(right, trace, **faint)
    draw_trace(left, best.trace, color=COMPONENTS[1])
    draw_gaps(right, best.trace, color=COMPONENTS[1])
    left.set(xlabel="iteration", ylabel="log-likelihood ℓ, nats", title="every start, the best in colour")
    right.set(xlabel="iteration", ylabel="final ℓ − ℓ, nats", yscale="log", title="what is left to the end")
    return axes


@in_style
def posterior_of_means(posterior: Posterior, x=None, *, features: Sequence[int] = (0, 1), names=None, axes=None):
    """Axes (K,) with the draws of each μ_k in one or two features, and ellipses at 1 and 2 posterior sds.

    Args:
        posterior: relabelled, or components are mixed up (`judge.relabel`, or a Fit of `judge.fit_posterior`).
        x: rows that lie near are grey dots.
    """
    draws = posterior.draws.draws if isinstance(posterior, Fit) else posterior.draws
    means = np.asarray(few_draws(draws, MOST_DRAWS).means, float)
    names = [f"feature {j + 1}" for j in range(means.shape[-1])] if names is None and x is None else names
    x, names, _ = _inputs(means[:0, 0] if x is None else x, names, None)
    pair = tuple(features)[: x.shape[1]]
    k = means.shape[1]
    axes = (new_axes(k, 3, 2.9, 2.6) if axes is None else np.ravel(axes))[:k]
    for j, ax in enumerate(axes):
        draw_cloud(ax, x, {"": means[:, j]}, None, pair, {"": {"color": colours_of(k)[j]}})
        ax.set(xlabel=f"μ, {names[pair[0]]}", title=f"component {j + 1}")
        if len(pair) == 2:
            ax.set(ylabel=f"μ, {names[pair[1]]}")
    return axes


def _inputs(x, names, fit):
    """(rows, names of the features, the mixture or None)."""
    named = [str(name) for name in getattr(x, "columns", ())]
    x = check_data(x, missing="marginalise") if len(x) else np.asarray(x, float)
    names = list(names) if names is not None else named or [f"feature {j + 1}" for j in range(x.shape[1])]
    if len(names) != x.shape[1]:
        raise ValueError(f"names must hold one name a feature, {x.shape[1]}; got {len(names)}.")
    if fit is None:
        return x, names, None
    gmm = host_mixture(fit, "fit")
    if gmm.n_features != x.shape[1]:
        raise ValueError(f"fit has {gmm.n_features} features, but x has {x.shape[1]}: pass the data that were fitted.")
    return x, names, gmm


def _responsibilities(gmm, x):
    return predictive(jax.tree.map(lambda leaf: np.asarray(leaf)[None], gmm), x, missing="marginalise").responsibilities


def _colours(gmm, x, labels):
    """A colour for each row, by its label or its responsibilities; grey without either."""
    if labels is not None:
        labels = np.asarray(labels)
        return np.array(colours_of(int(labels.max()) + 1))[labels]
    return np.full(len(x), MUTED) if gmm is None else mixed(_responsibilities(gmm, x))


def _draw(ax, x, features, gmm, colours, size=7):
    """Rows and components in some features; rows that miss one are left out."""
    used = np.flatnonzero(~np.isnan(x[:, features]).any(axis=1))
    used = used[np.linspace(0, len(used) - 1, min(len(used), MOST_ROWS)).astype(int)]
    draw_data(ax, x[np.ix_(used, features)], colours=colours[used], size=size)
    if gmm is not None:
        draw_components(ax, on(gmm, features), x[np.ix_(used, features)])
    if len(features) == 1:
        ax.set(yticks=[], ylim=(0.0, None))
        ax.spines["left"].set_visible(False)


def _with_legend(ax, gmm):
    if gmm is not None:
        name_components(ax, [f"{k}: φ = {weight:.2f}" for k, weight in enumerate(np.asarray(gmm.weights), start=1)])
    return ax
