"""What a fit says: its components in one order, tables for the terminal and the report, and one JSON document."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..bench import landscape, report, store
from ..mixture import GMM, Fit, MixtureSpec, Status, free_parts, permute
from ..mixture.gmm import variances_of
from ..mixture.predictive import predictive
from ..plot import SURE

ONE_TABLE = 10  # rows: more of them are a table for each component
MOST_FEATURES = 6  # whose covariances are shown
NAMED = 8  # of them, in a title
CRITERIA = ("log_likelihood", "n_parameters", "aic", "bic", "icl")
NEAR = 2, 6  # decimals in which weights, and means in units of their feature, are compared: two seeds order alike


def in_order(fit: Fit, spec: MixtureSpec) -> Fit:
    """The fit with its components by weight, then by the first mean that differs; as it is where anything is known."""
    means, weights = np.asarray(fit.point.means, float), np.asarray(fit.point.weights, float)
    if not all(mask.all() for mask in free_parts(spec)):
        return fit
    size = np.abs(means).max(0)  # a constant column's means differ by rounding alone
    last_first = np.round(means / np.where(size > 0.0, size, 1.0), NEAR[1]).T[::-1]
    order = np.lexsort((*last_first, -np.round(weights, NEAR[0])))
    errors, draws = fit.standard_errors, fit.draws
    if draws is not None:
        places = np.broadcast_to(order, np.shape(draws.draws.weights))
        draws = draws._replace(draws=permute(draws.draws, places))
    return fit._replace(
        point=permute(fit.point, order), draws=draws, standard_errors=None if errors is None else permute(errors, order)
    )


def trusted(fit: Fit) -> bool:
    """Whether the answer may be used: converged or sampled, and not at a spurious optimum for want of any other."""
    return fit.status in (Status.CONVERGED, Status.SAMPLED) and not fit.info.get("spurious", False)


def advice(fit: Fit, warnings: Sequence[str]) -> str:
    """What happened and what to try: the same sentences in the table and in JSON, features by their names."""
    message = fit.info.get("message", fit.status.advice).removesuffix(".")
    if not fit.status.ok and fit.status.advice not in message:
        message = f"{fit.status.advice}; {message}"
    by_number = ("x is constant in", "x is linearly", "no standard errors: column(s)")
    said = [part for part in message.split("; ") if not part.startswith(by_number)]
    said += ["no standard errors: the covariance is singular"] * (by_number[-1] in message)
    said += [fit.info[name].removesuffix(".") for name in ("reading", "labels") if name in fit.info]
    if "r_hat" in fit.info and "ess_bulk" in fit.info:
        said.append(f"R-hat {fit.info['r_hat']:.3f} and {fit.info['ess_bulk']:.0f} effective draws in the worst number")
    return "; ".join([*warnings, *said]) + "."


def verdict(gmm: GMM, x: np.ndarray, missing: str | None) -> str:
    """What shares of the rows the components take, and of how many rows there is no doubt, in a sentence."""
    if gmm.n_components == 1:
        return "One component takes all rows."
    p = predictive(jax.tree.map(lambda leaf: np.asarray(leaf)[None], gmm), x, missing=missing).responsibilities
    shares = np.bincount(np.argmax(p, axis=1), minlength=gmm.n_components) / len(p)
    each = [f"{share:.0%}" for share in shares]
    taken = f"{', '.join(each[:-1])} and {each[-1]}"
    taken = taken if len(each) <= NAMED else f"{min(shares):.0%} to {max(shares):.0%}"
    sure = np.mean(p.max(axis=1) > SURE)
    return f"{len(each)} components take {taken} of the rows; {sure:.0%} of these belong to one with p > {SURE:g}."


def document(fit: Fit, spec: MixtureSpec, scores: Mapping, warnings: Sequence[str], about: Mapping) -> dict[str, Any]:
    """What --json prints and the model file holds; `about`, the data and how they were fitted, comes first."""
    return {
        **about,
        "n_components": spec.n_components,
        "covariance_type": spec.covariance_type,
        "known": {name: value for name, value in vars(spec.known).items() if value is not None},
        "status": Status(fit.status).name,
        "advice": advice(fit, warnings),
        "gmm": store.mixture_record(fit.point),
        "standard_errors": store.mixture_record(fit.standard_errors),
        **scores,
        "info": {name: value for name, value in fit.info.items() if name != "message"},  # it is in the advice
    }


def tables(fit: Fit, spec: MixtureSpec, names: Sequence[str]) -> list[tuple[str, report.Table]]:
    """(title, table) of the components: all in one, or one for each where they are many."""
    heads, groups = _rows(fit, spec, names)
    k, shared = len(groups), _shared(fit, spec, names)
    weights = _cells(fit, spec, "weights")
    if k * len(names) <= ONE_TABLE:
        rows = [
            (f"{i + 1}" * first, weights[i] * first, *row)
            for i, group in enumerate(groups)
            for row, first in zip(group, [True] + [False] * (len(group) - 1), strict=True)
        ]
        return [("", report.Table(("component", "φ", *heads), tuple(rows))), *shared]
    titles = [f"component {i + 1}: φ = {weight}" for i, weight in enumerate(weights)]
    return [*((title, report.Table(heads, tuple(rows))) for title, rows in zip(titles, groups, strict=True)), *shared]


def _rows(fit, spec, names):
    """(heads, for each component a row for each feature): its name, the mean, and variances or covariances."""
    means, kind, d = _cells(fit, spec, "means"), spec.covariance_type, len(names)
    if kind == "tied":
        return ("feature", "mean μ"), [[(names[j], means[k, j]) for j in range(d)] for k in range(len(means))]
    if kind == "full" and 1 < d <= MOST_FEATURES:
        cells = _cells(fit, spec, "covariances")
        heads = ("feature", "mean μ", *(f"Σ: {name}" for name in names))
        rows = [[(names[j], means[k, j], *_lower(cells[k], j)) for j in range(d)] for k in range(len(means))]
        return heads, rows
    if kind == "full" and d > 1:
        sds = np.sqrt(variances_of(fit.point))
        cells, head = np.vectorize(lambda sd: report.with_uncertainty(float(sd), math.nan), otypes=[object])(sds), "sd"
    else:
        cells, head = _cells(fit, spec, "covariances").reshape(len(means), -1), "variance"
        cells = np.broadcast_to(cells, means.shape)
    rows = [[(names[j], means[k, j], cells[k, j]) for j in range(d)] for k in range(len(means))]
    return ("feature", "mean μ", head), rows


def _shared(fit, spec, names):
    """The table of a covariance that all components share."""
    if spec.covariance_type != "tied":
        return []
    cells, shown = _cells(fit, spec, "covariances"), names[:MOST_FEATURES]
    rows = tuple((names[j], *_lower(cells, j)[: len(shown)]) for j in range(len(shown)))
    return [("Σ of all components", report.Table(("", *shown), rows))]


def _lower(cells, j):
    return [cells[j, i] if i <= j else "" for i in range(cells.shape[1])]


def _cells(fit, spec, name):
    """The entries of a leaf as text, with their errors; what is known is marked."""
    values = np.asarray(getattr(fit.point, name), float)
    errors = np.full(values.shape, np.nan)
    if fit.standard_errors is not None:
        errors = np.asarray(getattr(fit.standard_errors, name), float)
    known = getattr(spec.known, name)
    known = np.zeros(values.shape, bool) if known is None else ~np.isnan(np.asarray(known, float))
    cells = np.empty(values.shape, object)
    for place in np.ndindex(values.shape):
        text = report.with_uncertainty(float(values[place]), float(errors[place]))
        cells[place] = f"{text} known" if known[place] else text
    return cells


def title_of(said: Mapping) -> str:
    """What was fitted to what, in a line."""
    names = said["columns"]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{said['method']} on {said['file']}: {said['n_samples']} rows of {', '.join(names[:NAMED])}{more}"


def criteria_of(said: Mapping) -> str:
    """The log-likelihood and criteria in a line."""
    return ", ".join(f"{name.replace('_', ' ')} {said[name]:.6g}" for name in CRITERIA if name in said) + "."


def show(fit: Fit, spec: MixtureSpec, said: Mapping, *, as_json: bool) -> None:
    """Print the document, or the tables, the criteria, the advice, and where the starts ended."""
    if as_json:
        print(json.dumps(store.plain(said), allow_nan=False))
        return
    console, title = report.console(), title_of(said)
    for heading, table in tables(fit, spec, said["columns"]):
        report.print_table(console, "\n".join(filter(None, (title, heading))), table)
        title = ""
    console.print(f"{criteria_of(said)}\n{said['advice']}", highlight=False, markup=False)
    if len(fit.info.get("landscape", ())) > 1:
        report.print_table(console, "where the starts ended", landscape.table(fit.info["landscape"]))
