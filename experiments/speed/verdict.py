"""Whether the targets of speed_em.py are met, the sentence with the numbers, and the table of results/README.md."""

from __future__ import annotations

from shared.cells import groups

from .iterations import SIZES
from .ratios import MANY_FITS, ONE_FIT, WITHIN, fastest

LEAST = {"same_work": 15, "same_answer": 50, "cold": 1, "t99": 10, "many": 50}  # times faster than scikit-learn
WORKS = {
    "same_work": "the same starts",
    "same_answer": "the same answer",
    "many": "many data sets",
    "cold": "a cold fit",
}
PEERS = ("scikit-learn", "gmmx", "pomegranate", "mclust")


def verdict(rows):
    """Whether every target that was measured is met, and the sentence with the numbers."""
    clauses = [clause for said in (iterations, fits, certainty, memory) for clause in said(rows)]
    if not clauses:
        return True, "Nothing that has a target was measured."
    return all(met for met, _ in clauses), "\n".join(text for _, text in clauses)


def iterations(rows):
    """(met, text) for the table of sizes."""
    texts, met = [], True
    for size, (least, least_gmmx) in SIZES.items():
        chosen = [r for r in rows if r["part"] == "iteration" and r["case"] == "n={} d={} K={}".format(*size)]
        one, many = (times(fastest(chosen, "scikit-learn", ours)) for ours in (ONE_FIT, MANY_FITS))
        gmmx = times(fastest(chosen, "gmmx", ONE_FIT))
        if one is None:
            continue
        texts.append(f"{one:.3g} ({number(many)}{f'; gmmx {gmmx:.2g}' if gmmx else ''}) at n, d, K = {size}")
        met &= max(one, many or 0.0) >= least and (gmmx is None or least_gmmx is None or gmmx >= least_gmmx)
    what = "scikit-learn's iteration takes so many times as long as ours of one fit (of one among four fits)"
    return [(met, f"{what}: {', '.join(texts)}")] if texts else []


def fits(rows):
    """(met, text) for whole searches."""
    clauses = []
    for part, what in WORKS.items():
        chosen = [r for r in rows if r["part"] == part]
        ratio = times(fastest(chosen, "scikit-learn", "gmm_jax"))
        if ratio is None:
            continue
        often = next((r["share_within"] for r in chosen if r["method"] == "gmm_jax" and r.get("share_within")), None)
        text = "" if often is None else f" (ours within {WITHIN:g} nats of the best in {100 * often:.4g} %)"
        met = ratio >= LEAST[part] and (often is None or often >= 0.999)
        clauses.append((met, f"{what}: {ratio:.3g} times as long as ours{text}"))
    return clauses


def certainty(rows):
    """(met, text) for the time to 99 %."""
    found = [r for r in rows if r["part"] == "t99" and r.get("against")]
    if not found:
        return []
    each = [f"{r['case']} from {r['start']} {number(r['ratio'])} ({number(r['ratio_low'])})" for r in found]
    met = all(r["ratio_low"] is not None and r["ratio_low"] >= LEAST["t99"] for r in found)
    return [(met, f"its time to 99 % in ours, with the lower 95 % bound: {', '.join(each)}")]


def memory(rows):
    """(met, text) for the peak."""
    found = [r for r in rows if r["part"] == "memory" and r["status"] == "ok"]
    each = [f"{r['times_x']:.2f} ({r['counted']})" for r in found]
    return [(all(r["times_x"] <= 1.5 for r in found), f"peak memory in sizes of x: {', '.join(each)}")] if found else []


def table(rows):
    """Markdown: how many times faster than the fastest way of each peer, with 95 % intervals."""
    lines = [
        "How many times faster than each peer's fastest way: medians of interleaved runs in float64 on two cores, with",
        "95 % intervals; gmmx and pomegranate in float32. *One fit* has the peer's fastest single process against it;",
        "*many fits*, which share both cores, the fastest way of all, two processes among them.",
        "",
        "| work | peer | one fit | many fits |",
        "|---|---|---:|---:|",
    ]
    cells = groups([row for row in rows if row["part"] == "iteration"], "n", "d", "k")
    for (n, d, k), mine in sorted(cells.items()):
        for peer in PEERS:
            found = [fastest(mine, peer, ours) for ours in (ONE_FIT, MANY_FITS)]
            if any(found):
                work = f"an iteration, n = {n:,}, d = {d}, K = {k}"
                lines.append(f"| {work} | {peer} | {' | '.join(map(interval, found))} |")
    whole = [row for row in rows if row["part"] in (*WORKS, "t99") and row.get("against")]
    for (part, case, ours, start), mine in groups(whole, "part", "case", "against", "start").items():
        work = f"{WORKS[part]}, {case}" if part in WORKS else f"time to 99 %, {case} from {start}"
        work = work.removesuffix(", all") + ours.removeprefix("gmm_jax")
        found = fastest(mine, "scikit-learn", ours)
        lines += [f"| {work} | scikit-learn | | {interval(found)} |"] if found else []
    return lines


def interval(row):
    """The ratio of a row, with its interval."""
    if row is None:
        return ""
    value, low, high = row["ratio"], row["ratio_low"], row.get("ratio_high")
    if value is None:
        return f"at least {low:.3g}"
    within = "" if low is None else f" (at least {low:.3g})" if high is None else f" ({low:.3g} to {high:.3g})"
    return f"{value:.3g}{within}"


def times(row):
    """The ratio of a row, None where there is none."""
    return row and row["ratio"]


def number(value):
    """Three digits; what is not finite was stored as nothing."""
    return "no finite number" if value is None else f"{value:.3g}"
