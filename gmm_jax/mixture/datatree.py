"""A posterior as ArviZ knows it, and back: groups of arrays whose axes have names."""

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from .cores import ONE_AT_A_TIME, over_draws
from .covariance import structure
from .gmm import GMM, LEAVES, log_prob, sample
from .programs import jit
from .records import NotSupported, Posterior, Status
from .scaling import check_data, standardise
from .spec import MixtureSpec

NUMBERS = 1 << 20  # of one intermediate array: as many draws at a time


def to_datatree(posterior: Posterior, x=None, *, log_likelihood=False, predictive_key: Key[Array, ""] | None = None):
    """What `Posterior.to_datatree` says."""
    from arviz_base import from_dict
    from xarray import DataArray

    if x is None and (log_likelihood or predictive_key is not None):
        raise ValueError("to_datatree needs x for log_likelihood and for posterior_predictive: pass the data as well.")
    if log_likelihood:
        refuse_labels(posterior)
    kind = structure(posterior.draws.covariance_type)
    n_axes = len(kind.shape(1, 1)) - kind.per_component
    dims = {
        "weights": ["component"],
        "means": ["component", "feature"],
        "covariances": ["component"] * kind.per_component + ["feature", "feature_2"][:n_axes],
        "x": ["observation", "feature"],  # "sample" is ArviZ's word for a chain's draw
    }
    shape = np.shape(posterior.log_density)
    stats = {name: np.asarray(value) for name, value in posterior.stats.items()}
    per_draw = {name: value for name, value in stats.items() if value.shape[:2] == shape}
    draws = {name: np.asarray(getattr(posterior.draws, name)) for name in LEAVES}
    groups = {"posterior": draws, "sample_stats": {"lp": np.asarray(posterior.log_density), **per_draw}}
    if x is not None:
        x = check_data(x)
        groups["observed_data"] = {"x": x}
    if predictive_key is not None:
        groups["posterior_predictive"] = {"x": posterior_predictive(predictive_key, posterior.draws, x)}
    tree = from_dict(groups, dims=dims)
    for name in stats.keys() - per_draw.keys():
        axes = [f"{name}_dim_{i}" for i in range(stats[name].ndim - 1)]
        tree[f"sample_stats/{name}"] = DataArray(stats[name], dims=["chain", *axes])
    if log_likelihood:
        tree["log_likelihood/x"] = DataArray(pointwise(posterior.draws, x), dims=["chain", "draw", "observation"])
    tree.attrs |= {"covariance_type": posterior.draws.covariance_type, "status": Status(posterior.status).name}
    if posterior.named is not None:
        tree.attrs["named"] = np.asarray(posterior.named)
    return tree


def from_datatree(tree) -> Posterior:
    """The posterior of which to_datatree made the tree."""
    leaves = {name: tree["posterior"][name].values for name in LEAVES}
    stats = {name: values.values for name, values in tree["sample_stats"].data_vars.items() if name != "lp"}
    draws = GMM(**leaves, covariance_type=tree.attrs["covariance_type"])
    named = None if "named" not in tree.attrs else np.atleast_1d(tree.attrs["named"])
    return Posterior(draws, tree["sample_stats"]["lp"].values, stats, Status[tree.attrs["status"]], named)


def refuse_labels(posterior: Posterior) -> None:
    """A NotSupported where labels took part: p(x_n | θ) without its label is not what the posterior saw of row n."""
    if posterior.named is not None:
        raise NotSupported(
            "leave-one-out and its log-likelihoods know nothing of labels, by which these draws were made: leave the "
            "labels out, or compare held-out rows."
        )


def pointwise(draws: GMM, x: Float[Array, "N D"]) -> Float[np.ndarray, "C S N"]:
    """log p(x_n | θ) of every draw, labels summed out, in the units of the data."""
    z, scaling, inner = _inward(draws, x)
    return np.asarray(_pointwise(inner, z), float) - scaling.log_volume


def posterior_predictive(key: Key[Array, ""], draws: GMM, x: Float[Array, "N D"]) -> Float[np.ndarray, "C S N D"]:
    """For every draw as many new samples as x has rows, each with a label of its own."""
    z, scaling, inner = _inward(draws, x)
    return np.asarray(_predict(key, inner, z.shape[0]), float) * scaling.scale + scaling.centre


def _inward(draws, x):
    """Data and draws standardised: float32 could not hold their offset."""
    z, scaling = standardise(x, MixtureSpec(draws.n_components, draws.covariance_type))
    return z, scaling, jax.tree.map(lambda leaf: leaf.astype(z.dtype), scaling.inward(draws))


@partial(jit, compiler_options=ONE_AT_A_TIME)
def _pointwise(draws, z):
    return over_draws(lambda gmm: log_prob(gmm, z), draws, NUMBERS // (z.size * draws.n_components))


@partial(jit, static_argnames="n", compiler_options=ONE_AT_A_TIME)
def _predict(key, draws, n):
    keys = jax.random.split(key, draws.weights.shape[:2])
    return over_draws(lambda pair: sample(pair[0], pair[1], n)[0], (keys, draws), 1)
