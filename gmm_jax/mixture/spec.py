"""One specification for every engine: how many components, which structure, what is known, which prior.

EM reads Known as a mask inside the M-step; the Bayesian side reads it as the sites that it need not sample.
"Case I" (φ and Σ known, learn μ) and "Case II" (nothing known) are two values of MixtureSpec.
"""

from dataclasses import field, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .checks import check_count, check_type, first_of, real_array, tree_dataclass
from .covariance import structure
from .gmm import GMM
from .validity import check_positive_definite, check_weights


@tree_dataclass
class Known:
    """Parameters known beforehand. None: the whole field is free. A row wholly NaN: that component's part is free.

    Known weights sum to less than 1 when any is free; tied covariances are known whole or not at all.
    """

    weights: Float[Array, "K"] | None = None
    means: Float[Array, "K D"] | None = None
    covariances: Float[Array, "..."] | None = None


@tree_dataclass
class Prior:
    """NumPyro distributions in the units of the data; None is the default of `bayes.default_prior`.

    weights: over φ. means: over one μ_k, event (D,). covariances: over one component's covariance leaf, event
    (D, D), (D,) or (), in variances (of `bayes.hierarchical_inverse_wishart`, over all components' together); or else
    scales: over its standard deviations, event (D,), () if spherical, with an LKJ concentration `correlation` (ignored
    where there is no correlation).
    """

    weights: Any = None
    means: Any = None
    covariances: Any = None
    scales: Any = None
    correlation: Any = None


class Hyperparameters(NamedTuple):
    """Hyperparameters of a semi-conjugate prior, in the units of the prior that they were read from."""

    alpha: Float[np.ndarray, "K"]  # φ ~ Dirichlet(α)
    loc: Float[np.ndarray, "D"]  # μ_k ~ N(loc, precision⁻¹)
    precision: Float[np.ndarray, "D D"]
    dof: float  # Σ_k ~ IW(dof, size), or variances ~ IG(dof, size)
    size: Float[np.ndarray, "..."]
    size_dof: float | None = None  # else the components' size is unknown: Wishart(size_dof), or gamma, with mean `size`


@tree_dataclass
class MixtureSpec:
    """The model to be fitted, the same for every engine."""

    n_components: int = field(metadata={"static": True})
    covariance_type: str = field(default="full", metadata={"static": True})
    known: Known = field(default_factory=Known)
    prior: Prior = field(default_factory=Prior)

    def __post_init__(self):
        check_count(self.n_components, "n_components")
        structure(self.covariance_type)
        check_type(self.known, Known, "known", "Known(...)")
        check_type(self.prior, Prior, "prior", "Prior(...)")


def project(gmm: GMM, known: Known) -> GMM:
    """The mixture with its known parts put in; free φ share 1 − Σ known φ in proportion to what they had."""
    return replace(
        gmm,
        weights=share(gmm.weights, known.weights),
        means=put(known.means, gmm.means),
        covariances=put(known.covariances, gmm.covariances),
    )


def put(known, free):
    """Known values where there are any, free ones elsewhere."""
    if known is None:
        return free
    known = jnp.asarray(known, free.dtype)
    return jnp.where(jnp.isnan(known), free, known)


def share(mass: Float[Array, "K"], known: Float[Array, "K"] | None) -> Float[Array, "K"]:
    """φ: known ones as they are, the rest divided among the free in proportion to their mass (evenly without any)."""
    if known is None:
        return mass / jnp.sum(mass)
    known = jnp.asarray(known, mass.dtype)
    is_free = jnp.isnan(known)
    fixed = jnp.where(is_free, jnp.zeros_like(known), known)
    free_mass = jnp.where(is_free, mass, jnp.zeros_like(mass))
    free_mass = jnp.where(jnp.sum(free_mass) > 0.0, free_mass, is_free.astype(mass.dtype))
    total = jnp.where(jnp.any(is_free), jnp.sum(free_mass), jnp.ones_like(mass[0]))
    return fixed + (1.0 - jnp.sum(fixed)) * free_mass / total


def free_rows(known, n_components) -> np.ndarray:
    """(K,) bool in NumPy: components whose part is free. Read once, at the entry point."""
    if known is None:
        return np.ones(n_components, bool)
    return np.isnan(np.asarray(known, float).reshape(n_components, -1)).all(axis=1)


def free_parts(spec: MixtureSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K,) masks of free weights, means and covariances; a known tied covariance is known for every component."""
    known, n_components = spec.known, spec.n_components
    per_component = structure(spec.covariance_type).per_component
    covariances = np.broadcast_to(free_rows(known.covariances, n_components if per_component else 1), (n_components,))
    return free_rows(known.weights, n_components), free_rows(known.means, n_components), covariances


def n_parameters(spec: MixtureSpec, n_features: int) -> int:
    """Free parameters of the model, without what is known: the p of AIC and BIC."""
    kind = structure(spec.covariance_type)
    weights, means, covariances = (int(mask.sum()) for mask in free_parts(spec))
    matrices = covariances if kind.per_component else min(covariances, 1)
    return max(weights - 1, 0) + means * n_features + matrices * kind.n_parameters(n_features)


def validate_spec(spec: MixtureSpec, n_features: int) -> MixtureSpec:
    """The spec with Known as float64 NumPy, or a ValueError that names field, component and remedy."""
    check_type(spec, MixtureSpec, "spec", "MixtureSpec(n_components, covariance_type)")
    kind = structure(spec.covariance_type)
    n_components = spec.n_components
    shapes = {
        "weights": (n_components,),
        "means": (n_components, n_features),
        "covariances": kind.shape(n_components, n_features),
    }
    fields = {name: _known_field(name, getattr(spec.known, name), shape) for name, shape in shapes.items()}
    if fields["covariances"] is not None:
        _check_known_covariances(fields["covariances"], spec.covariance_type)
    if fields["weights"] is not None:
        check_weights(fields["weights"], name="known.weights")
    value = spec.prior.correlation
    if value is not None and (np.ndim(value) or np.asarray(value).dtype.kind not in "fiu" or not 0.0 < value < np.inf):
        said = "a positive number, the concentration of an LKJ distribution (1 is uniform)"
        raise ValueError(f"prior.correlation must be {said}; got {value!r}.")
    return replace(spec, known=Known(**fields))


def _known_field(name, value, shape):
    if value is None:
        return None
    value = real_array(value, f"known.{name}").astype(float)
    if value.shape != shape:
        raise ValueError(f"known.{name} must have shape {shape}, with NaN rows where free; got {value.shape}.")
    if np.any(np.isinf(value)):
        raise ValueError(f"known.{name} must be finite, or NaN where free; got inf at {first_of(np.isinf(value))}.")
    if name == "covariances" and np.all(np.isnan(value)):
        return None
    missing = np.isnan(value)
    rows = missing.reshape(shape[0], -1)
    partly = rows.any(axis=1) & ~rows.all(axis=1)
    if name != "weights" and partly.any():
        k = int(np.argmax(partly))
        raise ValueError(
            f"known.{name} of component {k} is partly NaN; a component's {name} are known whole or not at all: "
            "fill the row or make all of it NaN."
        )
    return None if missing.all() else value


def _check_known_covariances(covariances, covariance_type):
    is_free = np.isnan(covariances)
    if covariance_type == "tied" and is_free.any():
        raise ValueError("known.covariances of a tied mixture is known whole or not at all: fill it or pass None.")
    # free rows are replaced by a harmless value, so that messages keep the component's number
    filler = np.eye(covariances.shape[-1]) if covariance_type in ("full", "tied") else 1.0
    check_positive_definite(np.where(is_free, filler, covariances), covariance_type, name="known.covariances")
