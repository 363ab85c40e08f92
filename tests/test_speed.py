"""Ratios, floors and T99: their arithmetic, which no clock disturbs."""

import math

import numpy as np
import pytest

from gmm_jax.bench.workers import Lost
from speed import iterations, programs, ratios, time_to_99


def test_rounds_alternate_their_order():
    order = []
    calls = {name: lambda name=name: order.append(name) or 1.0 for name in "ab"}
    seconds = ratios.interleave(calls, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert all(values.tolist() == [1.0] * 3 for values in seconds.values())


def test_who_leaves_has_the_first_rounds_and_is_compared_in_them():
    answers = {"gmm_jax": iter([1.0, 2.0, 4.0, 8.0]), "slow": iter([3.0, 8.0, None])}
    seconds = ratios.interleave({name: lambda it=it: next(it) for name, it in answers.items()}, 4)
    assert {name: values.tolist() for name, values in seconds.items()} == {
        "gmm_jax": [1.0, 2.0, 4.0, 8.0],
        "slow": [3.0, 8.0],
    }
    ours, slow = ratios.compare(seconds, ["gmm_jax"], {})
    assert (ours["n_pairs"], slow["n_pairs"], slow["ratio"]) == (4, 2, 3.5)


def test_a_program_leaves_when_it_has_failed_or_has_had_rounds_and_time_enough(monkeypatch):
    answers = iter([0.5, 0.25, 0.25, 0.25, 0.25, 0.25, Lost("out of luck")])
    visit = iterations.Visit(programs.ITERATIONS["scikit-learn"], lambda job, limit: next(answers))
    assert visit.answer() == 0.5
    monkeypatch.setattr(iterations, "ENOUGH", 0.0)
    assert [visit() for _ in range(6)] == [0.25] * 5 + [None]
    monkeypatch.setattr(iterations, "ENOUGH", 1e9)
    assert [visit(), visit(), visit()] == [None, None, None]
    assert visit.reason == "out of luck"


def test_the_interval_of_a_ratio_is_as_narrow_as_95_percent_allows():
    few = ratios.ratio(np.array([3.0, 1.0, 2.0]), np.ones(3))
    assert (few.median, few.low, few.high, few.coverage) == (2.0, 1.0, 3.0, 0.75)
    many = ratios.ratio(np.arange(1.0, 10.0), np.ones(9))
    assert (many.low, many.high) == (2.0, 8.0)  # 1 − 2·(1 + 9)/512 = 0.96; the next pair of nine would cover 0.82
    assert many.coverage == pytest.approx(1.0 - 20.0 / 512.0)


def test_a_slow_moment_that_hits_both_sides_leaves_the_ratio_alone():
    moment = np.array([1.0, 50.0, 1.0, 7.0, 1.0, 1.0])
    assert ratios.ratio(4.0 * moment, moment)[:3] == (4.0, 4.0, 4.0)


def test_one_fit_is_compared_with_one_process_of_a_peer_and_many_fits_with_all_ways():
    def row(method, against, ratio, low=1.0):
        return {"method": method, "against": against, "ratio": ratio, "ratio_low": low}

    ways = {"scikit-learn": 30.0, "scikit-learn one thread": 25.0, "scikit-learn workers": 20.0}
    rows = [row(way, ours, times) for way, times in ways.items() for ours in (ratios.ONE_FIT, ratios.MANY_FITS)]
    rows += [row("gmmx", ratios.ONE_FIT, None, None), {"method": "gmm_jax one fit"}]
    assert ratios.fastest(rows, "scikit-learn", ratios.ONE_FIT)["ratio"] == 25.0
    assert ratios.fastest(rows, "scikit-learn", ratios.MANY_FITS)["ratio"] == 20.0
    assert ratios.fastest(rows, "gmmx", ratios.ONE_FIT) is None


def test_the_floor_is_what_the_slowest_part_needs():
    rates = ratios.Rates(flops=1e9, exponentials=1e9, bytes=1e9)
    assert ratios.floor(rates, 1000, 2, 5, 8) == (4.0 * 1000 * 5 * 6 / 1e9, "matrix product")
    assert ratios.floor(rates._replace(exponentials=1e6), 1000, 2, 5, 8) == (5000 / 1e6, "exponentials")
    assert ratios.floor(rates._replace(bytes=1e3), 1000, 2, 5, 8) == (16000 / 1e3, "one pass over x")


def test_rates_are_of_this_machine():
    rates = ratios.measure_rates("float32", size=64, n_rounds=1)
    assert all(1e5 < rate < 1e15 for rate in rates)


def test_99_percent_of_searches_need_so_many_starts():
    p = 0.2
    n_starts = time_to_99.t99(1.0, p)
    assert (1.0 - p) ** n_starts == pytest.approx(0.01)
    assert time_to_99.t99(3.0, 1.0) == 3.0  # one start at least
    assert time_to_99.t99(3.0, 0.0) == math.inf


def test_the_bound_of_a_t99_ratio_lies_below_it_and_survives_a_side_without_hits():
    seconds = np.array([1.0, 1.1, 0.9, 1.0])
    slow, fast = time_to_99.Trials(20.0 * seconds, 1000, 300), time_to_99.Trials(seconds, 1000, 300)
    value, low = time_to_99.t99_ratio(slow, fast)
    assert value == pytest.approx(20.0)
    assert 15.0 < low < value
    value, low = time_to_99.t99_ratio(slow._replace(n_hits=0), fast)
    assert value == math.inf
    assert 100.0 < low < math.inf
    assert all(map(math.isnan, time_to_99.t99_ratio(slow, fast._replace(n_hits=0))))


def test_hits_are_judged_by_the_best_of_all_kinds_whenever_they_came():
    def row(method, kind, near, n_starts=100):
        return {"method": method, "start": kind, "near": near, "n_starts": n_starts, "seconds_chunks": [1.0, 1.0]}

    first = [row("gmm_jax", "a", {"-5.000000": 3, "-5.000050": 2}), row("other", "a", {"-5.000000": 20})]
    assert [r["n_hits"] for r in time_to_99.judged(first)] == [5, 20]
    higher = [row("gmm_jax", "b", {"-4.999920": 7}), row("other", "b", {})]
    rows = time_to_99.judged([*time_to_99.judged(first), *higher])
    assert [r["n_hits"] for r in rows] == [3, 20, 7, 0]
    assert {(r["best_known"], r["n_starts_of_all"]) for r in rows} == {(-4.99992, 400)}
    assert rows == time_to_99.judged(rows)
    assert rows[1]["ratio"] == pytest.approx(rows[1]["t99"] / rows[0]["t99"])
