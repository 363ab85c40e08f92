"""Rows on their way to disk: an experiment's folder, its progress, and at the end what is needed to repeat it.

with Study(__doc__, "restarts", out, {"seeds": seeds}, steps=seeds) as study:
    for seed in range(seeds):
        study.add(one(seed))
return study.conclude("What was found, in numbers.", met=True)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import provenance, store
from .clock import Clock
from .report import progress_bar

EXIT_UNMET = 3


class Study:
    """A context manager around the work; `rows` are on disk after every `add`, each with what made it."""

    def __init__(
        self,
        doc: str,
        name: str,
        out: str | Path,
        options: Mapping[str, Any],
        *,
        steps: int | None = None,
        seeds: int | Sequence[int] = 1,
        smoke: bool = False,
        keep: bool = False,
        rows: Sequence[Mapping[str, Any]] | None = None,
        command: str | None = None,
    ):
        """Begin or go on.

        Args:
            doc: the experiment's docstring, which begins with its question and tells its design (`provenance.entry`).
            name: of the experiment's file, and of its folder in `out`.
            options: what was chosen on the command line; the command that repeats the study is made of them.
            steps: how many times `add` or `step` will be called, for the progress bar.
            seeds: of the data sets; a number stands for 0 to seeds − 1.
            smoke: a quick pass for tests, whose numbers mean little and meet no expectation.
            keep: begin with the rows that are in the folder, so that an interrupted study goes on.
            rows: go on from these in place of those in the folder.
            command: what was typed, where it was no experiment.
        """
        self.doc, self.name, self.options, self.smoke = doc, name, dict(options), smoke
        self.command = command or " ".join([f"python experiments/{name}.py", *_words(self.options)])
        self.folder, self.started = store.result_folder(out, name), datetime.now(UTC)
        if rows is None:
            rows = store.read_rows(self.folder) if keep and (self.folder / "rows.csv").exists() else []
        else:
            keep = True
        self.rows = [provenance.earlier(row) for row in rows]
        self._earlier = provenance.read_provenance(self.folder) if keep and self._record.exists() else []
        self._steps, self._seeds = steps, sorted({0, seeds - 1}) if isinstance(seeds, int) else list(seeds)
        self.answer: str | None = None
        self._done = self._added = 0

    @property
    def _record(self):
        return self.folder / "provenance.json"

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return self.clock.so_far()["seconds"]

    def __enter__(self) -> Study:
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

    def add(self, *rows: Mapping[str, Any]) -> None:
        """More rows, at once on disk, and one step done."""
        self.put(*rows)
        self.step()

    def put(self, *rows: Mapping[str, Any], instead: Callable[[Mapping], bool] = lambda row: False) -> None:
        """More rows, at once on disk, in place of those that `instead` names.

        Those without seconds of their own have equal parts of the time since the rows before.
        """
        each = (time.perf_counter() - self._last) / max(len(rows), 1)
        new = [self.stamp(row, each) for row in rows]
        self.rows = [*(row for row in self.rows if not instead(row)), *new]
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
        new = sum("commit" not in row for row in self.rows)
        self.rows = [row if "commit" in row else self.stamp(row, self.seconds / new) for row in self.rows]
        store.write_rows(self.folder, self.rows)
        if self._added or not self._earlier or self.answer not in (None, self._earlier[-1].get("answer")):
            self._write_entry(datetime.now(UTC), **more)

    def _write_entry(self, ended, **more):
        """In place of this run's own, after those of earlier runs."""
        rows = None if ended is None else self._added
        of = {"rows": rows, "seeds": self._seeds, "doc": self.doc, "answer": self.answer}
        new = provenance.entry(self.command, self.options, self.started, ended, self.clock.so_far(), **of)
        store.write_json(self._record, [*self._earlier, new | more])

    def conclude(self, answer: str, *, met: bool = True) -> int:
        """Write the provenance and print the answer: the exit code, 3 where the expectation was not met."""
        self.answer = answer
        self.save()
        print(answer)
        return 0 if met or self.smoke else EXIT_UNMET


def _words(options):
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            yield from [flag] if value else []
        elif value != ():
            yield f"{flag} {' '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"
