"""Rows on their way to disk: a folder of results, its progress, and at the end what is needed to repeat it."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from . import provenance, store
from .clock import Clock
from .report import progress_bar


class Study:
    """A context manager around the work; `rows` are on disk after every `put`, each with what made it.

    Args:
        doc: the docstring of what is run, which begins with its question and tells its design (`provenance.design_of`).
        name: of the folder in `out`.
        options: what was chosen.
        command: what was typed, as text for a shell.
        seeds: of the data sets.
        rows: of earlier runs, to go on from.
        steps: how many times `step` will be called, for the progress bar.
    """

    def __init__(self, doc: str, name: str, out, options: Mapping[str, Any], *, command, seeds, rows=None, steps=None):
        self.doc, self.name, self.options = doc, name, dict(options)
        self.command = provenance.command_of(command)
        self.folder, self.started = store.result_folder(out, name), provenance.now()
        self.rows = [provenance.earlier(row) for row in rows or ()]
        there = rows is not None and self._record.exists()
        self._earlier = provenance.read_provenance(self.folder) if there else []
        self._steps, self._seeds = steps, list(seeds)
        self.answer: str | None = None
        self._done = self._added = 0

    @property
    def _record(self):
        return self.folder / "provenance.json"

    def __enter__(self):
        with ExitStack() as stack:
            self.clock = stack.enter_context(Clock())
            self._update = stack.enter_context(progress_bar(self.name, self._steps))
            self._stack = stack.pop_all()
        self._last = time.perf_counter()
        return self

    def __exit__(self, *error):
        with self._stack:
            if self.rows:
                self.save()

    def put(self, *rows: Mapping[str, Any]) -> None:
        """More rows, at once on disk; those without seconds have equal parts of the time since the rows before."""
        each = (time.perf_counter() - self._last) / max(len(rows), 1)
        self.rows = [*self.rows, *(self.stamp(row, each) for row in rows)]
        store.write_rows(self.folder, self.rows)
        self._last = time.perf_counter()

    def stamp(self, row: Mapping[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """A new row with what made it; the first one is the beginning of this run's entry in the provenance."""
        if not self._added:
            self._write_entry(ended=None)
        self._added += 1
        return provenance.stamped(row, seconds)

    def step(self, note: str = "") -> None:
        """One more step is done."""
        self._last, self._done = time.perf_counter(), self._done + 1
        self._update(self._done, note=note)

    def save(self, **more: Any) -> None:
        """Rows and provenance as they are now, with `more` in this run's entry.

        A run that added nothing and found nothing new leaves no entry.
        """
        store.write_rows(self.folder, self.rows)
        if self._added or not self._earlier or self.answer not in (None, self._earlier[-1].get("answer")):
            self._write_entry(provenance.now(), **more)

    def _write_entry(self, ended, **more):
        """What is needed to repeat this run, after the entries of earlier ones; one that was killed has no end."""
        entry = {
            **provenance.design_of(self.doc),
            "answer": self.answer,  # a sentence, or a line for each thing; results/README.md shows them all
            "command": self.command,
            "config": provenance.bare(store.plain(self.options)),
            "seeds": self._seeds,
            "rows": None if ended is None else self._added,
            **provenance.here(),
            "started": self.started,
            "ended": ended,
            "seconds": self.clock.so_far(),
        }
        store.write_json(self._record, [*self._earlier, entry | more])
