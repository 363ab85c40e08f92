r"""The mixture p(x) = Σ_k φ_k N(x | μ_k, Σ_k), its densities, and what can be done to it.

All densities are log densities through Cholesky factors, for one mixture; `jax.vmap` gives many.
"""

import math
from dataclasses import field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from .annotations import Annotations, condition, groups_at_once, missing_groups, strike_out, ungroup
from .checks import check_count, check_key, first_of, float_array, native, real_array, tree_dataclass
from .cores import in_batches
from .covariance import HALF_LOG_TWO_PI, structure, whitened_log_joint
from .factor import cholesky, last_axes
from .forks import check_process
from .programs import jit
from .validity import LEAVES, check_positive_definite, check_shapes, check_weights

ROUNDING = 1e-3  # nats of a log density: what rounds it by more is computed without what all components share


@tree_dataclass
class GMM:
    r"""Gaussian mixture p(x) = Σ_k φ_k N(x | μ_k, Σ_k).

    The shape of `covariances` follows covariance_type: full (K, D, D), tied (D, D), diag (K, D), spherical (K,).
    Leading axes (restarts, chains, draws, ...) may stand in front of every leaf. Shapes that do not fit together are
    found where the mixture is written; `validate` checks the numbers of one mixture too.
    """

    weights: Float[Array, "*batch K"]  # φ, on the simplex
    means: Float[Array, "*batch K D"]  # μ, units of the data
    covariances: Float[Array, "*shape"]  # Σ, squared units of the data
    covariance_type: str = field(default="full", metadata={"static": True})

    def __post_init__(self):
        for name in LEAVES:
            if isinstance(leaf := getattr(self, name), list):  # of JSON
                object.__setattr__(self, name, real_array(leaf, f"gmm.{name}").astype(float))
        # vmap's in_axes and the like are mixtures of other things than arrays
        if all(hasattr(getattr(self, name), "shape") for name in LEAVES):
            check_shapes(self, "gmm")

    @property
    def n_components(self) -> int:
        return self.means.shape[-2]

    @property
    def n_features(self) -> int:
        return self.means.shape[-1]


def variances_of(gmm: GMM) -> Float[np.ndarray, "*batch K D"]:
    """The variances of each feature in each component, in float64 NumPy."""
    kind = structure(gmm.covariance_type)
    variances = kind.variances(np.asarray(gmm.covariances, float))
    return np.broadcast_to(variances if kind.per_component else variances[..., None, :], np.shape(gmm.means))


def log_joint_components_first(gmm: GMM, deviations: Float[Array, "K D N"], whitener=None) -> Float[Array, "K N"]:
    """log φ_k + log N(x_n | μ_k, Σ_k) from the deviations x_n − μ_k: the one place where the density is written.

    `whitener` is the structure's whitener of gmm.covariances, for callers that take many blocks of rows.
    """
    kind = structure(gmm.covariance_type)
    whitener = kind.whitener(gmm.covariances) if whitener is None else whitener
    return whitened_log_joint(gmm.weights, log_normalisers(gmm, whitener), kind.whiten(whitener, deviations))


def log_normalisers(gmm: GMM, whitener: Float[Array, "..."]) -> Float[Array, "K"]:
    """−½ log |2π Σ_k|, broadcastable to (K,)."""
    n_features = gmm.means.shape[-1]
    return structure(gmm.covariance_type).half_log_precision(whitener, n_features) - n_features * HALF_LOG_TWO_PI


def deviations(gmm: GMM, x: Float[Array, "N D"]) -> Float[Array, "K D N"]:
    """x_n − μ_k, components first."""
    return x.T[None, :, :] - gmm.means[:, :, None]


def log_joint(gmm: GMM, x: Float[Array, "N D"], *, missing: str | None = None) -> Float[Array, "N K"]:
    """log φ_k + log N(x_n | μ_k, Σ_k), nats; NaN where a Σ_k is not positive definite, or an entry of x is NaN.

    With missing="marginalise" it is the density of what is not NaN in each row (see `annotations`), and so in
    `log_prob`, `responsibilities` and `predict`. NaN are looked for in NumPy, so not under jit, vmap or grad.
    """
    gmm, x, groups = given(gmm, x, missing)
    return log_joint_of_rows(gmm, x, Annotations(groups=groups))


@jit
def log_joint_of_rows(gmm: GMM, x: Float[Array, "N D"], rows: Annotations) -> Float[Array, "N K"]:
    """log_joint of what was seen of each row; −inf where its label says that it is another component."""
    if rows.groups is None:
        joint = log_joint_components_first(gmm, deviations(gmm, x))
    else:
        joint = _log_joint_of_groups(gmm, x, rows.groups).T
    # so far away that squares overflow, of both signs
    joint = jnp.where(jnp.isnan(joint) & _far(gmm, x)[None], jnp.asarray(-jnp.inf, joint.dtype), joint)
    return strike_out(joint, rows.labels).T


def _log_joint_of_groups(gmm, x, groups):
    def one(group):
        members, seen = group
        return condition(gmm, jnp.take(x, members, axis=0), seen)[0].T  # (B, K)

    joint = in_batches(one, tuple(groups), groups_at_once(groups, gmm))
    return ungroup(groups, joint, x.shape[0])


@jit
def log_prob_of_rows(gmm: GMM, x: Float[Array, "N D"], rows: Annotations) -> Float[Array, "N"]:
    """log p(x_n) of what was seen; of a labelled row jointly with its label, log φ_k N(x_n | μ_k, Σ_k)."""
    even = replace(gmm, weights=jnp.ones_like(gmm.weights))
    return _log_mixture(gmm.weights, log_joint_of_rows(even, x, rows))


@jax.custom_jvp
def _log_mixture(weights, log_densities):
    """log Σ_k φ_k N_k from φ, (K,), and log N_k, (N, K)."""
    return logsumexp(jnp.log(weights)[None] + log_densities, axis=-1)


@_log_mixture.defjvp
def _log_mixture_jvp(primals, tangents):
    """∂ log p / ∂φ_k = N_k / p, also where φ_k = 0 and the logarithm of φ_k has no derivative."""
    (weights, log_densities), (d_weights, d_logs) = primals, tangents
    log_p = _log_mixture(weights, log_densities)
    top = 0.99 * math.log(jnp.finfo(log_p.dtype).max)
    ratio = jnp.exp(jnp.minimum(log_densities - jnp.where(jnp.isfinite(log_p), log_p, 0.0)[:, None], top))
    r = ratio * weights[None]
    d_logs = jnp.where(r > 0.0, d_logs, jnp.zeros_like(d_logs))  # of what underflows it may not be finite
    return log_p, jnp.sum(ratio * d_weights[None] + r * d_logs, axis=-1)


def log_prob(gmm: GMM, x: Float[Array, "N D"], *, missing: str | None = None) -> Float[Array, "N"]:
    """log p(x_n) of each sample, nats per unit volume of the data (of what was seen of them: see log_joint)."""
    gmm, x, groups = given(gmm, x, missing)
    return log_prob_of_rows(gmm, x, Annotations(groups=groups))


def responsibilities(gmm: GMM, x: Float[Array, "N D"], *, missing: str | None = None) -> Float[Array, "N K"]:
    """p(component k | x_n): rows sum to one, also where every density underflows. `missing` as in log_joint."""
    return responsibilities_of_rows(*given(gmm, x, missing))


@jit
def responsibilities_of_rows(gmm: GMM, x: Float[Array, "N D"], groups) -> Float[Array, "N K"]:
    """`responsibilities` of what was seen of each row."""
    logs = _comparable(gmm, x, groups)
    top = jax.lax.stop_gradient(_highest(gmm, logs))
    # not a softmax with log φ_k: where φ_k = 0 it has no derivative, and r_nk has
    share = gmm.weights[None] * jnp.exp(jnp.minimum(logs - top, 0.5 * math.log(jnp.finfo(logs.dtype).max)))
    return share / jnp.sum(share, axis=1, keepdims=True)


def predict(gmm: GMM, x: Float[Array, "N D"], *, missing: str | None = None) -> Int[Array, "N"]:
    """The most probable component of each sample (the lowest index on a tie). `missing` as in log_joint."""
    return _predict(*given(gmm, x, missing))


@jit
def _predict(gmm, x, groups):
    return jnp.argmax(jnp.log(gmm.weights)[None] + _comparable(gmm, x, groups), axis=-1)


def _comparable(gmm, x, groups):
    """log N(x_n | μ_k, Σ_k), (N, K); of whole rows so far away that it rounds what tells components apart, up to a
    number for each row."""
    even = replace(gmm, weights=jnp.ones_like(gmm.weights))
    logs = log_joint_of_rows(even, _drawn_in(gmm, x), Annotations(groups=groups))
    if groups is not None:
        return logs
    far = ~(_highest(gmm, logs) > -ROUNDING / jnp.finfo(logs.dtype).eps)
    return jax.lax.cond(jnp.any(far), lambda: jnp.where(far, _of_far_rows(gmm, x), logs), lambda: logs)


def _highest(gmm, logs):
    """(N, 1): the largest of components that have a weight."""
    return jnp.max(jnp.where(gmm.weights[None] > 0.0, logs, -jnp.inf), axis=1, keepdims=True)


def _of_far_rows(gmm, x):
    """The same, (N, K): about the centre, with x = s u, it is c + s b − ½ s² a, and what all share of a is left out."""
    kind, centre = structure(gmm.covariance_type), (gmm.weights @ gmm.means)[None]
    whitener, means = kind.whitener(gmm.covariances), gmm.means - centre
    off = x / 64 - centre / 64  # so that neither the difference nor one over it is too large or small
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(off), axis=1, keepdims=True))
    u = off / jnp.where(size > 0.0, size, jnp.ones_like(size))
    ahead = kind.whiten(whitener, jnp.broadcast_to(u.T[None], (*means.shape, len(x))))  # (K, D, N)
    middle = kind.white_means(means, whitener)
    a, b = jnp.sum(ahead * ahead, axis=1).T, jnp.sum(ahead * middle[:, :, None], axis=1).T
    most = jnp.sqrt(jnp.finfo(x.dtype).max) / (4.0 + 4.0 * jnp.sqrt(jnp.max(a, axis=1, keepdims=True)))
    s = jax.lax.stop_gradient(jnp.minimum(64 * size, most))
    c = log_normalisers(gmm, whitener) - 0.5 * jnp.sum(middle * middle, axis=-1)
    return c[None] + s * b - 0.5 * s * (s * (a + _highest(gmm, -a)))


def _far(gmm, x):
    """(N,) bool: rows whose squared deviations may overflow."""
    kind = structure(gmm.covariance_type)
    steepest = jnp.sqrt(jnp.max(kind.precisions(kind.whitener(gmm.covariances))))
    bound = math.sqrt(jnp.finfo(x.dtype).max) / (4 * gmm.n_features)
    return jnp.max(jnp.abs(x), axis=1) > bound / steepest  # NaN is not


def _drawn_in(gmm, x):
    """x with far rows drawn in along the line to the centre, to where the most probable component is already clear."""
    variances = structure(gmm.covariance_type).variances(gmm.covariances)
    centre = jnp.sum(gmm.weights[:, None] * gmm.means, axis=0)[None]
    span = jnp.sqrt(jnp.max(variances)) + jnp.max(jnp.abs(gmm.means - centre))
    off = x / 64 - centre / 64  # so that neither the difference nor one over it is too large or small
    reach = jnp.max(jnp.abs(off), axis=1, keepdims=True)
    step = off / jnp.where(reach > 0.0, reach, jnp.ones_like(reach))
    near = centre + step * (span / math.sqrt(jnp.finfo(x.dtype).eps))
    return jnp.where(_far(gmm, x)[:, None], near, x)


def sample(key: Key[Array, ""], gmm: GMM, n: int) -> tuple[Float[Array, "n D"], Int[Array, "n"]]:
    """n independent samples and the components that made them, labels drawn for every sample anew."""
    return _sample(check_key(key), mixture_of(gmm), check_count(n, "n", 0))


@partial(jit, static_argnames="n")
def _sample(key, gmm, n):
    key_labels, key_noise = jax.random.split(key)
    labels = jax.random.categorical(key_labels, jnp.log(gmm.weights), shape=(n,))
    return sample_given_labels(key_noise, gmm, labels), labels


@jit
def sample_given_labels(key: Key[Array, ""], gmm: GMM, labels: Int[Array, "N"]) -> Float[Array, "N D"]:
    """One sample from component labels[n] for every n."""
    n_components, n_features = gmm.means.shape
    noise = jax.random.normal(key, (labels.shape[0], n_features), gmm.means.dtype)
    if gmm.covariance_type in ("diag", "spherical"):
        variances = structure(gmm.covariance_type).variances(gmm.covariances)
        roots = jnp.sqrt(jnp.broadcast_to(variances, gmm.means.shape))
    else:
        roots = cholesky(structure(gmm.covariance_type).dense(gmm.covariances, n_components, n_features))

    def place(x, component):  # one component at a time: no (N, D, D) array
        k, mean, root = component
        off = noise @ root.T if root.ndim == 2 else noise * root[None]
        return jnp.where((labels == k)[:, None], mean[None, :] + off, x), None

    components = (jnp.arange(n_components, dtype=labels.dtype), gmm.means, roots)
    return jax.lax.scan(place, jnp.zeros_like(noise), components)[0]


def permute(gmm: GMM, order: Int[Array, "*batch K"]) -> GMM:
    """The same mixture with component order[j] in place j; leading axes of order and leaves must agree."""
    gmm = mixture_of(gmm)
    kind = structure(gmm.covariance_type)
    permuted = replace(gmm, weights=_take(gmm.weights, order, 1), means=_take(gmm.means, order, 2))
    if not kind.per_component:
        return permuted
    return replace(permuted, covariances=_take(gmm.covariances, order, len(kind.shape(1, 1))))


def affine(gmm: GMM, scale, shift=0.0) -> GMM:
    """The mixture of scale · x + shift.

    `scale` is a number, a vector (D,), or for full and tied a matrix (D, D); spherical takes a number only.
    Leading axes of the mixture are kept; NumPy leaves stay NumPy.
    """
    gmm = mixture_of(gmm)
    xp = np if isinstance(gmm.means, np.ndarray) else jnp
    scale, shift = xp.asarray(scale, gmm.means.dtype), xp.asarray(shift, gmm.means.dtype)
    shift = last_axes(shift * xp.ones(gmm.n_features, shift.dtype), gmm.means.ndim)
    if scale.ndim == 2:
        if gmm.covariance_type not in ("full", "tied"):
            raise ValueError(f"affine with a matrix needs covariance_type full or tied; got {gmm.covariance_type!r}.")
        matrix = scale
        return replace(gmm, means=gmm.means @ matrix.T + shift, covariances=matrix @ gmm.covariances @ matrix.T)
    if gmm.covariance_type == "spherical" and scale.ndim == 1 and np.ptp(np.asarray(scale)) != 0.0:
        raise ValueError("affine of a spherical mixture needs one common scale; got a vector with different entries.")
    scale = scale * xp.ones(gmm.n_features, scale.dtype)
    return replace(
        gmm,
        means=gmm.means * last_axes(scale, gmm.means.ndim) + shift,
        covariances=structure(gmm.covariance_type).rescale(gmm.covariances, scale),
    )


def validate(gmm: GMM, *, name: str = "gmm", n_features: int | None = None) -> GMM:
    """The mixture itself, or a ValueError with one sentence: which leaf, which component, what to try."""
    mixture_of(gmm, name)
    leaves = {leaf: real_array(getattr(gmm, leaf), f"{name}.{leaf}") for leaf in LEAVES}
    weights, means, covariances = leaves.values()
    if means.ndim != 2:
        raise ValueError(f"{name}.means must have shape (K, D); got {means.shape}.")
    if n_features is not None and means.shape[1] != n_features:
        raise ValueError(f"{name}.means has {means.shape[1]} features, but the data have {n_features}.")
    check_shapes(gmm, name)
    for leaf, values in leaves.items():
        if not np.all(np.isfinite(values)):
            where = first_of(~np.isfinite(values))
            raise ValueError(f"{name}.{leaf} must be finite; got {values[where]} at index {where}.")
    check_weights(weights, name=f"{name}.weights")
    check_positive_definite(covariances, gmm.covariance_type, name=f"{name}.covariances")
    return gmm


def mixture_of(value, name: str = "gmm") -> GMM:
    """The mixture itself, or that of a result (`.gmm`, `.best.gmm`); a ValueError where there is none."""
    found = value if isinstance(value, GMM) else getattr(getattr(value, "best", value), "gmm", None)
    if not isinstance(found, GMM):
        raise ValueError(f"{name} must be a GMM or a result that holds one; got a {type(value).__name__} in its place.")
    return jax.tree.map(native, found)


def given(gmm, x, missing: str | None = None, *, name: str = "gmm"):
    """(one mixture, the rows as an array of as many features, their groups), or a ValueError."""
    check_process()
    gmm = mixture_of(gmm, name)
    if isinstance(x, GMM):
        raise ValueError("x must be an array of rows; got a GMM: the mixture comes first, then x.")
    x = x if isinstance(x, jax.Array) and x.dtype.kind == "f" else float_array(x, "x")
    if gmm.means.ndim != 2:
        raise ValueError(f"{name} must be one mixture; its means have shape {gmm.means.shape}: use jax.vmap for many.")
    if x.ndim != 2 or x.shape[1] != gmm.n_features:
        wanted = f"(N, {gmm.n_features}), as the mixture has it"
        raise ValueError(f"x must have shape {wanted}; got {x.shape}: one row is x[None], one feature is x[:, None].")
    return gmm, *missing_groups(x, missing)


def _take(leaf, order, trailing):
    xp = np if isinstance(leaf, np.ndarray) else jnp
    index = xp.reshape(xp.asarray(order), xp.shape(order) + (1,) * (trailing - 1))
    return xp.take_along_axis(leaf, index, axis=leaf.ndim - trailing)
