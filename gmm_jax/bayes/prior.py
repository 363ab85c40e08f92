"""The one prior: its default, its form in standardised units, and its hyperparameters where it is semi-conjugate.

Default: φ ~ Dirichlet(1), μ_k ~ N(x̄, (2s)²), Σ_k | C ~ IW(ν, C) and C ~ Wishart(g) with mean ν·diag(s²)·K^(−2/D),
ν = D + 1 and g = D, with s the sds of the data; diag and spherical likewise, each variance a 1 × 1 matrix. A fixed C
inflates every narrow direction: in ten dimensions the predictive density was 3 times as far from the truth as EM's.
ν = D + 2 is worse in four dimensions (0.915 of EM's divergence, not 0.90), g = D + 1 no better anywhere; g grows with
the data's ties (`dof_of_ties`). The default depends on the data: calibration and evidence want an explicit prior. φ, μ
and Σ are independent, so the family is semi-conjugate: NUTS and Gibbs target the same posterior.

Reference:
    Richardson & Green (1997), On Bayesian analysis of mixtures with an unknown number of components, JRSS B 59.
    Fraley & Raftery (2007), Bayesian regularization for normal mixture estimation, J. Classification 24 (the K^(−2/D)).
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import multigammaln
from jaxtyping import Array, Float

from ..mixture import Hyperparameters, MixtureSpec, NotSupported, Prior, Scaling, check_data, standardise, validate_spec
from ..mixture.checks import check_type, first_of, real_array
from ..mixture.covariance import structure
from ..mixture.factor import inverse_cholesky
from ..mixture.validity import check_positive_definite
from .checks import check_spec

POSITIVE = ("scale", "scale_tril", "rate", "concentration", "concentration0", "concentration1", "df")
FAR = 1e30  # what float32 holds, and its inverse


def default_prior(x: Float[Array, "N D"], spec: MixtureSpec) -> Prior:
    """The spec's prior with every default made explicit, in the units of the data."""
    x = check_data(x)
    spec = validate_spec(check_spec(spec), x.shape[1])
    scaling = standardise(x, spec)[1]
    return fill_defaults(spec, scaling.centre, scaling.scale, dof_of_ties(x, spec))


def with_concentration(spec: MixtureSpec, concentration: float) -> MixtureSpec:
    """The spec with φ ~ Dirichlet(concentration, ..., concentration).

    With many samples, components that are not needed stay empty where it is below half the number of parameters of a
    component, and double others where it is above.

    Reference:
        Rousseau & Mengersen (2011), JRSS B 73.
    """
    import numpyro.distributions as dist

    weights = dist.Dirichlet(np.full(spec.n_components, float(concentration)))
    return replace(spec, prior=replace(spec.prior, weights=weights))


def hierarchical_inverse_wishart(dof: float, scale_dof: float, scale_mean):
    """A prior over covariances with a common unknown scale: Σ_k | C ~ IW(dof, C), C ~ Wishart with mean scale_mean.

    As `Prior.covariances`. C is what the components have in common, and is integrated out.

    Args:
        dof: ν of each Σ_k given C, above D − 1.
        scale_dof: of C ~ Wishart(scale_dof, scale_mean / scale_dof), above D − 1; the larger, the nearer is C to its
            mean, and the law of Σ_k to IW(dof, scale_mean).
        scale_mean: E[C], (D, D) for full and tied; for diag (D,) and for spherical a number: each variance is then a
            1 × 1 matrix, with D = 1.

    Returns:
        A NumPyro distribution of one covariance; `jointly(n)` is that of n under one scale.

    Reference:
        Richardson & Green (1997), JRSS B 59, for D = 1; Stephens (1997), Bayesian methods for mixtures of normal
        distributions, thesis, Oxford; Frühwirth-Schnatter (2006), section 6.3.2.
    """
    from .hierarchical import HierarchicalInverseWishart

    mean = real_array(scale_mean, "scale_mean").astype(float)
    if mean.ndim > 2 or (mean.ndim == 2 and mean.shape[0] != mean.shape[1]):
        raise ValueError(f"scale_mean must be a matrix (D, D), variances (D,), or a number; got shape {mean.shape}.")
    if not np.all(np.isfinite(mean)):
        raise ValueError(f"scale_mean must be finite; got {mean[first_of(~np.isfinite(mean))]}.")
    check_positive_definite(mean, "tied" if mean.ndim == 2 else "diag", name="scale_mean")
    least = mean.shape[0] - 1.0 if mean.ndim == 2 else 0.0
    for name, value in (("dof", dof), ("scale_dof", scale_dof)):
        if np.ndim(value) or not least < value < np.inf:
            raise ValueError(f"{name} must be a number above {least:g}, which is D - 1; got {value!r}.")
    return HierarchicalInverseWishart(np.float64(dof), np.float64(scale_dof), mean)


def fill_defaults(spec: MixtureSpec, centre, scale, ties: float) -> Prior:
    """Defaults for data with this centre, these sds and `dof_of_ties`; what the spec gives is kept."""
    import numpyro.distributions as dist

    given, n_components, n_features = spec.prior, spec.n_components, len(scale)
    _check_prior(given, spec, n_features)
    if given.covariances is not None and given.scales is not None:
        raise ValueError("Prior takes covariances or scales, not both: remove one.")
    if given.correlation is not None and given.scales is None:
        raise ValueError("prior.correlation goes with a prior on scales: give prior.scales too, or remove it.")
    defaults = {
        "weights": dist.Dirichlet(np.ones(n_components)),
        "means": dist.Normal(np.asarray(centre), 2.0 * np.asarray(scale)).to_event(1),
    }
    if given.scales is None:
        defaults["covariances"] = _default_covariances(spec, np.asarray(scale), ties)
    return replace(given, **{name: value for name, value in defaults.items() if getattr(given, name) is None})


def _default_covariances(spec, scale, ties):
    n_features, kind = len(scale), spec.covariance_type
    d = _matrix_size(spec, n_features)
    mean = (d + 1.0) * np.asarray(scale, float) ** 2 * spec.n_components ** (-2.0 / n_features)
    mean = {"diag": mean, "spherical": mean[0]}.get(kind, np.diag(mean))
    return hierarchical_inverse_wishart(d + 1.0, d + ties, mean)


def _matrix_size(spec, n_features) -> float:
    return float(n_features if spec.covariance_type in ("full", "tied") else 1)


def dof_of_ties(x: Float[np.ndarray, "N D"], spec: MixtureSpec) -> float:
    """The degrees of freedom that the unknown scale needs beyond D where rows agree in a feature; NaN agree with none.

    As C and the variances ε of components that hold n_j equal values each go to 0, the posterior goes like
    ε^((g + ν − Σ_j (n_j − 1))/2) dε/ε: ν for one more component, which holds the rest; empty ones cost nothing. So the
    largest K − 1 groups decide whether posterior and evidence are finite; D + 2 is what g has to spare.
    """
    n_components, spherical = spec.n_components, spec.covariance_type == "spherical"
    parts = [x[~np.isnan(x).any(axis=1)]] if spherical else [column[~np.isnan(column)] for column in x.T]
    needs = [0.0]
    for part in parts:
        more = np.sort(np.unique(part, axis=0, return_counts=True)[1])[::-1] - 1
        everything = more.size <= n_components  # no other component is needed
        if everything or spec.covariance_type != "tied":
            fitted = np.sum(more if everything else more[: n_components - 1]) * (x.shape[1] if spherical else 1)
            needs.append(float(fitted) - (0.0 if everything else _matrix_size(spec, x.shape[1]) + 1.0) + 2.0)
    return max(needs)


def standardised(spec: MixtureSpec, scaling: Scaling, ties: float = 0.0) -> tuple[Prior, tuple[str, ...]]:
    """The prior of standardised parameters, and the fields that were left in the units of the data.

    Normal, inverse Wishart and inverse gamma are mapped in float64, so that an offset of 1e8 costs nothing in float32;
    the model evaluates any other distribution at the parameter mapped back to the units of the data.
    """
    zero, one = np.zeros_like(scaling.scale), np.ones_like(scaling.scale)
    prior, foreign = fill_defaults(spec, zero, one, ties), []  # the default prior is affine equivariant
    for name, convert in (("means", _means_inward), ("covariances", _covariances_inward), ("scales", None)):
        distribution = getattr(spec.prior, name)
        if distribution is None:
            continue
        mapped = None if convert is None else convert(distribution, scaling)
        if mapped is None:
            _check_support(name, distribution)
            foreign.append(name)
        else:
            prior = replace(prior, **{name: mapped})
    return prior, tuple(foreign)


def hyperparameters(prior: Prior, covariance_type: str) -> Hyperparameters:
    """Hyperparameters of a semi-conjugate prior, read from its distributions; NotSupported, with the reason, else."""
    import numpyro.distributions as dist

    from .hierarchical import HierarchicalInverseWishart

    if prior.weights is None or prior.means is None:
        raise ValueError("hyperparameters needs an explicit prior: pass bayes.default_prior(x, spec).")
    normal, spread = _base(prior.means), _base(prior.covariances) if prior.scales is None else prior.scales
    for name, given, kinds, wanted in (
        ("weights", prior.weights, dist.Dirichlet, "a Dirichlet"),
        ("means", normal, (dist.Normal, dist.MultivariateNormal), "a normal"),
        (
            "covariances",
            spread,
            (HierarchicalInverseWishart, dist.InverseWishart, dist.InverseGamma),
            "an inverse Wishart or inverse gamma",
        ),
    ):
        if not isinstance(given, kinds):
            raise NotSupported(f"gibbs needs {wanted} prior on {name}; got {_name(given)}: use nuts.")

    def whole(value, event):
        return np.broadcast_to(np.asarray(value, float), event.event_shape)

    if isinstance(normal, dist.Normal):
        precision = np.diag(1.0 / whole(normal.scale, prior.means) ** 2)
    else:
        precision = np.linalg.inv(np.asarray(normal.covariance_matrix, float))
    size_dof = None
    if isinstance(spread, HierarchicalInverseWishart):
        numbers = spread.dof, spread.scale_dof, spread.scale_mean
        if np.ndim(spread.scale_mean) < 2:  # IW(ν, C) of a 1 × 1 matrix is IG(ν/2, C/2)
            numbers = (whole(value, prior.covariances) / 2.0 for value in numbers)
        dof, size_dof, size = (np.asarray(value, float) for value in numbers)
    elif isinstance(spread, dist.InverseWishart):
        tril = np.asarray(spread.base_dist.scale_tril, float)
        dof, size = float(spread.base_dist.concentration), tril @ tril.T
    else:
        dof, size = whole(spread.concentration, prior.covariances), whole(spread.rate, prior.covariances)
    alpha, loc = np.asarray(prior.weights.concentration, float), whole(normal.loc, prior.means)
    return Hyperparameters(alpha, loc, precision, dof, size, size_dof)


@dataclass(frozen=True)
class Form:
    """How a prior is put together from its numbers in the order of their names; two are equal if their names are."""

    name: str  # of its distributions and their shapes, the same in every process
    tree: Any = field(compare=False)
    order: tuple[int, ...] = field(compare=False)

    def __repr__(self) -> str:
        return self.name


def to_leaves(prior: Prior) -> tuple[tuple, Form]:
    """The prior's numbers, ordered by the names of their fields, and what `from_leaves` needs to undo it.

    NumPyro flattens a distribution in the order of a set of strings, which changes from process to process; with it the
    compiled program would change, and no cache on disk would hold it.
    """
    leaves, tree = jax.tree.flatten(prior)
    names = [name for part in fields(prior) for name in _leaf_names(getattr(prior, part.name), part.name)]
    known = len(names) == len(leaves)
    order = sorted(range(len(leaves)), key=names.__getitem__) if known else range(len(leaves))
    # an order that only this process has is marked as what stands in its memory: see `stored.named`
    said = [_named(getattr(prior, part.name)) for part in fields(prior)] + ([] if known else [" at 0x"])
    return tuple(leaves[i] for i in order), Form(f"({','.join(said)})", tree, tuple(order))


def from_leaves(leaves: tuple, form: Form) -> Prior:
    """The prior again."""
    return jax.tree.unflatten(form.tree, [leaves[place] for place in np.argsort(form.order)])


def _named(value) -> str:
    """Distributions and their fields by name, numbers as *; what is not NumPyro's or ours means nothing elsewhere."""
    import numpyro.distributions as dist

    if not isinstance(value, dist.Distribution):
        return f"{jax.tree.structure(value)}"
    kind = type(value)
    place = "" if kind.__module__.startswith(("numpyro.", "gmm_jax.")) else f" at 0x{id(kind):x}"
    parts = [f"{name}={_named(value.__dict__.get(name))}" for name in sorted(kind.gather_pytree_data_fields())]
    parts += [f"{name}={value.__dict__.get(name)!r}" for name in sorted(kind.gather_pytree_aux_fields())]
    return f"{kind.__module__}.{kind.__qualname__}{place}({','.join(parts)})"


def log_inverse_wishart(distribution, covariances: Float[Array, "*batch D D"]) -> Float[Array, "*batch"]:
    """Its log density, from one factorisation that is ours: NumPyro's asks LAPACK five times in every gradient."""
    dof, tril = distribution.base_dist.concentration, distribution.base_dist.scale_tril
    n = covariances.shape[-1]
    whitener = inverse_cholesky(covariances)  # Σ⁻¹ = WᵀW
    half_log_det = -jnp.sum(jnp.log(jnp.diagonal(whitener, axis1=-2, axis2=-1)), axis=-1)
    trace = jnp.sum((whitener @ tril) ** 2, axis=(-2, -1))
    size = dof * (jnp.sum(jnp.log(jnp.diagonal(tril))) - 0.5 * n * jnp.log(2.0)) - multigammaln(0.5 * dof, n)
    return size - (dof + n + 1.0) * half_log_det - 0.5 * trace


def _leaf_names(value, name):
    """A name for every leaf, in the order in which JAX flattens them."""
    import numpyro.distributions as dist

    if isinstance(value, dist.Distribution):
        for part in type(value).gather_pytree_data_fields():
            yield from _leaf_names(value.__dict__.get(part), f"{name}.{part}")
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _leaf_names(part, f"{name}.{i}")
    else:
        for path, _ in jax.tree_util.tree_leaves_with_path(value):
            yield f"{name}{jax.tree_util.keystr(path)}"


def _means_inward(prior, scaling):
    import numpyro.distributions as dist

    normal, scale = _base(prior), scaling.scale
    if not isinstance(normal, (dist.Normal, dist.MultivariateNormal)):
        return None
    loc = (np.asarray(normal.loc, float) - scaling.centre) / scale
    if isinstance(normal, dist.Normal):
        return dist.Normal(loc, np.asarray(normal.scale, float) / scale).to_event(1)
    return dist.MultivariateNormal(loc, scale_tril=np.asarray(normal.scale_tril, float) / scale[:, None])


def _covariances_inward(prior, scaling):
    import numpyro.distributions as dist

    from .hierarchical import HierarchicalInverseWishart

    base, scale = _base(prior), scaling.scale
    if isinstance(base, HierarchicalInverseWishart):
        mean = np.asarray(base.scale_mean, float)
        stretch = np.outer(scale, scale) if mean.ndim == 2 else scale**2 if mean.ndim else scale[0] ** 2
        return HierarchicalInverseWishart(base.dof, base.scale_dof, mean / stretch)
    if isinstance(base, dist.InverseWishart):
        tril = np.asarray(base.base_dist.scale_tril, float) / scale[:, None]
        return dist.InverseWishart(np.asarray(base.base_dist.concentration, float), scale_tril=tril)
    if isinstance(base, dist.InverseGamma):
        divisor = scale**2 if prior.event_shape else scale[0] ** 2
        mapped = dist.InverseGamma(np.asarray(base.concentration, float), np.asarray(base.rate, float) / divisor)
        return mapped.to_event(1) if prior.event_shape else mapped
    return None


def conjugate(problem, engine: str) -> Hyperparameters:
    """The hyperparameters of a standardised problem, in its dtype; NotSupported, with the reason, where it has none."""
    if problem.foreign:
        raise NotSupported(f"{engine} needs a semi-conjugate prior; {', '.join(problem.foreign)} has none: use nuts.")
    hyper = hyperparameters(problem.prior, problem.spec.covariance_type)
    return jax.tree.map(lambda leaf: np.asarray(leaf, problem.z.dtype), hyper)


def _check_prior(prior, spec, n_features):
    import numpyro.distributions as dist

    kind = structure(spec.covariance_type)
    leaf = kind.shape(1, n_features)[kind.per_component :]
    expected = {"weights": (spec.n_components,), "means": (n_features,), "covariances": leaf, "scales": leaf[:1]}
    for name, event in expected.items():
        distribution = getattr(prior, name)
        if distribution is None:
            continue
        check_type(distribution, dist.Distribution, f"prior.{name}", "a NumPyro distribution")
        batch, found = tuple(distribution.batch_shape), tuple(distribution.event_shape)
        if batch:
            raise ValueError(
                f"prior.{name} must be one distribution, the same for every component; got batch shape {batch}: use "
                ".to_event(1) for an event over features."
            )
        if found != event:
            remedy = ": use .to_event(1) on a distribution over features." if len(event) == 1 else "."
            raise ValueError(f"prior.{name} must have event shape {event}; got {found}{remedy}")
        _check_numbers(f"prior.{name}", distribution)


def _check_numbers(name, distribution):
    """A prior that is one point, or nothing: where a number of it is not finite, or a scale is not positive."""
    for part in (distribution, _base(distribution), getattr(_base(distribution), "base_dist", None)):
        for parameter in getattr(type(part), "arg_constraints", ()):
            value = vars(part).get(parameter)
            if value is None or parameter in ("low", "high"):
                continue
            numbers = np.asarray(value, float)
            bad = numbers[~np.isfinite(numbers)]
            if bad.size:
                remedy = "it must be finite; leave it None for the default prior"
                raise ValueError(f"{name} has {parameter} {bad[0]}: {remedy}.")
            least = np.min(np.diagonal(numbers, axis1=-2, axis2=-1) if parameter == "scale_tril" else numbers)
            if parameter in POSITIVE and least <= 0.0:
                remedy = "it must be positive; to hold a value fixed, pass it as Known"
                raise ValueError(f"{name} has {parameter} {least:.6g}: {remedy}.")


def _check_support(name, distribution):
    """The model's coordinates reach all means and all scales, and NumPyro's densities do not end at their bounds."""
    if len(distribution.event_shape) == 2:
        return  # a distribution over matrices
    ends = (-FAR, FAR) if name == "means" else (1.0 / FAR, FAR)
    reach, such = ("real", "Normal or StudentT") if name == "means" else ("positive", "HalfNormal or Gamma")
    if not all(np.all(distribution.support(np.full(distribution.event_shape, end))) for end in ends):
        raise NotSupported(
            f"prior.{name} must be possible for every {reach} number; {_name(distribution)} has bounds: use one "
            f"without, such as {such}."
        )


def _base(distribution):
    """The distribution inside `.expand` and `.to_event`; its parameters broadcast to the event."""
    import numpyro.distributions as dist

    while isinstance(distribution, (dist.Independent, dist.ExpandedDistribution)):
        distribution = distribution.base_dist
    return distribution


def _name(distribution):
    return type(_base(distribution)).__name__
