"""An experiment on its way: its folder, its rows, its progress, and at the end what is needed to repeat it.

with Study(__doc__, "restarts", out, {"seeds": seeds}, steps=seeds) as study:
    for seed in range(seeds):
        study.add(one(seed))
return study.conclude("What was found, in numbers.", met=True)
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import store
from .clock import Clock
from .report import progress_bar

EXIT_UNMET = 3


class Study:
    """A context manager around the work; `rows` are on disk after every `add`."""

    def __init__(
        self,
        doc: str,
        name: str,
        out: str | Path,
        options: Mapping[str, Any],
        *,
        steps: int | None = None,
        seeds: int = 1,
        smoke: bool = False,
        keep: bool = False,
    ):
        """Begin or go on.

        Args:
            doc: the experiment's docstring, which begins with its question and tells its design (see design.py).
            name: of the experiment's file, and of its folder in `out`.
            options: what was chosen on the command line; the command that repeats the study is made of them.
            steps: how many times `add` or `step` will be called, for the progress bar.
            seeds: data sets have the seeds 0 to seeds − 1.
            smoke: a quick pass for tests, whose numbers mean little and meet no expectation.
            keep: begin with the rows that are in the folder, so that an interrupted study goes on.
        """
        self.doc, self.name, self.options, self.smoke = doc, name, dict(options), smoke
        self.folder, self.started = store.result_folder(out, name), datetime.now(UTC)
        self.rows = store.read_rows(self.folder) if keep and (self.folder / "rows.csv").exists() else []
        self._steps, self._seeds, self._done = steps, sorted({0, seeds - 1}), 0

    def __enter__(self) -> Study:
        with ExitStack() as stack:
            self._clock = stack.enter_context(Clock())
            self._update = stack.enter_context(progress_bar(self.name, self._steps))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def add(self, *rows: dict[str, Any]) -> None:
        """More rows, at once on disk, and one step done."""
        self.rows += rows
        store.write_rows(self.folder, self.rows)
        self.step()

    def step(self, note: str = "") -> None:
        """One more step is done."""
        self._done += 1
        self._update(self._done, note=note)

    def conclude(self, answer: str, *, met: bool = True) -> int:
        """Write the provenance and print the answer: the exit code, 3 where the expectation was not met."""
        store.write_rows(self.folder, self.rows)
        record = store.provenance(
            " ".join([f"python experiments/{self.name}.py", *_words(self.options)]),
            self.options,
            self.started,
            datetime.now(UTC),
            self._clock.seconds,
            seeds=self._seeds,
            doc=self.doc,
            answer=answer,
        )
        store.write_json(self.folder / "provenance.json", record)
        print(answer)
        return 0 if met or self.smoke else EXIT_UNMET


def _words(options):
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            yield from [flag] if value else []
        elif value != ():
            yield f"{flag} {' '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"
