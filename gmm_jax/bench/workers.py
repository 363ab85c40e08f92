"""Jobs on several processes (pebble), or on a Dask cluster: (place of the job, its answer or Lost) as they come.

A process that dies or takes too long costs the job that it runs; another takes its place. What a process must do before
its first job (JAX's configuration) is `prepare`, an importable function without arguments.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any, NamedTuple

Work, Prepare = Callable[[Any], Any], Callable[[], Any] | None
LOCAL = "local"  # in place of a scheduler's address: a Dask cluster on this machine


class Lost(NamedTuple):
    """In place of an answer."""

    reason: str


def in_processes(
    work: Work, jobs: Sequence[Any], n_workers: int, *, timeout: float | None = None, prepare: Prepare = None
) -> Iterator[tuple[int, Any]]:
    """work(job) for each job, in fresh processes (spawned: each has its own memory and JAX).

    Args:
        work: importable, as is prepare.
        timeout: seconds a job may take, from when a process has begun it.

    Raises:
        RuntimeError: a process ended before it was ready, as all others would.
    """
    n_workers = max(1, min(n_workers, len(jobs)))
    with pool_of(work, n_workers, prepare) as pool:
        submit, answer = partial(submit_to, pool, timeout), partial(answer_of, timeout)
        yield from _as_they_come(jobs, submit, lambda: n_workers, futures.wait, answer)


def on_cluster(
    work: Work, jobs: Sequence[Any], address: str, *, n_workers: int = 2, prepare: Prepare = None
) -> Iterator[tuple[int, Any]]:
    """The same on a Dask cluster (see `cluster`), whose workers should have one thread each.

    A job whose worker dies is run again on another one, three times. Where no worker is left it waits for one.
    """
    with cluster(address, n_workers=n_workers, prepare=prepare) as client:
        from distributed import wait

        submit = partial(client.submit, work, pure=False, key=None)
        # no more than can run at once: Dask blames all jobs that wait at a worker that dies
        yield from _as_they_come(jobs, submit, lambda: sum(client.nthreads().values()) or 1, wait, _answer_of_cluster)


@contextmanager
def cluster(address: str, *, n_workers: int | None = None, prepare: Prepare = None) -> Iterator[Any]:
    """A client of the Dask cluster at this address, or of a "local" one of n_workers processes that is made for it.

    Dask's computations make use of it; every worker, also one that comes later, calls `prepare` first.
    """
    try:
        from distributed import Client, WorkerPlugin
    except ImportError:
        raise ValueError("a Dask cluster needs Dask: pip install 'gmm-jax[cluster]'.") from None

    class Prepared(WorkerPlugin):
        def setup(self, worker):
            prepare()

    local = {"n_workers": n_workers, "threads_per_worker": 1, "dashboard_address": None}
    try:
        client = Client(**local) if address == LOCAL else Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Dask scheduler answers at {address!r} ({error}): give its address, like tcp://host:8786, or local."
        ) from None
    with client:
        if prepare is not None:
            client.register_plugin(Prepared())
        yield client


def _as_they_come(jobs, submit, room, wait, answer):
    """(place, answer) of each job, `room()` of them at a time."""
    waiting, places = deque(enumerate(jobs)), {}
    while waiting or places:
        while waiting and len(places) < room():
            place, job = waiting.popleft()
            places[submit(job)] = place
        for future in wait(list(places), return_when="FIRST_COMPLETED").done:
            yield places.pop(future), answer(future)


def _answer_of_cluster(future):
    try:
        return future.result()  # which waits again for one that was lost with its worker since it was done
    except Exception as error:
        return Lost(f"the cluster lost it: {type(error).__name__}")


# ---- a pool of processes, each with processes of its own


@contextmanager
def pool_of(work, n_workers: int, prepare=None):
    """A pebble pool of fresh processes for `submit_to`, which end with the block, and all that they have started."""
    from pebble import ProcessPool

    pool = ProcessPool(n_workers, initializer=_begin, initargs=(work, prepare), context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.stop()
        pool.join()


def _begin(work, prepare):
    """In a process: what `_work` will call, and that whatever the process has started ends with it."""
    global _work_here
    if hasattr(os, "setpgrp"):
        os.setpgrp()
        signal.signal(signal.SIGTERM, lambda *_: _kill(os.getpid()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()
    _work_here = work


def _work(job):
    return _work_here(job)


def submit_to(pool, timeout, job):
    """A future of one job."""
    return pool.schedule(_work, (job,), timeout=timeout)


def _end_with_parent():
    parent_process().join()
    _kill(os.getpid())
    os._exit(1)


def answer_of(timeout, future):
    """Its answer, or Lost."""
    from pebble import ProcessExpired

    try:
        return future.result()
    except TimeoutError:
        return Lost(f"took longer than {timeout:g} s")
    except ProcessExpired as error:
        _kill(error.pid)
        return Lost(f"its process ended with code {error.exitcode}")
    except futures.BrokenExecutor as error:
        raise RuntimeError("a worker process ended before it was ready.") from error
    except Exception as error:
        return Lost(f"{type(error).__name__}: {error}")


def _kill(pid):
    """All processes of the group that a worker has made."""
    with suppress(OSError, AttributeError):  # they have ended, or the system has no groups
        os.killpg(pid, signal.SIGKILL)
