"""Arguments of the wrong kind, in a sentence: which argument, which value, what to pass."""

import jax
import numpy as np
from jaxtyping import Float

from ..mixture import GMM, MixtureSpec, Posterior, check_data, standardise, validate_spec
from ..mixture.checks import check_type, kind_of
from ..mixture.gmm import mixture_of


def check_spec(spec) -> MixtureSpec:
    """The spec itself, or a ValueError where it is something else."""
    return check_type(spec, MixtureSpec, "spec", "MixtureSpec(n_components=3)")


def check_posterior(posterior) -> Posterior:
    """The posterior itself, with leading axes (chains, draws), or a ValueError."""
    if not isinstance(posterior, Posterior):
        raise ValueError(
            f"posterior must be a Posterior, as an engine of bayes returns it; got {kind_of(posterior)}: "
            "pass fit.draws of a Fit, or posterior_ of an estimator."
        )
    if np.ndim(posterior.draws.weights) != 3:
        raise ValueError(
            f"posterior.draws must have leading axes (chains, draws); got weights of shape "
            f"{np.shape(posterior.draws.weights)}."
        )
    return posterior


def host_mixture(value, name: str, *, like: GMM | None = None) -> GMM:
    """The mixture of a GMM, or of a result that holds one (a Fit, EM's result or restarts, a fitted estimator).

    float64 in NumPy. A ValueError where there is none, or where it has other features than `like`.
    """
    value = getattr(value, "point", getattr(value, "mixture_", value))
    found = jax.tree.map(lambda leaf: np.asarray(leaf, float), mixture_of(value, name))
    if like is not None and found.n_features != like.n_features:
        raise ValueError(
            f"{name} has {found.n_features} features, where {like.n_features} are needed: use mixtures of one data set."
        )
    return found


def check_width(x, name: str, gmm: GMM) -> np.ndarray:
    """x checked, with as many columns as the mixture has features."""
    x = check_data(x, name=name)
    if x.shape[1] != gmm.n_features:
        raise ValueError(f"{name} has {x.shape[1]} columns, but the mixture has {gmm.n_features} features.")
    return x


def standardised(x, spec: MixtureSpec | None, *gmms: GMM) -> tuple[Float[np.ndarray, "N D"], MixtureSpec, list[GMM]]:
    """Data checked and in their own units, the spec checked, and mixtures of any leading axes in the same units."""
    x = check_data(x)
    n_components, n_features = gmms[0].means.shape[-2:]
    if x.shape[1] != n_features:
        raise ValueError(f"x has {x.shape[1]} columns, but the draws have {n_features} features: pass the data fitted.")
    spec = validate_spec(MixtureSpec(n_components, gmms[0].covariance_type) if spec is None else spec, n_features)
    z, scaling = standardise(x, spec)
    return z, spec, [jax.tree.map(lambda leaf: np.asarray(leaf, z.dtype), scaling.inward(gmm)) for gmm in gmms]
