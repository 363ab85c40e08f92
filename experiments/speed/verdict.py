"""Whether the targets are met, and the sentence with the numbers."""

from __future__ import annotations

from .iterations import SIZES
from .measure import WITHIN

LEAST = {"same_work": 15, "same_answer": 50, "cold": 1, "t99": 10, "many": 50}  # times faster than scikit-learn


def verdict(rows):
    """Whether every target that was measured is met, and the sentence with the numbers."""
    clauses = [clause for clause in (*said_of_iterations(rows), *said_of_fits(rows), *said_of_t99(rows)) if clause]
    clauses += said_of_memory(rows)
    if not clauses:
        return True, "Nothing that has a target was measured."
    return all(met for met, _ in clauses), "\n".join(text for _, text in clauses)


def said_of_iterations(rows):
    """(met, text) for the table of sizes."""
    texts, met = [], True
    for size, (least, least_gmmx) in SIZES.items():
        chosen = [r for r in rows if r["part"] == "iteration" and r["case"] == "n={} d={} K={}".format(*size)]
        # two processes are the peer of several lanes; one lane has one process against it
        one = least_ratio([r for r in chosen if "workers" not in r["method"]], "scikit-learn", "gmm_jax one lane")
        lanes = least_ratio(chosen, "scikit-learn", "gmm_jax lanes")
        gmmx = least_ratio(chosen, "gmmx", "gmm_jax one lane")
        if one is None:
            continue
        texts.append(f"{one:.3g} ({number(lanes)}{f'; gmmx {gmmx:.2g}' if gmmx else ''}) at n, d, K = {size}")
        met &= max(one, lanes or 0.0) >= least and (gmmx is None or least_gmmx is None or gmmx >= least_gmmx)
    what = "scikit-learn's iteration takes so many times as long as ours of one lane (of four lanes)"
    return [(met, f"{what}: {', '.join(texts)}")] if texts else []


def said_of_fits(rows):
    """(met, text) for whole searches."""
    names = {"same_work": "the same starts", "same_answer": "the same answer", "cold": "a cold fit"}
    names["many"] = "many data sets"
    clauses = []
    for part, what in names.items():
        chosen = [r for r in rows if r["part"] == part]
        times = least_ratio(chosen, "scikit-learn", "gmm_jax")
        if times is None:
            continue
        share = next((r["share_within"] for r in chosen if r["method"] == "gmm_jax" and r.get("share_within")), None)
        text = "" if share is None else f" (ours within {WITHIN:g} nats of the best in {100 * share:.4g} %)"
        met = times >= LEAST[part] and (share is None or share >= 0.999)
        clauses.append((met, f"{what}: {times:.3g} times as long as ours{text}"))
    return clauses


def said_of_t99(rows):
    """(met, text) for the time to be 99 % sure."""
    found = [r for r in rows if r["part"] == "t99" and r.get("against")]
    if not found:
        return []
    each = [f"{r['case']} from {r['start']} {number(r['ratio'])} ({number(r['ratio_low'])})" for r in found]
    met = all(r["ratio_low"] is not None and r["ratio_low"] >= LEAST["t99"] for r in found)
    return [(met, f"its T99 in ours, with the lower 95 % bound: {', '.join(each)}")]


def said_of_memory(rows):
    """(met, text) for the peak."""
    found = [r for r in rows if r["part"] == "memory" and r["status"] == "ok"]
    each = [f"{r['times_x']:.2f} ({r['counted']})" for r in found]
    return [(all(r["times_x"] <= 1.5 for r in found), f"peak memory in sizes of x: {', '.join(each)}")] if found else []


def least_ratio(rows, program, against):
    """The smallest ratio over all ways in which a program was run, None where there is none: it runs at its best."""
    found = [r for r in rows if str(r["method"]).startswith(program) and r.get("against") == against]
    return min((r["ratio"] for r in found if r.get("ratio") is not None), default=None)


def number(value):
    """Three digits; what is not finite was stored as nothing."""
    return "no finite number" if value is None else f"{value:.3g}"
