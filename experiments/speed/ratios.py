"""Seconds that can be compared: calls measured in turn, ratios with an interval, and the least time there can be.

A slow moment of the machine hits both sides of a pair, so a ratio is the median over pairs, with the interval between
two of its order statistics. The floor of one EM iteration is the largest of 4nKD flops with D = 1 + d + d(d+1)/2
features, nK exponentials, and one pass over x, each at the rate measured here.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

WITHIN = 1e-4  # nats: two fits this near in log-likelihood are one answer
ONE_FIT, MANY_FITS = "gmm_jax one fit", "gmm_jax many fits"  # the second share both cores


# ---- pairs


class Ratio(NamedTuple):
    """How many times longer one side of a pair took."""

    median: float
    low: float
    high: float
    coverage: float  # of the interval from low to high for the median ratio, at least 0.95 from six pairs on
    n_pairs: int


def interleave(calls: Mapping[str, Callable[[], float | None]], n_rounds: int) -> dict[str, Float[np.ndarray, "R"]]:
    """What each call returns (seconds of its own), round by round; every other round runs in the opposite order.

    One that returns None has left: it is not called again, and has the first rounds only.
    """
    seen, staying = {name: [] for name in calls}, list(calls)
    for i in range(n_rounds):
        for name in staying[:: 1 if i % 2 == 0 else -1]:
            seconds = calls[name]()
            if seconds is None:
                staying.remove(name)
            else:
                seen[name].append(float(seconds))
    return {name: np.array(values) for name, values in seen.items()}


def seconds_of(work: Callable) -> float:
    """Wall time of work(), until its result is ready."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def ratio(slow: Float[np.ndarray, "R"], fast: Float[np.ndarray, "R"]) -> Ratio:
    """slow / fast, pair by pair; the interval is the narrowest of order statistics that covers 95 %, else all of it."""
    ratios = np.sort(np.asarray(slow, float) / np.asarray(fast, float))
    n = ratios.size
    covers = [1.0 - 2.0 * sum(math.comb(n, i) for i in range(j)) / 2.0**n for j in range(1, (n + 1) // 2 + 1)]
    j = max((j for j, cover in enumerate(covers) if cover >= 0.95), default=0)
    return Ratio(float(np.median(ratios)), float(ratios[j]), float(ratios[n - 1 - j]), max(covers[j], 0.0), n)


def timed_calls(works: Mapping[str, Callable]) -> tuple[dict[str, Callable[[], float]], dict[str, Any]]:
    """Calls for `interleave`, and a dict that holds the last answer of each."""
    answers = {}

    def call(name):
        begin = time.perf_counter()
        answers[name] = works[name]()
        return time.perf_counter() - begin

    return {name: partial(call, name) for name in works}, answers


def compare(seconds, ours, about, **common) -> list[dict[str, Any]]:
    """A row a method: median and quartiles, and for the others the ratio to each of ours, with its interval.

    Args:
        seconds: method -> (pairs,), ours at least as many as any other.
        ours: names of our own methods among them.
        about: method -> what else its row says.
    """
    rows = []
    for name, values in seconds.items():
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        row = {"method": name, "seconds": middle, "seconds_low": low, "seconds_high": high, "status": "ok"}
        row |= {"n_pairs": len(values), **common, **about.get(name, {})}
        if name in ours:
            rows.append(row)
            continue
        for mine in ours:
            r = ratio(values, seconds[mine][: len(values)])
            times = {"ratio": r.median, "ratio_low": r.low, "ratio_high": r.high, "coverage": r.coverage}
            rows.append(row | {"against": mine} | times)
    return rows


def fastest(rows, peer: str, against: str) -> Mapping[str, Any] | None:
    """The row of a peer's fastest way beside one of ours, None where there is none: the one ratio that is published.

    One fit has the fastest single process against it; processes side by side are the peer of many fits.
    """
    found = [
        row
        for row in rows
        if row["method"].startswith(peer)
        and row.get("against") == against
        and not (against == ONE_FIT and row["method"].endswith("workers"))
        and (row.get("ratio") is not None or row.get("ratio_low") is not None)
    ]
    return min(found, key=lambda row: math.inf if row["ratio"] is None else row["ratio"], default=None)


# ---- the floor


class Rates(NamedTuple):
    """What this machine does in a second, all its cores together, in one dtype."""

    flops: float  # square matrix product
    exponentials: float  # in one fused loop whose numbers stay in the cache
    bytes: float  # copied from one array to another


def measure_rates(dtype, *, size: int = 2048, n_rounds: int = 5) -> Rates:
    """The best of several rounds each: a floor is not what a busy moment allows."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size)), dtype)
    product = jax.jit(jnp.matmul)
    y = jnp.asarray(np.linspace(0.0, 1.0, 1 << 14), dtype)
    n_steps = 4 * size
    source = np.ones(size * size * 4, dtype)
    target = np.empty_like(source)
    cores = usable_cores()
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    works = {
        "flops": (lambda: product(a, a), 2.0 * size**3),
        "exponentials": (lambda: _together([lambda: _exponentials(y, n_steps)] * cores), cores * y.size * n_steps),
        "bytes": (lambda: _together([lambda t=t, s=s: np.copyto(t, s) for t, s in parts]), source.nbytes),
    }
    for work, _ in works.values():
        jax.block_until_ready(work())
    return Rates(*(amount / min(seconds_of(work) for _ in range(n_rounds)) for work, amount in works.values()))


def floor(rates: Rates, n: int, d: int, k: int, itemsize: int) -> tuple[float, str]:
    """Seconds that one EM iteration with full covariances needs at least, and what limits it."""
    features = 1 + d + d * (d + 1) // 2
    needs = {
        "matrix product": 4.0 * n * k * features / rates.flops,
        "exponentials": n * k / rates.exponentials,
        "one pass over x": n * d * itemsize / rates.bytes,
    }
    limit = max(needs, key=needs.get)
    return needs[limit], limit


@jax.jit
def _exponentials(y, n_steps):
    return jax.lax.fori_loop(0, n_steps, lambda _, y: jnp.exp(-y), y)


def _together(works):
    """All works at once, each in a thread of its own, until all are ready."""
    threads = [threading.Thread(target=lambda work=work: jax.block_until_ready(work())) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
