"""EM is a sum followed by a small solve: here is the sum.

Moments are sums over rows, about the current means m, so blocks, streams, devices and sampled labels (Gibbs) are only
ways of taking the same sum: m_step and the conjugate updates see nothing else of the data.

The sum can be taken in two ways. From deviations x − m_k it is right for any mixture. From sufficient statistics, which
all components share, it is two matrix products and 3 to 20 times faster, but its rounding errors are κ² times larger,
where κ is a distance from the centre that the statistics are about, in the smallest standard deviation of a component.
So they are taken about the mean of each block of rows. Only rows that a component is responsible for count for its κ²,
and where blocks are leaves of a k-d tree (`leaves`) these are near the centre. The sums bring their κ² with them: a fit
iterates on sums that are good enough for that, and those that it returns keep three quarters of the digits.

Reference:
    Moore (1999), Very fast EM-based mixture model clustering using multiresolution kd-trees, NIPS 11, for the leaves.
"""

from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int

from .annotations import Annotations, Groups, condition, groups_at_once, strike_out, there
from .covariance import positive, structure
from .gmm import GMM, deviations, log_joint_components_first, log_normalisers

BLOCK_ROWS = 512  # rows in one block of statistics: products of this size run near the hardware's rate on one core
BLOCK_NUMBERS = 1 << 13  # K·D·rows in one block of deviations, which then stays in the nearest cache
FEWEST_DEVIATIONS = 256  # rows in one block of deviations
SHARPEST = 0.1  # of 1/eps: from this κ² about the origin on, a density may be wrong by a factor, and so may its κ²

EXACT = -1.0  # in place of a reach
MULTIPLIED = {4: 8, 8: 32}  # bytes of a number -> how many numbers up to K have a product that is finite: K < 5e4

Precision = Literal["fast", "exact"]


class Moments(NamedTuple):
    """Sums over rows, about the current means m; blocks add leaf by leaf."""

    mass: Float[Array, "K"]  # Σ_n r_nk
    first: Float[Array, "K D"]  # Σ_n r_nk (x_n − m_k)
    second: Float[Array, "..."]  # Σ_n r_nk (x_n − m_k)(x_n − m_k)ᵀ, or the part of it that the structure needs
    log_likelihood: Float[Array, ""]  # Σ_n log p(x_n), nats


class FastMoments(NamedTuple):
    """The same from statistics, with what tells how inexact they are; blocks add leaf by leaf as well."""

    mass: Float[Array, "K"]
    first: Float[Array, "K D"]
    second: Float[Array, "..."]
    log_likelihood: Float[Array, ""]
    reach: Float[Array, "K"]  # Σ_n r_nk of squared distances from the centre, EXACT of exact sums: see `kappa_squared`

    @property
    def moments(self) -> Moments:
        return Moments(*self[:-1])


def moments(gmm: GMM, d: Float[Array, "K D N"], r: Float[Array, "K N"], log_prob: Float[Array, "N"]) -> Moments:
    """The sums for given responsibilities r (soft from e_step, one-hot from labels), components first.

    Second moments are taken about m, not the origin: E[x²] − μ² cancels.
    """
    second = structure(gmm.covariance_type).scatter(r, d)
    return Moments(jnp.sum(r, axis=1), jnp.sum(r[:, None] * d, axis=-1), second, jnp.sum(log_prob))


def moved(sums: Moments, covariance_type: str, d: Float[Array, "K D"]) -> Moments:
    """The same sums about m + d: without a way round by the origin, where second moments would cancel."""
    kind = structure(covariance_type)
    spread = kind.estimate(sums.mass, sums.second, sums.first / positive(sums.mass)[:, None], d)  # Σ about m + d
    count = sums.mass if kind.per_component else jnp.sum(sums.mass, keepdims=True)
    second = spread * count.reshape(-1, *[1] * (spread.ndim - 1))
    return sums._replace(first=sums.first - sums.mass[:, None] * d, second=second.reshape(spread.shape))


def e_step(
    gmm: GMM,
    x: Float[Array, "N D"],
    sample_weight: Float[Array, "N"] | None = None,
    *,
    labels: Int[Array, "N"] | None = None,
    groups: Groups | None = None,
    uniforms: Float[Array, "N"] | None = None,
    n_rows: Int[Array, ""] | None = None,
    block_size: int | None = None,
    whitener: Float[Array, "..."] | None = None,
    sums: Precision | None = None,
) -> Moments:
    """Responsibilities r_nk = p(k | x_n) under `gmm`, and their moments about gmm.means.

    Rows are taken in blocks of block_size (by default as many as stay in the cache), so memory beyond x is bounded.
    `sample_weight` multiplies each row's share in every sum, the log-likelihood included. A row whose label is known
    (not -1) belongs to that component alone. With `groups` (from `missing_groups`) sums are expectations given what was
    seen: of unseen entries, and in `second` of their squares. With `uniforms`, numbers between 0 and 1, each row goes
    whole to one component, which is drawn by inversion of r: Gibbs' labels. Only the first n_rows count where that is
    given: zeros that fill up are in no sum, and blocks of them are not computed. `whitener` is the structure's
    whitener of gmm.covariances, for callers that have it. `sums` is how the sum is taken; by default from statistics,
    and where these do not keep three quarters of the digits once more from deviations, which under `vmap` computes
    both.

    Reference:
        Dempster, Laird & Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm, JRSS B 39.
    """
    whitener = structure(gmm.covariance_type).whitener(gmm.covariances) if whitener is None else whitener
    rows = Annotations(sample_weight, labels, groups, n_rows)

    def take(sums):
        return take_sums(gmm, whitener, x, rows, sums, uniforms=uniforms, block_size=block_size)

    if sums == "exact" or groups is not None:
        return take("exact")
    fast = take("fast")
    if sums == "fast":
        return fast.moments
    keeps = kappa_squared(gmm, whitener, fast) <= kappa_squared_limit(x.dtype, 0.75)
    return jax.lax.cond(keeps, lambda: fast.moments, lambda: take("exact"))


def take_sums(
    gmm: GMM,
    whitener: Float[Array, "..."],
    x: Float[Array, "N D"],
    rows: Annotations,
    sums: Precision | Bool[Array, ""],
    *,
    uniforms: Float[Array, "N"] | None = None,
    block_size: int | None = None,
) -> Moments | FastMoments:
    """The sums of e_step by the given way. Gaps have a way of their own, which is exact.

    Whether they are exact may also be a number: then one program, compiled in little more time than one of the two,
    takes them either way.
    """
    if rows.groups is not None:
        return _from_groups(gmm, x, rows)
    given = gmm, whitener, x, rows.weight, rows.labels, uniforms, rows.n_rows, block_size
    if isinstance(sums, str):
        return _from_statistics(*given) if sums == "fast" else _from_deviations(*given)
    reach = jnp.full_like(gmm.weights, EXACT)
    return jax.lax.cond(sums, lambda: FastMoments(*_from_deviations(*given), reach), lambda: _from_statistics(*given))


def expected_log_joint(
    gmm: GMM, moments: Moments, means: Float[Array, "K D"], reg_covar: Float[Array, "..."] | float = 0.0
) -> Float[Array, ""]:
    """Q = Σ_k mass_k (log φ_k − ½ log |Σ_k| − ½ tr Σ_k⁻¹ (S_k + ridge)), the constant left out: what m_step maximises.

    S_k is the scatter about μ_k divided by the mass; `moments` are about `means`.
    """
    kind, n_features = structure(gmm.covariance_type), means.shape[1]
    s = moments.first / positive(moments.mass)[:, None]
    scatter = kind.estimate(moments.mass, moments.second, s, gmm.means - means)
    scatter = kind.add_to_diagonal(scatter, jnp.broadcast_to(jnp.asarray(reg_covar, means.dtype), (n_features,)))
    whitener = kind.whitener(gmm.covariances)
    fit = kind.half_log_precision(whitener, n_features) - 0.5 * kind.trace(whitener, scatter, n_features)
    weights = jnp.maximum(gmm.weights, jnp.finfo(gmm.weights.dtype).tiny)
    return jnp.sum(moments.mass * (jnp.log(weights) + fit))


@jax.custom_jvp
def log_likelihood(gmm: GMM, x: Float[Array, "N D"], rows: Annotations) -> Float[Array, ""]:
    """Σ_n log p(x_n) of the rows as annotated, nats: a sum of e_step, and so is its gradient.

    By Fisher's identity ∇ℓ(θ) = ∇Q(θ' | θ) at θ' = θ, where Q sees nothing but moments: no pass back over the data. It
    is differentiable in the mixture alone, as often as is asked for.
    """
    return _sums(gmm, x, rows).log_likelihood


def _sums(gmm, x, rows):
    return e_step(gmm, x, rows.weight, labels=rows.labels, groups=rows.groups, n_rows=rows.n_rows)


@partial(log_likelihood.defjvp, symbolic_zeros=True)
def _log_likelihood_jvp(primals, tangents):
    gmm, x, rows = primals
    # ∂ℓ/∂φ_k = Σ_n N_k / p also where φ_k = 0: a weight that changes nothing stands in for it
    gmm = replace(gmm, weights=jnp.maximum(gmm.weights, jnp.finfo(gmm.weights.dtype).eps ** 2))
    if not all(isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(tangents[1:])):
        raise NotImplementedError("log_likelihood is differentiable in the mixture alone: differentiate log_prob.")
    sums = _sums(gmm, x, rows)
    slopes = jax.tree.leaves(jax.grad(expected_log_joint)(gmm, sums, gmm.means))
    moves = jax.tree.leaves(tangents[0])
    climb = [jnp.sum(slope * d) for slope, d in zip(slopes, moves, strict=True) if not isinstance(d, SymbolicZero)]
    return sums.log_likelihood, sum(climb, jnp.zeros_like(sums.log_likelihood))


def kappa_squared_limit(dtype, kept: float) -> float:
    """The κ² up to which sums from statistics keep that part of the digits."""
    return float(jnp.finfo(dtype).eps) ** (kept - 1.0)


def kappa_squared(gmm: GMM, whitener: Float[Array, "..."], sums: Moments | FastMoments) -> Float[Array, ""]:
    """How many times larger than in sums from deviations rounding errors may be in these: 0 where they are none other.

    For each component it is the mean over its rows, by responsibility, of |y|² + |y||c − m|, y their deviations from
    the centre c of their block, in units of its smallest variance; the largest counts.
    """
    if isinstance(sums, Moments):
        return jnp.zeros_like(sums.log_likelihood)
    precision = jnp.max(structure(gmm.covariance_type).precisions(whitener), axis=-1)
    kappa = jnp.max(precision * sums.reach / positive(sums.mass))
    blunt = _about_origin(gmm, whitener) <= SHARPEST / jnp.finfo(kappa.dtype).eps
    return jnp.select([sums.reach[0] == EXACT, blunt], [jnp.zeros_like(kappa), kappa], jnp.inf)


def ill_conditioned(gmm: GMM, whitener: Float[Array, "..."]) -> Bool[Array, ""]:
    """Whether sums from statistics about the origin would lose more than half of the digits: rows are not looked at."""
    return ~(_about_origin(gmm, whitener) <= kappa_squared_limit(gmm.means.dtype, 0.5))


def _about_origin(gmm, whitener):
    kind = structure(gmm.covariance_type)
    spread = jnp.broadcast_to(kind.variances(gmm.covariances), gmm.means.shape) + gmm.means * gmm.means
    precisions = jnp.broadcast_to(kind.precisions(whitener), gmm.means.shape)
    return jnp.max(jnp.max(spread, axis=-1) * jnp.max(precisions, axis=-1))


def chosen(
    likelihood: Float[Array, "K N"], total: Float[Array, "N"], uniforms: Float[Array, "N"]
) -> Float[Array, "K N"]:
    """One-hot: of each column, with its sum, the component into whose share u·total falls."""
    n_components = likelihood.shape[0]
    # a product, as a cumulative sum along so short an axis is slower
    reached = jnp.tril(jnp.ones((n_components, n_components), likelihood.dtype)) @ likelihood > (uniforms * total)[None]
    reached = reached.at[-1].set(True)  # rounding could leave none
    return reached.astype(likelihood.dtype).at[1:].add(-reached[:-1].astype(likelihood.dtype))


def _from_deviations(gmm, whitener, x, sample_weight, labels, uniforms, n_rows, block_size):
    size = block_size or rows_of_deviations(*gmm.means.shape)

    def block(rows, weight):
        x, labels, uniforms = rows
        d = deviations(gmm, x)
        if weight is not None and weight.dtype != bool:
            # a row of weight zero counts as absent, even where its density is not finite
            d = jnp.where((weight > 0.0)[None, None], d, jnp.zeros_like(d))
        joint = strike_out(log_joint_components_first(gmm, d, whitener), labels)  # (K, N)
        return _shared_out(gmm, d, joint, weight, uniforms)

    return add_blocks(block, (x, labels, uniforms), sample_weight, size, n_rows=n_rows)


def rows_of_deviations(n_components: int, n_features: int) -> int:
    """Rows in one block of deviations, components first."""
    return min(BLOCK_ROWS, max(FEWEST_DEVIATIONS, BLOCK_NUMBERS // (n_components * n_features)))


def _shared_out(gmm, d, joint, weight, uniforms=None):
    """The moments of rows by their log joint densities."""
    log_prob = logsumexp(joint, axis=0)
    r = jnp.exp(joint - log_prob[None])
    r = r if uniforms is None else chosen(r, jnp.ones_like(log_prob), uniforms)
    if weight is None:
        return moments(gmm, d, r, log_prob)
    if weight.dtype == bool:
        return moments(gmm, d, jnp.where(weight[None], r, 0.0), jnp.where(weight, log_prob, 0.0))
    return moments(gmm, d, r * weight[None], log_prob * weight)


def _from_groups(gmm, x, rows):
    kind, data = structure(gmm.covariance_type), (x, rows.weight, rows.labels)

    def one(members, seen, new):
        x, counts, labels = jax.tree.map(lambda leaf: jnp.take(leaf, members, axis=0), data)
        joint, d, leftover = condition(gmm, x, seen)
        weight = ((members >= 0) & new).astype(x.dtype)
        weight = weight if counts is None else weight * counts
        d = jnp.where((weight > 0.0)[None, None], d, jnp.zeros_like(d))
        sums = _shared_out(gmm, d, strike_out(joint, labels), weight)
        return sums._replace(second=sums.second + kind.weigh(sums.mass, leftover))

    def block(groups, new):
        new = jnp.ones(groups.rows.shape[:1], bool) if new is None else new
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), jax.vmap(one)(*groups, new))

    return add_blocks(block, rows.groups, None, groups_at_once(rows.groups, gmm))


def _from_statistics(gmm, whitener, x, sample_weight, labels, uniforms, n_rows, block_size):
    kind, (n_components, n_features) = structure(gmm.covariance_type), gmm.means.shape
    constant = jnp.log(gmm.weights) + log_normalisers(gmm, whitener)
    quadratic = kind.quadratic(whitener, n_components, n_features)

    def block(rows, weight):
        x, labels, uniforms = rows
        once = weight is None or weight.dtype == bool  # each row that is there
        centre, y = _about_their_mean(x.T, weight)
        d = gmm.means - centre[None]
        white = kind.white_means(d, whitener)
        peak = constant - 0.5 * jnp.sum(white * white, axis=-1)
        natural = jnp.concatenate([peak[:, None], kind.linear(white, whitener), quadratic], axis=1)  # (K, S)
        # the barriers keep the compiler from computing statistics and exponentials twice
        statistics = jax.lax.optimization_barrier(kind.statistics(y))  # (S, N)
        joint = strike_out(natural @ statistics, labels)
        top = jnp.max(joint, axis=0)
        likelihood = jax.lax.optimization_barrier(jnp.exp(joint - top[None]))
        total = jnp.sum(likelihood, axis=0)
        count = jnp.ones_like(total) if weight is None else weight.astype(total.dtype)
        r = likelihood * (count / total)[None]
        if uniforms is not None:
            r = chosen(likelihood, total, uniforms) * count[None]
        if once:
            total = total if weight is None else jnp.where(weight, total, 1.0)
            log_likelihood = top @ count + _sum_of_logs(total)
        else:
            log_likelihood = (top + jnp.log(total)) @ count
        sums = weigh(statistics, r)
        mass, _, squares = parts_of(sums, n_features)
        norm = kind.squared_norm(squares, n_features)
        reach = norm + jnp.sqrt(norm * mass * jnp.sum(d * d, axis=1))
        return recentred(kind, sums, d), reach, log_likelihood

    size = block_size or BLOCK_ROWS
    sums, reach, log_likelihood = add_blocks(block, (x, labels, uniforms), sample_weight, size, n_rows)
    mass, first, squares = parts_of(sums, n_features)
    return FastMoments(mass, first.T, kind.second(squares), log_likelihood, reach)


def _about_their_mean(columns, weight):
    """Centre, (D,), and deviations from it, (D, N), of rows; those of weight zero count as absent, and have none."""
    if weight is None:
        centre = jnp.mean(columns, axis=1)
        return centre, columns - centre[:, None]
    there = (weight if weight.dtype == bool else weight > 0.0)[None]
    columns = jnp.where(there, columns, jnp.zeros_like(columns))
    centre = jnp.sum(columns, axis=1) / positive(jnp.sum(there.astype(columns.dtype)))
    return centre, jnp.where(there, columns - centre[:, None], jnp.zeros_like(columns))


def work_of_step(n_fits: int, n_samples: int, n_components: int, n_features: int) -> int:
    """Multiplications in each of the two products of an E-step from statistics, of all fits together."""
    return n_fits * n_samples * n_components * (n_features + 1) * (n_features + 2) // 2


def weigh(statistics: Float[Array, "S N"], r: Float[Array, "K N"]) -> Float[Array, "S K"]:
    """Σ_n r_kn s_n. Statistics first, both contracted over their last axis: the order in which the product is fast."""
    return jax.lax.dot_general(statistics, r, (((1,), (1,)), ((), ())))


def parts_of(sums: Float[Array, "S K"], n_features: int):
    """Σ r, (K,), Σ r y, (D, K), and Σ r y_i y_j, (S − 1 − D, K), of summed statistics."""
    return sums[0], sums[1 : 1 + n_features], sums[1 + n_features :]


def recentred(kind, sums: Float[Array, "S K"], d: Float[Array, "K D"]) -> Float[Array, "S K"]:
    """Summed statistics about c as those about c + d_k: not by way of the origin, where squares would cancel."""
    mass, first, squares = parts_of(sums, d.shape[1])
    later = first - mass[None] * d.T
    squares = squares - kind.products(first, d.T) - kind.products(d.T, later)
    return jnp.concatenate([mass[None], later, squares])


def _sum_of_logs(totals):
    """Σ log of numbers from 1 to K, by the logs of products: a log costs as much as three exponentials."""
    n = MULTIPLIED[totals.dtype.itemsize]
    filled = jnp.concatenate([totals, jnp.ones((-totals.shape[0] % n,), totals.dtype)])
    return jnp.sum(jnp.log(jnp.prod(filled.reshape(n, -1), axis=0)))


def even_rows(n_samples: int, size: int) -> int:
    """Rows in a block: the largest number from size/2 to size that leaves none over, or else size."""
    return next((s for s in range(size, size // 2, -1) if n_samples % s == 0), size)


def add_blocks(block, rows, weight, size, n_rows=None):
    """block(rows, weight) summed over blocks of at most `size` rows, sliced from arrays where they lie.

    The last block may reach back into the one before; rows that were counted there weigh nothing, and neither do those
    from n_rows on: where rows have no weights, `weight` then says which ones count. Blocks beyond are not computed.
    """
    n_samples = jax.tree.leaves(rows)[0].shape[0]
    if n_samples <= size:
        return block(rows, _counted(weight, None if n_rows is None else there(n_samples, n_rows)))
    size = even_rows(n_samples, size)
    n_blocks = -(-n_samples // size)

    def take(i):
        start = jnp.minimum(i * size, n_samples - size)
        part, counts = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), (rows, weight))
        place, new = start + jnp.arange(size, dtype=start.dtype), None
        if n_samples % size:
            new = place >= i * size
        if n_rows is not None:
            new = (place < n_rows) & (True if new is None else new)
        return block(part, _counted(counts, new))

    def add(total, i):
        return jax.tree.map(jnp.add, total, take(i))

    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(take, jnp.int32(0)))
    if n_rows is None:
        return jax.lax.scan(lambda total, i: (add(total, i), None), zero, jnp.arange(n_blocks, dtype=jnp.int32))[0]
    return jax.lax.fori_loop(0, (n_rows + (size - 1)) // size, lambda i, total: add(total, i), zero)


def _counted(weight, new):
    """Weights that are 0 where a row is not new; that itself where there are none."""
    if weight is None or new is None:
        return new if weight is None else weight
    return jnp.where(new, weight, jnp.zeros_like(weight))
