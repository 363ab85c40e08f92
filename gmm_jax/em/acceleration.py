"""Fewer iterations: a limited-memory quasi-Newton step on top of EM, in coordinates without bounds.

Coordinates u are log φ (softmax back), μ, and the log-Cholesky factors of Σ (log variances where Σ is diagonal).
With g = ∇ℓ(u) and f = (coordinates of EM's image) − u, EM says f ≈ B g, where −B⁻¹ is the curvature of the
complete-data likelihood. So B is the first guess of L-BFGS's inverse Hessian, and the last moves (Δu, Δg) correct it;
B Δg is Δf, and no matrix is ever built or solved.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..mixture import GMM, Hyperparameters, Known, Moments, project, structure
from ..mixture.covariance import positive
from .m_step import log_prior

MEMORY = 10  # moves that are remembered


def to_coordinates(gmm: GMM) -> Float[Array, "n_coordinates"]:
    """Every part, known ones too: K + K·D + the structure's numbers. A weight of zero counts as the smallest float."""
    logs = structure(gmm.covariance_type).to_logs(gmm.covariances)
    log_weights = jnp.log(jnp.maximum(gmm.weights, jnp.finfo(gmm.weights.dtype).tiny))
    return jnp.concatenate([log_weights, gmm.means.ravel(), logs.ravel()])


def from_coordinates(vector: Float[Array, "n_coordinates"], like: GMM) -> GMM:
    """The mixture at these coordinates, in the shapes of `like`."""
    n_components, n_features = like.means.shape
    weights, means, logs = jnp.split(vector, [n_components, n_components * (1 + n_features)])
    covariances = structure(like.covariance_type).from_logs(logs, *like.means.shape)
    return GMM(jax.nn.softmax(weights), means.reshape(like.means.shape), covariances, like.covariance_type)


def gradient(
    gmm: GMM,
    whitener: Float[Array, "..."],
    moments: Moments,
    known: Known,
    reg_covar: Float[Array, "..."],
    prior: Hyperparameters | None = None,
) -> Float[Array, "n_coordinates"]:
    """∇(ℓ + log prior) in coordinates, 0 for known parts, from the sums of e_step(gmm), by Fisher's identity.

    With a ridge it is ∇Q of the M-step that adds it: zero where that M-step changes nothing.
    """
    kind, mass, (n_components, n_features) = structure(gmm.covariance_type), moments.mass, gmm.means.shape
    weights = gmm.weights if known.weights is None else jnp.where(jnp.isnan(known.weights), gmm.weights, 0.0)
    shared = mass if known.weights is None else jnp.where(jnp.isnan(known.weights), mass, 0.0)
    means = kind.linear(kind.white_means(moments.first, whitener), whitener)  # Σ_k⁻¹ Σ_n r_nk (x_n − μ_k)
    ridge = kind.add_to_diagonal(jnp.zeros_like(gmm.covariances), jnp.broadcast_to(reg_covar, (n_features,)))
    logs = kind.slopes(whitener, moments.second + kind.weigh(mass, ridge), mass, n_features)
    if known.means is not None:
        means = jnp.where(jnp.isnan(known.means), means, 0.0)
    if known.covariances is not None:
        known_covariances = known.covariances.reshape(n_components if kind.per_component else 1, -1)[:, :1]
        logs = jnp.where(jnp.isnan(known_covariances), logs.reshape(len(known_covariances), -1), 0.0)
    slopes = jnp.concatenate(
        [shared - weights * jnp.sum(shared) / positive(jnp.sum(weights)), means.ravel(), logs.ravel()]
    )
    if prior is None:
        return slopes

    def log_density(vector):
        there = project(from_coordinates(vector, gmm), known)
        return log_prior(there, known, kind.whitener(there.covariances), prior)

    return slopes + jax.grad(log_density)(to_coordinates(gmm))


class Chart(NamedTuple):
    """Coordinates without bounds."""

    flatten: Callable[[Any], Float[Array, "n_coordinates"]]  # parameters -> coordinates
    unflatten: Callable[[Float[Array, "n_coordinates"], Any], Any]  # coordinates, state -> parameters


class Point(NamedTuple):
    """A state in coordinates, its EM step and gradient; with a leading axis the moves between states, latest first."""

    coordinates: Float[Array, "*M n_coordinates"]  # u
    residual: Float[Array, "*M n_coordinates"]  # f
    gradient: Float[Array, "*M n_coordinates"]  # g


class Memory(NamedTuple):
    """The last point, once there is one, the moves before it, and the curvature along them."""

    last: Point
    begun: Bool[Array, ""]
    moves: Point  # leading axis M
    curvature: Float[Array, "M"]  # −Δu · Δg of each move, positive; 0 where there is none
    plain_next: Bool[Array, ""]  # the next step must be plain


def start_memory(n_coordinates: int, dtype, shape: tuple[int, ...] = ()) -> Memory:
    """A memory without a point, or with leading axes many, in NumPy."""
    zeros, moves = np.zeros((*shape, n_coordinates), dtype), np.zeros((*shape, MEMORY, n_coordinates), dtype)
    curvature, no = np.zeros((*shape, MEMORY), dtype), np.zeros(shape, bool)
    return Memory(Point(zeros, zeros, zeros), no, Point(moves, moves, moves), curvature, no)


def propose(
    chart: Chart, gradient: Callable, memory: Memory, state: Any, parameters: Any, image: Any
) -> tuple[Any, Bool[Array, ""], Memory]:
    """(parameters to try, whether they are the plain step's, memory with the move that led to `state`).

    The step is plain where it must be, where nothing is remembered yet, and where the other would not lead uphill.

    Reference:
        Jamshidian & Jennrich (1997), Acceleration of the EM algorithm by using quasi-Newton methods, JRSS B 59 (QN2).
    """
    u = chart.flatten(parameters)
    here = Point(u, chart.flatten(image) - u, gradient(state))
    memory = _remember(memory, here)
    step = _direction(memory)
    uphill = jnp.sum(step * here.gradient) > 0.0  # NaN is not
    plain = memory.plain_next | ~jnp.any(memory.curvature > 0.0) | ~uphill
    jump = chart.unflatten(here.coordinates + step, state)
    return jax.tree.map(lambda a, b: jnp.where(plain, a, b), image, jump), plain, memory


def forget(memory: Memory, rejected: Bool[Array, ""]) -> Memory:
    """The memory, without its moves where the last proposal was rejected: they describe another neighbourhood."""
    return memory._replace(curvature=jnp.where(rejected, jnp.zeros_like(memory.curvature), memory.curvature))


def _remember(memory, here):
    """The move from the last point to this one comes first, if ℓ curves downwards along it."""
    move = jax.tree.map(jnp.subtract, here, memory.last)
    curvature = -jnp.sum(move.coordinates * move.gradient)
    size = jnp.sqrt(jnp.sum(move.coordinates**2) * jnp.sum(move.gradient**2))
    useful = memory.begun & (curvature > jnp.finfo(curvature.dtype).eps * size)

    def push(new, old):
        return jnp.where(useful, jnp.concatenate([new[None], old[:-1]]), old)

    moves = jax.tree.map(push, move, memory.moves)
    curvatures = push(curvature, memory.curvature)
    return memory._replace(last=here, begun=jnp.ones((), bool), moves=moves, curvature=curvatures)


def _direction(memory):
    """The two-loop recursion of L-BFGS (Nocedal 1980), latest move first, for the climb: f where there is no move."""
    kept = memory.curvature > 0.0
    inverse = jnp.where(kept, 1.0 / jnp.where(kept, memory.curvature, jnp.ones_like(memory.curvature)), 0.0)

    def backwards(carry, move):
        gradient, step = carry
        (du, df, dg), inverse = move
        part = inverse * jnp.sum(du * gradient)
        return (gradient + part * dg, step + part * df), part  # Δf = B Δg: step stays B · gradient

    def forwards(step, move):
        ((du, _, dg), inverse), part = move
        return step + (part + inverse * jnp.sum(dg * step)) * du, None

    moves = (memory.moves, inverse)
    (_, step), parts = jax.lax.scan(backwards, (memory.last.gradient, memory.last.residual), moves)
    return jax.lax.scan(forwards, step, (moves, parts), reverse=True)[0]
