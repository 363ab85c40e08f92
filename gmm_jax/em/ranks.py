"""Many processes as one: who holds which rows, and what they tell each other on the host, in NumPy.

A rank is a process of jax.distributed. Devices stand in a mesh ("restart", "data"): rows are divided over "data",
restarts over "restart". Whatever decides how many collective programs a rank runs must be the same on all of them, or
they wait for each other for ever: so also an error that one rank finds is told to all, and all raise it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

from ..mixture import MixtureSpec, Scaling
from ..mixture.files import digest
from ..mixture.scaling import scaling_of
from ..mixture.starts import labelled_means

AXES = ("restart", "data")
BLOCK = 1 << 16  # rows that are widened to float64 at a time
SENTENCE = 4096  # bytes, more than a rank ever says about itself


def mesh_of(n_groups: int = 1) -> Mesh:
    """All devices of all ranks, in n_groups that take restarts in turn; the devices of a group divide the rows."""
    n_devices = jax.device_count()
    if n_groups < 1 or n_devices % n_groups:
        raise ValueError(f"n_groups={n_groups} does not divide the {n_devices} devices: choose one that does.")
    return jax.make_mesh((n_groups, n_devices // n_groups), AXES, axis_types=(AxisType.Auto,) * 2)


def check_mesh(mesh: Mesh) -> Mesh:
    """The mesh itself, if it is one of all devices with the axes that are meant."""
    if mesh.axis_names != AXES or mesh.devices.size != jax.device_count():
        raise ValueError(
            f"mesh must have the axes {AXES} and all {jax.device_count()} devices; got {mesh.axis_names} with "
            f"{mesh.devices.size}: use mesh_of."
        )
    return mesh


def local_rows(n_samples: int, mesh: Mesh | None = None) -> slice:
    """The rows of n_samples that this rank should hold: as many for each device as for any other, or one less."""
    mesh = mesh_of() if mesh is None else mesh
    mine, n_columns = _columns(mesh), mesh.shape["data"]
    return slice(n_samples * mine[0] // n_columns, n_samples * (mine[-1] + 1) // n_columns)


def gather(array: np.ndarray) -> np.ndarray:
    """The same array of every rank, stacked: (ranks, ...), bit for bit."""
    array = np.ascontiguousarray(array)
    if jax.process_count() == 1:
        return array[None]
    from jax.experimental.multihost_utils import process_allgather

    # as bytes: float64 would lose half of its digits where x64 is off
    told = process_allgather(np.frombuffer(array.tobytes(), np.uint8))
    return np.stack([np.frombuffer(row.tobytes(), array.dtype).reshape(array.shape) for row in np.asarray(told)])


def agree(problem: str | None, facts: Mapping[str, object], *, count: int = 0) -> list[int]:
    """The count of every rank, once all are well and start from the same facts.

    Raises:
        ValueError: on every rank, with the problem of the first that has one, or the first fact that is not the same.
    """
    digests = {name: digest(value)[:16] for name, value in facts.items()}
    said = json.dumps({"problem": (problem or "")[:300], "facts": digests, "count": count}).encode()
    told = gather(np.frombuffer(said.ljust(SENTENCE), np.uint8))
    told = [json.loads(bytes(row)) for row in told]
    for rank, other in enumerate(told):
        if other["problem"]:
            raise ValueError(other["problem"] if len(told) == 1 else f"rank {rank}: {other['problem']}")
    for rank, other in enumerate(told):
        for name, value in told[0]["facts"].items():
            if other["facts"][name] != value:
                raise ValueError(f"rank {rank} has another {name} than rank 0: start every rank in the same way.")
    return [other["count"] for other in told]


class Summary(NamedTuple):
    """Of the rows of all ranks."""

    n_samples: float  # total weight
    scaling: Scaling
    spread: Float[np.ndarray, "D D"]  # covariance of the standardised rows


def summarise(x: np.ndarray, weight: np.ndarray | None, spec: MixtureSpec, *, counts: bool) -> Summary:
    """The scaling of all rows together, from each rank's sums in float64; `counts`: no lower rank holds these rows.

    As `standardise` of the rows in one place, to rounding.
    """
    n_features = x.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused by scaling_of
        total, mean, largest = _first_sums(x, weight)
        told = gather(np.concatenate([[total * counts], mean, largest]))
        share_of, means, largest = told[:, 0], told[:, 1 : 1 + n_features], told[:, 1 + n_features :].max(axis=0)
        n_samples = float(share_of.sum())
        if not n_samples > 0.0:
            raise ValueError("sample_weight is zero for every row of every rank: use 0 to leave a row out.")
        share_of = share_of / n_samples
        about = means[np.argmax(share_of > 0.0)]  # about one of them: the mean of a constant column is exact
        centre = about + share_of @ np.where(share_of[:, None] > 0.0, means - about, 0.0)
        reach, second = _second_sums(x, weight, centre)
        told = gather(np.concatenate([reach, second.ravel()]))
        reaches, seconds = told[:, :n_features], told[:, n_features:].reshape(-1, n_features, n_features)
        reach = reaches.max(axis=0)
        constant = reach <= 4.0 * np.finfo(x.dtype).eps * largest
        reach = np.where(constant, 1.0, reach)
        part = reaches / reach
        second = np.einsum("p,pi,pj,pij->ij", share_of, part, part, seconds)
        scaling = scaling_of(centre, reach * np.sqrt(np.diag(second)), constant, spec, x.dtype)
        stretch = np.where(constant, 0.0, reach / scaling.scale)
    return Summary(n_samples, scaling, second * np.outer(stretch, stretch))


def means_of_labelled(
    z: np.ndarray, labels: np.ndarray | None, n_components: int, weight, *, counts: bool
) -> Float[np.ndarray, "K D"] | None:
    """`labelled_means` of the rows of all ranks, (K, D); None where none knows a label. `counts` as in summarise."""
    labels = np.full(len(z), -1) if labels is None else labels
    share = np.ones(len(z)) if weight is None else weight
    mass = np.array([share[labels == k].sum() for k in range(n_components)])
    means = np.nan_to_num(labelled_means(z, labels, n_components, weight)).astype(np.float64)
    told = gather(np.column_stack([mass * counts, mass[:, None] * counts * means])).sum(axis=0)
    if not told[:, 0].any():
        return None
    with np.errstate(invalid="ignore"):
        return (told[:, 1:] / told[:, :1]).astype(z.dtype)


def put_rows(mesh: Mesh, rows: np.ndarray, n_rows: int) -> jax.Array:
    """The rows of all ranks as one array divided over "data": n_rows to a device, zeros where a rank has fewer."""
    mine = _columns(mesh)
    filled = rows
    if len(rows) < len(mine) * n_rows:
        filled = np.zeros((len(mine) * n_rows, *rows.shape[1:]), rows.dtype)
        filled[: len(rows)] = rows

    def block(index):
        start = (index[0].start or 0) - mine[0] * n_rows
        return filled[start : start + n_rows]

    shape = (mesh.shape["data"] * n_rows, *rows.shape[1:])
    return jax.make_array_from_callback(shape, NamedSharding(mesh, P("data")), block)


def put_whole(mesh: Mesh, tree):
    """NumPy leaves, the same on all ranks, on every device."""

    def put(leaf):
        leaf = np.asarray(leaf)
        leaf = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)
        return jax.make_array_from_callback(leaf.shape, NamedSharding(mesh, P()), lambda index: leaf[index])

    return jax.tree.map(put, tree)


def rows_per_device(mesh: Mesh, n_rows: list[int]) -> int:
    """As many as the fullest device needs; n_rows: of each rank."""
    return max(1, max(-(-n // len(_columns(mesh, rank))) for rank, n in enumerate(n_rows)))


def counting(mesh: Mesh) -> list[bool]:
    """For each rank, whether its rows count: ranks that differ in "restart" only hold the same rows."""
    first = [tuple(_columns(mesh, rank)) for rank in range(jax.process_count())]
    return [columns not in first[:rank] for rank, columns in enumerate(first)]


def sample_rows(z: np.ndarray, n_rows: list[int], chosen: np.ndarray) -> np.ndarray:
    """Rows `chosen` (ascending, counted through the ranks in turn), on every rank; n_rows: that each rank holds."""
    ends = np.cumsum(n_rows)
    of_rank = np.searchsorted(ends, chosen, side="right")
    most = np.bincount(of_rank, minlength=len(n_rows)).max()
    rank = jax.process_index()
    mine = chosen[of_rank == rank] - (ends[rank] - n_rows[rank])
    told = np.zeros((most, z.shape[1]), z.dtype)
    told[: mine.size] = z[mine]
    return np.concatenate([rows[: np.sum(of_rank == r)] for r, rows in enumerate(gather(told))])


def _columns(mesh, rank=None):
    """The columns of the mesh that a rank's devices stand in, ascending."""
    rank = jax.process_index() if rank is None else rank
    mine = np.vectorize(lambda device: device.process_index == rank)(mesh.devices)
    columns = np.flatnonzero(mine.any(axis=0))
    if columns.size != columns[-1] - columns[0] + 1:
        raise ValueError("mesh must give every rank neighbouring devices along 'data': use mesh_of.")
    return columns.tolist()


def _blocks(x, weight):
    """Rows in float64, some at a time, with their weights."""
    for start in range(0, len(x), BLOCK):
        rows = np.asarray(x[start : start + BLOCK], np.float64)
        yield rows, np.ones(len(rows)) if weight is None else weight[start : start + BLOCK]


def _first_sums(x, weight):
    """Total weight, mean, and largest absolute value; of no rows: zeros."""
    total, first, largest = 0.0, 0.0, np.zeros(x.shape[1])
    for rows, counts in _blocks(x, weight):
        total += counts.sum()
        first = first + counts @ (rows - x[0])
        largest = np.maximum(largest, np.abs(rows).max(axis=0))
    return total, (x[0] + first / total if total else np.zeros(x.shape[1])), largest


def _second_sums(x, weight, centre):
    """Reach: the largest distance from the centre; and the mean of u uᵀ, u = (x − centre) / reach."""
    reach, second, total = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1])), 0.0
    for rows, _ in _blocks(x, weight):
        reach = np.maximum(reach, np.abs(rows - centre).max(axis=0))
    for rows, counts in _blocks(x, weight):
        u = (rows - centre) / np.where(reach > 0.0, reach, 1.0)
        second += (u * counts[:, None]).T @ u
        total += counts.sum()
    return reach, second / max(total, np.finfo(float).tiny)
