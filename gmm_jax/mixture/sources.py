"""Rows that are no array in memory: blocks that are read in every pass, a sharded jax.Array, Dask's arrays and frames.

Each is checked, summarised and sampled where it lies. The n-th row of positive weight draws the n-th random number, so
that the same key samples the same rows wherever they lie.
"""

import json
import zlib
from dataclasses import dataclass
from functools import cached_property, reduce

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from .blocks import Blocks, Kind, ahead, check_part_weight, check_rows, name_of, read_blocks
from .files import digest
from .scaling import check_labels
from .summary import DataSummary, Sample, merge, sampled_rows, summarise

SENTENCE = 4096  # bytes, more than a process ever says about itself


def open_source(x, n_components: int, *, sample_weight, labels, seed, n_sample: int, alike=()):
    """The source of x, checked and summarised; None where x is an array in memory.

    n_sample: so many rows at most will be asked for. alike: what must be the same on every process.
    """
    if callable(x):
        for name, value in (("sample_weight", sample_weight), ("labels", labels)):
            if value is not None:
                raise ValueError(f"{name} cannot be given beside blocks: yield pairs (rows, weights).")
        return open_stream(x, n_components, seed, n_sample)
    lazy = type(x).__module__.partition(".")[0] in ("dask", "dask_expr")
    if not (lazy or is_sharded(x)):
        return None
    if x.ndim != 2:
        raise ValueError(f"x must be two-dimensional (N, D); got {x.ndim} axes.")
    rows = x, n_components, sample_weight, labels, seed
    return open_dask(*rows) if lazy else open_sharded(*rows, alike)


def is_many(x) -> bool:
    """Whether x holds many data sets: an array (P, N, D), or a list of (N_p, D)."""
    if isinstance(x, (list, tuple)):
        return bool(len(x)) and all(np.ndim(rows) == 2 for rows in x)
    return getattr(x, "ndim", 0) == 3


def is_sharded(x) -> bool:
    """Whether x is a jax.Array that lies on several devices."""
    return isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and len(x.sharding.device_set) > 1


def check_part(x, weight, labels, n_components: int, place: str) -> tuple:
    """Part of a data set, its weights and its labels (-1: unknown), or a ValueError that names the place."""
    x = check_rows(np.asarray(x), place)
    weight = None if weight is None else check_part_weight(np.asarray(weight), len(x), place)
    if labels is not None:
        named = check_labels(np.asarray(labels), len(x), n_components)
        labels = np.full(len(x), -1, np.int32) if named is None else named
    return x, weight, labels


def rows_of_part(part: tuple, rows=slice(None)) -> tuple:
    """These rows of a part, counted without those of weight zero."""
    rows = rows if part[1] is None else np.flatnonzero(part[1] > 0.0)[rows]
    return tuple(None if column is None else column[rows] for column in part)


class _Sampled:
    """What a source whose rows can be fetched by number gives besides its summary."""

    def sample(self, n: int) -> tuple:
        """(x, weights, labels) of n rows in their order, drawn uniformly; of all rows where there are no more."""
        return tuple(self.fetch(sampled_rows(self.seed, self.summary.n_rows, n)))

    @cached_property
    def fingerprint(self) -> tuple:
        s = self.summary
        return s.n_rows, s.mean, s.scatter, s.low, s.high


# ---- blocks


@dataclass(frozen=True)
class Stream:
    """Blocks, after a first pass over all of them."""

    blocks: Blocks
    kind: Kind
    summary: DataSummary
    drawn: Sample
    checksum: tuple[int, int]  # of the rows and of the weights, however they were cut

    @property
    def name(self) -> str:
        return name_of(self.blocks)

    @property
    def dtype(self) -> np.dtype:
        return self.kind.dtype

    @property
    def fingerprint(self) -> tuple:
        return *self.checksum, self.summary.n_rows, self.kind.n_features

    def sample(self, n: int) -> tuple:
        """As of the other sources."""
        return tuple(self.drawn.rows(n))

    def rows(self):
        """(rows, weights, None) of one more pass, or an error where there are more or fewer than in the first."""
        n_seen, n_rows = 0, self.summary.n_rows
        for x, weight in read_blocks(self.blocks, self.kind):
            n_seen += len(x)
            if n_seen > n_rows:
                break
            yield x, weight, None
        if n_seen != n_rows:
            raise ValueError(
                f"{self.name} yields {n_seen} rows or more in this pass where the first pass had {n_rows}: it must "
                "yield the same rows at every call, and a file must not change meanwhile."
            )


def open_stream(blocks: Blocks, n_components: int, seed, n_sample: int) -> Stream:
    """One pass: every value is checked, the rows are summed up, and some are drawn.

    Raises:
        ValueError: the first block that is no table of finite numbers like the first one; it names row and column.
    """
    summary, kind, of_rows, of_weights = None, None, 0, 0
    sample = Sample(seed, n_sample)
    for x, weight in ahead(read_blocks(blocks)):
        kind = kind or Kind(x.shape[1], x.dtype, weight is not None)
        sample.add(x, weight, None)
        summary = merge(summary, summarise(x, weight, None, n_components))
        of_rows = zlib.crc32(np.ascontiguousarray(x), of_rows)
        of_weights = 0 if weight is None else zlib.crc32(weight, of_weights)
    return Stream(blocks, kind, _not_empty(summary, name_of(blocks)), sample, (of_rows, of_weights))


def _not_empty(summary, name):
    if summary is None or not summary.n_rows:
        raise ValueError(f"{name} yields no rows of positive weight: it needs one for each sample.")
    return summary


# ---- a sharded array


@dataclass(frozen=True)
class Sharded(_Sampled):
    """A jax.Array divided over its rows: the shards of this process, in NumPy, by their first row."""

    shards: dict[int, tuple]
    shape: tuple[int, int]
    mesh: Mesh  # the devices in the order of the rows that they hold, axis "rows"
    dtype: np.dtype
    summary: DataSummary  # of all rows
    first: dict[int, int]  # of each shard of all processes, how many rows of positive weight come before it
    seed: object
    name: str = "x"

    def put(self, of_shard) -> jax.Array:
        """of_shard(shard) of every shard as one array on the devices."""
        parts = {start: of_shard(shard) for start, shard in self.shards.items()}
        shape = (self.shape[0], *next(iter(parts.values())).shape[1:])
        along = NamedSharding(self.mesh, P("rows"))
        return jax.make_array_from_callback(shape, along, lambda index: parts[index[0].start or 0])

    def fetch(self, chosen) -> list:
        """Rows `chosen` (ascending, of those of positive weight), the same on every process."""
        found = None
        for start, shard in self.shards.items():
            used = rows_of_part(shard)
            here = (chosen >= self.first[start]) & (chosen < self.first[start] + len(used[0]))
            rows = [None if part is None else part[chosen[here] - self.first[start]] for part in used]
            found = found or [None if r is None else np.zeros((chosen.size, *r.shape[1:]), r.dtype) for r in rows]
            for whole, r in zip(found, rows, strict=True):
                if r is not None:
                    whole[here] = r
        return [None if part is None else gather(part).sum(axis=0).astype(part.dtype) for part in found]


def open_sharded(x: jax.Array, n_components: int, sample_weight, labels, seed, alike) -> Sharded:
    """Each process reads and checks the rows that it holds; what all must know of them travels."""
    mesh, shards, sentence, given = _mesh_of_rows(x), {}, "", {"sample_weight": sample_weight, "labels": labels}
    try:
        for shard in x.addressable_shards:
            start = shard.index[0].start or 0
            rows = slice(start, start + shard.data.shape[0])
            others = [_of_rows(*pair, rows, len(x)) for pair in given.items()]
            shards[start] = check_part(shard.data, *others, n_components, f"x from row {start} on")
    except ValueError as error:
        sentence = str(error)
    _same_on_all(sentence, alike)
    shards = dict(sorted(shards.items()))
    here = reduce(merge, (summarise(*shard, n_components) for shard in shards.values()), None)
    here = DataSummary.of_nothing(x.shape[1], n_components) if here is None else here
    summary = reduce(merge, map(DataSummary, *map(gather, here)))
    held = np.array([(start, len(rows_of_part(shard)[0])) for start, shard in shards.items()], np.int64)
    starts, sizes = np.array(sorted(gather(held).reshape(-1, 2).tolist())).T
    first = dict(zip(starts.tolist(), (np.cumsum(sizes) - sizes).tolist(), strict=True))
    return Sharded(shards, x.shape, mesh, np.dtype(x.dtype), _not_empty(summary, "x"), first, seed)


def _mesh_of_rows(x):
    holders = {}
    for device, (rows, columns) in x.sharding.devices_indices_map(x.shape).items():
        if columns not in (slice(None), slice(0, x.shape[1])) or (rows.start or 0) in holders:
            raise ValueError(
                "x must be divided over its devices by rows alone, and each row lie on one; shard it with "
                f'PartitionSpec("rows") over a mesh of one axis. Got {x.sharding}.'
            )
        holders[rows.start or 0] = device
    return Mesh(np.array([holders[start] for start in sorted(holders)]), ("rows",))


def _of_rows(name, whole, rows, n_rows):
    """The part of weights or labels that belongs to these rows of all, wherever it lies."""
    if whole is None:
        return None
    if np.shape(whole) != (n_rows,):
        raise ValueError(f"{name} must have shape ({n_rows},), one a row of x; got {np.shape(whole)}.")
    if not is_sharded(whole):
        return np.asarray(whole)[rows]
    for shard in whole.addressable_shards:
        if (shard.index[0].start or 0) == rows.start and len(shard.data) == rows.stop - rows.start:
            return np.asarray(shard.data)
    raise ValueError(f"{name} must be divided over the devices as the rows of x are.")


def gather(array: np.ndarray) -> np.ndarray:
    """The same array of every process, stacked, bit for bit."""
    array = np.asarray(array, order="C")
    if jax.process_count() == 1:
        return array[None]
    from jax.experimental.multihost_utils import process_allgather

    # as bytes: float64 would lose half of its digits where x64 is off
    found = process_allgather(np.frombuffer(array.tobytes(), np.uint8))
    return np.stack([np.frombuffer(row.tobytes(), array.dtype).reshape(array.shape) for row in np.asarray(found)])


def _same_on_all(sentence, arguments):
    """A ValueError on every process where one has met an error, or has other arguments: else all would wait for it."""
    said = json.dumps([sentence[: SENTENCE // 8], "" if sentence else digest(arguments)]).encode()
    found = [json.loads(bytes(row)) for row in gather(np.frombuffer(said.ljust(SENTENCE), np.uint8))]
    for process, (problem, _) in enumerate(found):
        if problem:
            raise ValueError(problem if len(found) == 1 else f"process {process}: {problem}")
    if len({marks for _, marks in found}) > 1:
        raise ValueError("key, spec or options differ between processes: call with the same on each.")


# ---- Dask


@dataclass(frozen=True)
class Cluster(_Sampled):
    """The partitions of a Dask array or data frame, each checked where it is read."""

    parts: list  # delayed (x, weights, labels)
    held: list[int]  # rows of positive weight of each
    dtype: np.dtype
    summary: DataSummary
    seed: object
    name: str = "x"

    def fetch(self, chosen) -> list:
        """Rows `chosen` (ascending, of those of positive weight)."""
        import dask

        ends = np.cumsum(self.held)
        of_part = np.searchsorted(ends, chosen, side="right")
        take = dask.delayed(rows_of_part)
        wanted = [(i, chosen[of_part == i] - (ends[i] - self.held[i])) for i in np.unique(of_part)]
        found = dask.compute(*[take(self.parts[i], rows) for i, rows in wanted])
        return [None if columns[0] is None else np.concatenate(columns) for columns in zip(*found, strict=True)]


def open_dask(x, n_components: int, sample_weight, labels, seed) -> Cluster:
    """Workers read, check and summarise their partitions."""
    import dask

    x = _array(x).rechunk({1: -1})
    lengths = x.chunks[0]
    given = {"sample_weight": sample_weight, "labels": labels}
    rows = zip(x.to_delayed().ravel(), *(_cut_alike(*pair, lengths) for pair in given.items()), strict=True)
    check, summed, starts = dask.delayed(check_part), dask.delayed(_summary_of_part), np.cumsum(lengths) - lengths
    parts = [check(*part, n_components, f"x from row {start} on") for start, part in zip(starts, rows, strict=True)]
    found = dask.compute(*[summed(part, n_components) for part in parts])
    summary = _not_empty(reduce(merge, [summary for summary, _ in found], None), "x")
    held = [0 if summary is None else summary.n_rows for summary, _ in found]
    return Cluster(parts, held, np.result_type(*[dtype for _, dtype in found]), summary, seed)


def _array(x):
    """A Dask array whose sizes are known."""
    x = x.to_dask_array(lengths=True) if hasattr(x, "to_dask_array") else x
    if np.isnan(x.shape[0]):
        x.compute_chunk_sizes()
    return x


def _cut_alike(name, whole, lengths):
    """Weights or labels cut as the rows are."""
    if whole is None:
        return [None] * len(lengths)
    lazy = hasattr(whole, "dask")
    whole = _array(whole) if lazy else np.asarray(whole)
    if whole.shape != (sum(lengths),):
        raise ValueError(f"{name} must have shape ({sum(lengths)},), one a row of x; got {whole.shape}.")
    return whole.rechunk((lengths,)).to_delayed() if lazy else np.split(whole, np.cumsum(lengths)[:-1])


def _summary_of_part(part, n_components):
    return summarise(*part, n_components), part[0].dtype
