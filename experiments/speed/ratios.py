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
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

WITHIN = 1e-4  # nats: two fits this near in log-likelihood are one answer


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


# ---- the time to be 99 % sure


class Trials(NamedTuple):
    """Starts of one method, in chunks."""

    seconds: Float[np.ndarray, "C"]
    n_starts: int
    n_hits: int  # starts that reached the best admissible optimum

    @property
    def mean_seconds(self) -> float:
        """Seconds a start."""
        return float(self.seconds.sum()) / self.n_starts


def t99(mean_seconds, share):
    """t̄·max(1, ln 0.01 / ln(1 − p)): seconds of independent starts until 99 % of searches have met the optimum."""
    share = np.asarray(share, float)
    with np.errstate(divide="ignore"):
        n_starts = np.where(share > 0.0, np.log(0.01) / np.log1p(-np.minimum(share, 1.0)), np.inf)
    return mean_seconds * np.maximum(1.0, n_starts)


def t99_ratio(slow: Trials, fast: Trials, *, n_draws: int = 4000, seed: int = 0) -> tuple[float, float]:
    """How many times longer `slow` needs, and its lower 95 % bound; infinite where only `fast` ever arrived.

    The bound resamples chunks for t̄ and draws p from Beta(hits + ½, misses + ½), which no hit at all does not break.
    """
    rng = np.random.default_rng(seed)

    def draws(trials):
        picked = rng.integers(trials.seconds.size, size=(n_draws, trials.seconds.size))
        mean_seconds = trials.seconds[picked].sum(axis=1) / trials.n_starts
        return t99(mean_seconds, rng.beta(trials.n_hits + 0.5, trials.n_starts - trials.n_hits + 0.5, n_draws))

    if not fast.n_hits:
        return math.nan, math.nan
    value = t99(slow.mean_seconds, slow.n_hits / slow.n_starts) / t99(fast.mean_seconds, fast.n_hits / fast.n_starts)
    return float(value), float(np.quantile(draws(slow) / draws(fast), 0.05))
