"""Seconds of an EM iteration and peak memory, by where the rows lie: an array, a file, processes, a Dask cluster.

python -m speed.rows WAY FILE START [RANK PROCESSES ADDRESS] measures in this process and prints one line of JSON. An
iteration is the difference of two fits by one program, of many iterations and of one, over their difference in
iterations: neither compilation nor a first look at the data is in it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np

from gmm_jax import MixtureSpec, em, problems
from gmm_jax.bench import store
from gmm_jax.em import sums
from gmm_jax.shell import configure_jax

REPEATS, PARTITION = 3, 250_000
SUMMED = 20_000_000  # rows that all iterations of a fit add up, about
ANY_GAIN = 1e30  # a tolerance that the first step meets


def memory(file, start):
    """One array."""
    return timed(x := np.load(file), start, iterations(len(x), "memory"))


def stream(file, start):
    """One pass over the file an iteration; the page cache is emptied before the last one of another fit."""
    seconds, begun = [], time.perf_counter()

    def progress(*_):
        nonlocal begun
        seconds.append(time.perf_counter() - begun)
        if len(seconds) == n_iter - 1:
            forget(file)
        begun = time.perf_counter()

    blocks, n_iter = problems.open_blocks(file), iterations(len(np.load(file, mmap_mode="r")))
    found = timed(blocks, start, n_iter)
    sums.SECONDS_BETWEEN_LOOKS = 0.0  # progress after every pass
    fit(blocks, start, max_iter=n_iter, progress=progress)
    return {**found, "cold": seconds[n_iter - 1]}  # the pass after it was emptied; a last call comes after the fit


def sharded(file, start, rank, processes, address):
    """An array whose rows are divided among processes of one core and one device each, as JAX documents it."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(rank) % len(cores)]})
    jax.config.update("jax_num_cpu_devices", 1)
    place = {"coordinator_address": address, "num_processes": int(processes), "process_id": int(rank)}
    jax.distributed.initialize(**place, coordinator_bind_address=address)
    x = np.load(file, mmap_mode="r")
    along = jax.sharding.NamedSharding(jax.make_mesh((int(processes),), ("rows",)), jax.sharding.PartitionSpec("rows"))
    rows = jax.make_array_from_callback(x.shape, along, lambda index: np.array(x[index]))
    found = timed(rows, start, iterations(len(x)))
    jax.distributed.shutdown()
    return found


def dask(file, start):
    """A Dask array over two workers, which read their partitions themselves."""
    import dask.array
    from distributed import Client

    shape, dtype = (like := np.load(file, mmap_mode="r")).shape, like.dtype
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        ends = range(0, shape[0], PARTITION)
        parts = [dask.delayed(read)(str(file), begin) for begin in ends]
        sizes = [(min(PARTITION, shape[0] - begin), shape[1]) for begin in ends]
        arrays = [dask.array.from_delayed(p, size, dtype) for p, size in zip(parts, sizes, strict=True)]
        return timed(dask.array.concatenate(arrays), start, iterations(shape[0]))


WAYS = {"memory": memory, "stream": stream, "sharded": sharded, "dask": dask}


def read(file, begin):
    """One partition."""
    return np.array(np.load(file, mmap_mode="r")[begin : begin + PARTITION])


def iterations(n, way=""):
    """How many are timed: enough to be seen beside what happens once, which is most where rows are loaded first."""
    return int(np.clip(SUMMED // n, 20 if way == "memory" else 5, 400))


def fit(x, start, *, max_iter, tol=0.0, **options):
    """One fit from the given start."""
    config = em.EMConfig(max_iter=max_iter, tol=tol)
    return em.fit_em_restarts(
        jax.random.key(0), x, MixtureSpec(start.n_components), n_restarts=1, init=start, config=config, **options
    )


def timed(x, start, n_iter):
    """Seconds an iteration, those of the first fit with its compilation, and where the fit ended."""

    def seconds(tol):
        begin = time.perf_counter()
        found = fit(x, start, max_iter=n_iter, tol=tol)
        return time.perf_counter() - begin, float(found.best.log_likelihood)

    first, log_likelihood = seconds(0.0)
    differences = [seconds(0.0)[0] - seconds(ANY_GAIN)[0] for _ in range(REPEATS)]
    warm = float(np.median(differences)) / (n_iter - 1)
    if warm <= 0.0:
        raise OSError("one iteration took longer than many: the machine is too busy to be measured.")
    return {"warm": warm, "seconds_first": first, "log_likelihood": log_likelihood}


def forget(file):
    """Put the file out of the page cache."""
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_mb():
    """Of this process, MB; ru_maxrss would count the process that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM: memory can be measured on Linux only.")


if __name__ == "__main__":
    way, path, words, *place = sys.argv[1:]
    configure_jax()
    before = peak_mb()
    measured = WAYS[way](Path(path), store.mixture_of(json.loads(words)), *place)
    print(json.dumps(measured | {"peak_mb": peak_mb(), "peak_mb_above": peak_mb() - before}), flush=True)
