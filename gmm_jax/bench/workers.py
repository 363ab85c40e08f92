"""Jobs on several processes (pebble), or on a Dask cluster: (place of the job, its answer or Lost) as they come.

A process that dies or takes too long costs the job that it runs; another takes its place. What a process must do before
its first job (JAX's configuration) is `prepare`, an importable function without arguments.
"""

from __future__ import annotations

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

LOCAL = "local"  # in place of a scheduler's address: a Dask cluster on this machine


class Lost(NamedTuple):
    """In place of an answer."""

    reason: str


def in_processes(
    work: Callable[[Any], Any],
    jobs: Sequence[Any],
    n_workers: int,
    *,
    timeout: float | None = None,
    prepare: Callable[[], Any] | None = None,
) -> Iterator[tuple[int, Any]]:
    """work(job) for each job, in fresh processes (spawned: each has its own memory and JAX).

    Args:
        work: importable, as is prepare.
        timeout: seconds a job may take, from when a process has begun it.

    Raises:
        RuntimeError: a process ended before it was ready, as all others would.
    """
    n_workers = max(1, min(n_workers, len(jobs)))
    with _pool(work, n_workers, prepare) as pool:
        submit, answer = partial(_submit, pool, timeout), partial(_answer, timeout)
        yield from _as_they_come(jobs, submit, lambda: n_workers, futures.wait, answer)


def answers(
    work: Callable[[Any], Any], jobs: Sequence[Any], n_workers: int, *, prepare: Callable[[], Any] | None = None
) -> Iterator[Any]:
    """work(job) of each job as they come: with one worker in this process, else `in_processes`; none may be lost."""
    if n_workers == 1:
        yield from map(work, jobs)
        return
    for place, answer in in_processes(work, jobs, n_workers, prepare=prepare):
        if isinstance(answer, Lost):
            raise RuntimeError(f"job {jobs[place]!r}: {answer.reason}; run again, what was done is kept.")
        yield answer


@contextmanager
def alone(work: Callable[[Any], Any], *, prepare: Callable[[], Any] | None = None) -> Iterator[Callable[..., Any]]:
    """ask(job, timeout=None): work(job), or Lost, by one process that does nothing between two questions.

    It keeps what `work` keeps in itself from one job to the next, may start processes of its own, and ends with the
    block, they too.
    """
    with _pool(work, 1, prepare) as pool:
        yield partial(_ask, pool)


def on_cluster(
    work: Callable[[Any], Any],
    jobs: Sequence[Any],
    address: str,
    *,
    n_workers: int = 2,
    prepare: Callable[[], Any] | None = None,
) -> Iterator[tuple[int, Any]]:
    """The same on a running Dask cluster, or with address "local" on one of n_workers processes that is made for it.

    A job whose worker dies is run again on another one, three times; its workers should have one thread each. Where no
    worker is left it waits for one.
    """
    try:
        from distributed import Client, wait
    except ImportError:
        raise ValueError("a Dask cluster needs Dask: pip install 'gmm-jax[cluster]'.") from None
    local = {"n_workers": n_workers, "threads_per_worker": 1, "dashboard_address": None}
    with Client(**local) if address == LOCAL else Client(address) as client:
        submit = partial(client.submit, prepared, work, prepare, pure=False, key=None)
        # no more than can run at once: Dask blames all jobs that wait at a worker that dies
        yield from _as_they_come(jobs, submit, lambda: sum(client.nthreads().values()) or 1, wait, _answer_of_cluster)


def prepared(work, prepare, job):
    """work(job), in a process where prepare() has run once."""
    if prepare is not None and prepare not in _PREPARED:
        prepare()
        _PREPARED.add(prepare)
    return work(job)


_PREPARED: set[Callable] = set()


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
def _pool(work, n_workers, prepare):
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


def _submit(pool, timeout, job):
    return pool.schedule(_work, (job,), timeout=timeout)


def _ask(pool, job, timeout=None):
    try:
        return _answer(timeout, _submit(pool, timeout, job))
    except RuntimeError:  # the pool's: it ended before it was asked
        return Lost("its process has ended")


def _end_with_parent():
    parent_process().join()
    _kill(os.getpid())
    os._exit(1)


def _answer(timeout, future):
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
