"""Where iterations begin: a start is a pure function (key, x, spec) -> GMM, so `vmap` over keys gives many.

A callable of the same form is accepted wherever a name is. Known means are taken as the first centres; whoever
iterates from the start puts the other known parts in (`project`). A function that takes n_rows is given rows filled up
with zeros and how many there are, and is compiled for a few sizes; one that does not is compiled for each size.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from .annotations import Annotations, there, total_count
from .covariance import structure
from .gmm import GMM
from .moments import BLOCK_ROWS, add_blocks, parts_of, recentred, weigh
from .spec import MixtureSpec, put

LLOYD_STEPS = 25


def random(key: Key[Array, ""], x: Float[Array, "N D"], spec: MixtureSpec, n_rows=None) -> GMM:
    """The course's start: μ ~ N(0, I), φ uniform and normalised, Σ = A Aᵀ with A uniform on (0, 1).

    It does not look at the data: meant for standardised ones. A Aᵀ can be nearly singular, as in the course.
    """
    del n_rows
    key_means, key_weights, key_covariances = jax.random.split(key, 3)
    kind, (n_components, n_features) = structure(spec.covariance_type), (spec.n_components, x.shape[1])
    means = jax.random.normal(key_means, (n_components, n_features), x.dtype)
    mass = jax.random.uniform(key_weights, (n_components,), x.dtype, minval=jnp.finfo(x.dtype).tiny)

    def squares(key):
        return jnp.sum(jax.random.uniform(key, means.shape, x.dtype) ** 2, axis=-1)

    if kind.each is structure("full"):
        a = jax.random.uniform(key_covariances, (*means.shape, n_features), x.dtype)
        each = a @ jnp.swapaxes(a, -1, -2)
    else:  # its diagonal, a row of all A at a time
        each = jax.lax.map(squares, jax.random.split(key_covariances, n_features)).T
    weights = mass / jnp.sum(mass)
    return GMM(weights, means, kind.pool(each, weights), spec.covariance_type)


def random_points(key: Key[Array, ""], x: Float[Array, "N D"], spec: MixtureSpec, n_rows=None) -> GMM:
    """K distinct rows of x as means, equal weights, the covariance of the data everywhere."""
    rows = distinct_rows(key, x.shape[0] if n_rows is None else n_rows, spec.n_components)
    return _around(x, put(spec.known.means, x[rows]), spec, n_rows)


def kmeans_plusplus(key: Key[Array, ""], x: Float[Array, "N D"], spec: MixtureSpec, n_rows=None) -> GMM:
    """Centres drawn one by one with probability ∝ squared distance to the nearest; then as from_means.

    Reference:
        Arthur & Vassilvitskii (2007), k-means++: the advantages of careful seeding, SODA.
    """
    return from_means(x, _seed(key, x, spec, n_rows), spec, n_rows)


def kmeans(key: Key[Array, ""], x: Float[Array, "N D"], spec: MixtureSpec, n_rows=None) -> GMM:
    """Lloyd's algorithm from k-means++ centres until they stay, at most LLOYD_STEPS; then as from_means."""
    counted = jnp.concatenate([jnp.ones((x.shape[0], 1), x.dtype), x], axis=1)

    def lloyd(state):
        step, means, _ = state

        def block(rows, new):
            one_hot = _one_hot(_nearest(rows[:, 1:], means, None), spec.n_components, x.dtype)
            return weigh(rows.T, one_hot if new is None else jnp.where(new[None], one_hot, 0.0))

        sums = add_blocks(block, counted, None, BLOCK_ROWS, n_rows)
        count = sums[0][:, None]
        moved = jnp.where(count > 0.0, sums[1:].T / jnp.maximum(count, 1.0), means)
        moved = put(spec.known.means, moved)
        return step + 1, moved, jnp.any(moved != means)

    begin = jnp.int32(0), _seed(key, x, spec, n_rows), jnp.asarray(True)
    _, means, _ = jax.lax.while_loop(lambda state: state[2] & (state[0] < LLOYD_STEPS), lloyd, begin)
    return from_means(x, means, spec, n_rows)


def from_means(x: Float[Array, "N D"], means: Float[Array, "K D"], spec: MixtureSpec, n_rows=None) -> GMM:
    """Each row goes to its nearest mean; then as from_labels, with the means kept."""
    start = from_labels(x, _nearest(x, means, n_rows), spec, n_rows)
    return replace(start, means=means)


def from_labels(x: Float[Array, "N D"], labels: Int[Array, "N"], spec: MixtureSpec, n_rows=None) -> GMM:
    """Weights, means and covariances of labelled rows; rows of zeros that fill up have the label -1.

    Each covariance is drawn towards the pooled one with the weight of D + 1 rows, and the pooled one by 1e-3 of the
    data's variances, so that small and empty groups are no obstacle. For the exact sums see `moments`.
    """
    n_features, kind = x.shape[1], structure(spec.covariance_type)
    each, n_samples = kind.each, total_count(Annotations(n_rows=n_rows), x.shape[0], x.dtype)

    def block(rows, new):
        x, labels = rows
        one_hot = _one_hot(labels, spec.n_components, x.dtype)
        return weigh(each.statistics(x.T), one_hot if new is None else jnp.where(new[None], one_hot, 0.0))

    # sums as products lose digits where a group is narrow and far off: for a start there are enough
    sums = add_blocks(block, (x, labels), None, BLOCK_ROWS, n_rows)
    count, first, _ = parts_of(sums, n_features)
    centre = jnp.sum(x, axis=0, keepdims=True) / n_samples
    means = jnp.where(count[:, None] > 0.0, first.T / jnp.maximum(count, 1.0)[:, None], centre)
    scatter = each.second(parts_of(recentred(each, sums, means), n_features)[2])
    pooled = each.add_to_diagonal(jnp.sum(scatter, axis=0, keepdims=True) / n_samples, 1e-3 * _spread(x, n_rows))
    borrowed = jnp.asarray(n_features + 1, x.dtype)
    covariances = (scatter + borrowed * pooled) / (count + borrowed).reshape(-1, *[1] * (scatter.ndim - 1))
    weights = (count + 1.0) / (n_samples + spec.n_components)
    return GMM(weights, means, kind.pool(covariances, weights), spec.covariance_type)


STARTS = {"random": random, "random_points": random_points, "kmeans++": kmeans_plusplus, "kmeans": kmeans}


def start_function(init):
    """The start of that name, or the callable itself; a ValueError lists the names there are."""
    if callable(init):
        return init
    if not isinstance(init, str) or init not in STARTS:
        raise ValueError(f"init must be one of {', '.join(STARTS)}, a start function or a GMM; got {init!r}.")
    return STARTS[init]


def distinct_rows(key: Key[Array, ""], n_rows: int | Int[Array, ""], n: int) -> Int[Array, "n"]:
    """n of n_rows, each ordered choice as likely: the first n swaps of a shuffle, of which only those are written down.

    `jax.random.choice` sorts all rows for it: 50 times as long with 500 of them.

    Reference:
        Durstenfeld (1964), Algorithm 235, Communications of the ACM 7.
    """
    step = jnp.arange(n)
    swapped = jax.random.randint(key, (n,), step, n_rows)  # at step i places i and swapped[i] change their rows

    def take(moved, i):
        """`moved[j]` is the row that step j < i put in place swapped[j]."""

        def row_in(place):
            last = jnp.max(jnp.where((swapped == place) & (step < i), step, -1))
            return jnp.where(last < 0, place, moved[last])

        return moved.at[i].set(row_in(i)), row_in(swapped[i])

    return jax.lax.scan(take, jnp.zeros((n,), swapped.dtype), step)[1]


def _around(x, means, spec, n_rows):
    kind, deviation, n_samples = structure(spec.covariance_type), *_deviation(x, n_rows)
    one = kind.each.scatter(jnp.ones((1, x.shape[0]), x.dtype), deviation.T[None]) / n_samples
    weights = jnp.full(means.shape[:1], 1.0 / means.shape[0], x.dtype)
    same = jnp.broadcast_to(one, kind.each.shape(*means.shape))
    covariances = kind.pool(kind.each.add_to_diagonal(same, 1e-6 * _spread(x, n_rows)), weights)
    return GMM(weights, means, covariances, spec.covariance_type)


def _deviation(x, n_rows):
    """Deviations of the rows from their mean, 0 of those that fill up, and how many rows there are."""
    n_samples = total_count(Annotations(n_rows=n_rows), x.shape[0], x.dtype)
    deviation = x - jnp.sum(x, axis=0, keepdims=True) / n_samples
    return jnp.where(there(x.shape[0], n_rows)[:, None], deviation, 0.0), n_samples


def _spread(x, n_rows):
    """(D,) variances; 1 for a constant column, so that no start is singular."""
    deviation, n_samples = _deviation(x, n_rows)
    variances = jnp.sum(deviation * deviation, axis=0) / n_samples
    return jnp.where(variances > 0.0, variances, jnp.ones_like(variances))


def _seed(key, x, spec, n_rows):
    """k-means++ centres, (K, D): known means first, then D² sampling for the free ones."""
    n_components, real = spec.n_components, there(x.shape[0], n_rows)
    last = jnp.asarray(x.shape[0] if n_rows is None else n_rows) - 1
    nearest = jnp.where(real, jnp.asarray(jnp.inf, x.dtype), 0.0)
    known = jnp.full((n_components, x.shape[1]), jnp.nan, x.dtype)
    if spec.known.means is not None:
        known = jnp.asarray(spec.known.means, x.dtype)
        distances = _squared_distances(x, known)  # NaN to free rows
        nearest = jnp.where(real, jnp.min(jnp.where(jnp.isnan(distances), jnp.inf, distances), axis=0), 0.0)
    is_known = ~jnp.isnan(known[:, 0])

    def choose(nearest, component):
        key, mean, fixed = component
        # with no centre yet, or all rows on centres, every row is as likely
        even = jnp.isinf(nearest[0]) | (jnp.sum(nearest) <= 0.0)
        odds = jnp.where(even, real.astype(x.dtype), nearest)
        row = _row_at(jax.random.uniform(key, (), x.dtype), odds)
        centre = jnp.where(fixed, mean, x[jnp.minimum(row, last.astype(row.dtype))])
        closer = jnp.minimum(nearest, _squared_distances(x, centre[None])[0])
        return jnp.where(fixed, nearest, closer), centre

    return jax.lax.scan(choose, nearest, (jax.random.split(key, n_components), known, is_known))[1]


def _row_at(u, odds):
    """The row in whose share of all odds, laid side by side, u falls: first its block, then the row in there.

    A cumulative sum over all rows takes three times as long with 500 of them, and nine times with 100,000.
    """
    n_rows, width = odds.shape[0], math.isqrt(odds.shape[0])
    blocks = jnp.concatenate([odds, jnp.zeros((-n_rows % width,), odds.dtype)]).reshape(-1, width)
    ends = jnp.cumsum(jnp.sum(blocks, axis=1))
    target = u * ends[-1]
    block = jnp.minimum(jnp.sum(ends <= target), ends.shape[0] - 1)
    start = jnp.where(block > 0, ends[block - 1], jnp.zeros_like(target))
    place = jnp.sum(start + jnp.cumsum(blocks[block]) <= target)
    return jnp.minimum(block * width + jnp.minimum(place, width - 1), n_rows - 1)


def _squared_distances(x, means):
    """(K, N), one mean at a time."""
    columns = x.T  # sums over few features are fast where rows lie side by side
    return jax.lax.map(lambda mean: jnp.sum((columns - mean[:, None]) ** 2, axis=0), means)


def _nearest(x, means, n_rows):
    """Of each row the nearest mean, -1 of those that fill up."""
    return jnp.where(there(x.shape[0], n_rows), jnp.argmin(_squared_distances(x, means), axis=0), -1)


def _one_hot(labels, n_components, dtype):
    """(K, N)."""
    return (labels[None, :] == jnp.arange(n_components, dtype=labels.dtype)[:, None]).astype(dtype)
