"""Jobs on several processes, or on a Dask cluster: (place of the job, its answer or Lost) as they come.

A process that dies or takes too long costs its running job only; another takes its place. What a job needs of its
process (JAX's configuration) is done once, by `prepare`, an importable function of nothing.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, get_context, parent_process
from typing import Any, NamedTuple

LOCAL = "local"  # in place of a scheduler's address: a Dask cluster on this machine


class Lost(NamedTuple):
    """In place of an answer."""

    reason: str


@dataclass
class Worker:
    """A process, and the job that it runs; no job while it starts."""

    process: Any
    pipe: connection.Connection
    place: int | None = None
    deadline: float = math.inf


def in_processes(
    work: Callable[[Any], Any],
    jobs: Sequence[Any],
    n_workers: int,
    *,
    timeout: float | None = None,
    prepare: Callable[[], Any] | None = None,
) -> Iterator[tuple[int, Any]]:
    """work(job) for each job, in fresh processes (spawned: none shares this one's memory or JAX).

    Args:
        work: importable, as is prepare.
        timeout: seconds a job may take, from when its process is ready.

    Raises:
        RuntimeError: a process ended before it was ready, as all others would.
    """
    waiting, workers = deque(enumerate(jobs)), []
    try:
        while waiting or any(worker.place is not None for worker in workers):
            starting = sum(worker.place is None for worker in workers)
            while len(workers) < n_workers and starting < len(waiting):
                workers.append(_start(work, prepare))
                starting += 1
            for worker in _ready(workers):
                answer = _answer(worker, timeout)
                if worker.place is not None:
                    yield worker.place, answer
                    worker.place, worker.deadline = None, math.inf
                if isinstance(answer, Lost) or not waiting:
                    _stop(worker)
                    workers.remove(worker)
                else:
                    worker.place, job = waiting.popleft()
                    worker.deadline = math.inf if timeout is None else time.monotonic() + timeout
                    worker.pipe.send(job)
    finally:
        for worker in workers:
            _stop(worker)


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

    It starts at once, keeps what `work` keeps in itself from one job to the next, may start processes of its own, and
    ends with the block, they too; once lost it is not asked again.
    """
    worker = _start(work, prepare, daemon=False)
    try:
        yield partial(_ask, worker)
    finally:
        _stop(worker)


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
        from distributed import Client, as_completed
    except ImportError:
        raise ValueError("a Dask cluster needs Dask: pip install 'gmm-jax[cluster]'.") from None
    local = {"n_workers": n_workers, "threads_per_worker": 1, "dashboard_address": None}
    waiting, places = deque(enumerate(jobs)), {}
    with Client(**local) if address == LOCAL else Client(address) as client:
        coming = as_completed()
        while waiting or places:
            # no more than can run at once: Dask blames all jobs that wait at a worker that dies
            while waiting and len(places) < max(1, sum(client.nthreads().values())):
                place, job = waiting.popleft()
                future = client.submit(prepared, work, prepare, job, pure=False, key=None)
                places[future] = place
                coming.add(future)
            future = next(coming)
            try:
                answer = future.result()  # which waits again for one that was lost with its worker since it was done
            except Exception as error:
                answer = Lost(f"the cluster lost it: {type(error).__name__}")
            yield places.pop(future), answer


def prepared(work, prepare, job):
    """work(job), in a process where prepare() has run once."""
    if prepare is not None and prepare not in _PREPARED:
        prepare()
        _PREPARED.add(prepare)
    return work(job)


_PREPARED: set[Callable] = set()


# ---- one process


def _start(work, prepare, *, daemon=True):
    context = get_context("spawn")
    pipe, other_end = context.Pipe()
    process = context.Process(target=_serve, args=(other_end, work, prepare), daemon=daemon)
    process.start()
    other_end.close()  # so that its death is the end of the pipe
    return Worker(process, pipe)


def _serve(pipe, work, prepare):
    """In the process: ready, then an answer for each job, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # so that what it starts ends with it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()
    try:
        pipe.send(None)
        while True:
            pipe.send(work(pipe.recv()))
    except (EOFError, OSError):
        return


def _end_with_parent():
    parent_process().join()
    _kill(os.getpid())
    os._exit(1)


def _ask(worker, job, timeout=None):
    n_answers = 1 if worker.place is not None else 2  # the first says that it is ready
    worker.place, worker.deadline = 0, math.inf if timeout is None else time.monotonic() + timeout
    with suppress(OSError):  # it has died, as the answer says
        worker.pipe.send(job)
    for _ in range(n_answers):
        _ready([worker])
        answer = _answer(worker, timeout)
    if isinstance(answer, Lost):
        _stop(worker)
    return answer


def _ready(workers):
    """Those that have something to say, or no time left."""
    first = min(worker.deadline for worker in workers)
    left = None if first == math.inf else max(first - time.monotonic(), 0.0)
    speaking = connection.wait([worker.pipe for worker in workers], left)
    now = time.monotonic()
    return [worker for worker in workers if worker.pipe in speaking or worker.deadline <= now]


def _answer(worker, timeout):
    if not worker.pipe.poll():
        return Lost(f"took longer than {timeout:g} s")
    try:
        return worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
    if worker.place is None:
        raise RuntimeError(f"a worker process ended with code {worker.process.exitcode} before it was ready.")
    return Lost(f"its process ended with code {worker.process.exitcode}")


def _stop(worker):
    worker.pipe.close()
    _kill(worker.process.pid)
    worker.process.kill()  # where it has had no time yet to be a group
    worker.process.join()


def _kill(pid):
    """All processes of the group that a worker has made."""
    with suppress(OSError, AttributeError):  # they have ended, or the system has no groups
        os.killpg(pid, signal.SIGKILL)
