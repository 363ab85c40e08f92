"""Work in processes of its own: answers to many jobs, none of which may be lost, and one process asked alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from gmm_jax.bench.workers import Lost, answer_of, in_processes, pool_of, submit_to


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
    with pool_of(work, 1, prepare) as pool:
        yield partial(_ask, pool)


def _ask(pool, job, timeout=None):
    try:
        return answer_of(timeout, submit_to(pool, timeout, job))
    except RuntimeError:  # the pool's: it ended before it was asked
        return Lost("its process has ended")
