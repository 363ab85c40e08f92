"""What the experiments share: measure the cells that the results folder lacks, draw, answer the question.

An experiment is a question (its docstring), a list of cells (dicts of the columns by which their rows are known), a
function that measures one cell, and `verdict(rows)`: whether the answer is as expected, and the sentence that says it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from gmm_jax.shell import configure_jax

from .study import Experiment
from .workers import answers

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where an experiment leaves its results."""

    out: Path = Path("results")
    """Folder for results."""
    smoke: bool = False
    """A quick pass, for tests: its numbers mean little."""


@dataclass(frozen=True)
class Run(Place):
    """The same, of an experiment that goes on where an earlier run was stopped."""

    fresh: bool = False
    """Measure again what the folder has."""


Here = Annotated[Place, tyro.conf.arg(name="")]
Options = Annotated[Run, tyro.conf.arg(name="")]
HERE, RUN = Place(), Run()


def ask(
    doc: str,
    name: str,
    cells: Sequence[Mapping[str, Any]],
    measure: Callable[..., dict[str, Any] | Rows],
    verdict: Callable[[Rows], tuple[bool, str]],
    run: Run,
    options: Mapping[str, Any],
    *,
    seeds: int = 1,
    workers: int = 1,
    draw: Callable[[Path, Rows], None] | None = None,
) -> int:
    """Exit code 0, or 3 where the answer is not as expected; rows are on disk after every cell.

    Args:
        measure: (**cell) -> a row or several, which the cell's columns precede.
        verdict: of the rows of these cells.
        options: from the command line; the command that repeats the run is made of them.
        workers: processes that share the cells.
        draw: pictures from rows.
    """
    names = tuple(cells[0])
    asked = {tuple(cell.values()) for cell in cells}

    def place(row):
        return tuple(row.get(name) for name in names)

    with open_study(doc, name, run, options, steps=len(cells), seeds=seeds) as study:
        if run.fresh:
            study.rows = [row for row in study.rows if place(row) not in asked]
        there = {place(row) for row in study.rows}
        lacking = [cell for cell in cells if tuple(cell.values()) not in there]
        for _ in range(len(cells) - len(lacking)):
            study.step()
        for rows in answers(partial(rows_of, measure), lacking, workers, prepare=configure_jax):
            study.add(*rows)
    if len(lacking) < len(cells):
        print(f"{len(cells) - len(lacking)} of {len(cells)} cells were measured before; --fresh measures them again.")
    rows = [row for row in study.rows if place(row) in asked]
    if draw is not None:
        draw(study.folder, rows)
    met, sentence = verdict(rows)
    return study.conclude(sentence, met=met)


def open_study(doc: str, name: str, run: Run, options: Mapping[str, Any], **about: Any) -> Experiment:
    """The study with the rows that are there; a smoke run refuses to add its own to those of a full one."""
    study = Experiment(doc, name, run.out, options, smoke=run.smoke, keep=True, **about)
    if run.smoke and study.rows:
        raise ValueError(f"{study.folder} holds the rows of another run: choose another --out for a smoke run.")
    return study


def rows_of(measure, cell) -> Rows:
    """The rows of one cell, its columns first."""
    found = measure(**cell)
    return [{**cell, **row} for row in ([found] if isinstance(found, dict) else found)]


def groups(rows: Iterable[Mapping[str, Any]], *columns: str) -> dict[Any, Rows]:
    """Rows by what they have in a column (or by the tuple of several), in the order of first appearance."""
    found: dict[Any, Rows] = {}
    for row in rows:
        value = row[columns[0]] if len(columns) == 1 else tuple(row[column] for column in columns)
        found.setdefault(value, []).append(row)
    return found


def some_of(given: Sequence[str], there: Iterable[str], what: str) -> tuple[str, ...]:
    """What was given, all where nothing was; ValueError where something is not there."""
    there = tuple(there)
    unknown = [name for name in given if name not in there]
    if unknown:
        raise ValueError(f"{what} must be among {', '.join(there)}; got {', '.join(map(repr, unknown))}.")
    return tuple(given) or there
