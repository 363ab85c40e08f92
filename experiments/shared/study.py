"""An experiment's rows on their way to disk, and its answer at the end.

with Experiment(__doc__, "restarts", out, {"seeds": seeds}, steps=seeds) as study:
    for seed in range(seeds):
        study.add(one(seed))
return study.conclude("What was found, in numbers.", met=True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmm_jax.bench import store
from gmm_jax.bench.study import Study

EXIT_UNMET = 3


class Experiment(Study):
    """A Study of an experiment, whose command is made of its options.

    Args:
        doc: the experiment's docstring, which begins with its question and tells its design (`provenance.design_of`).
        name: of the experiment's file, and of its folder in `out`.
        options: what was chosen on the command line; the command that repeats the study is made of them.
        steps: how many times `add` or `step` will be called, for the progress bar.
        seeds: how many data sets there are.
        smoke: a quick pass for tests, whose numbers mean little and meet no expectation.
        keep: begin with the rows that are in the folder, so that an interrupted study goes on.
    """

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
    ):
        there = keep and (Path(out) / name / "rows.csv").exists()
        rows = (store.read_rows(store.result_folder(out, name)) if there else []) if keep else None
        command = " ".join([f"python experiments/{name}.py", *_words(options)])
        seeds = sorted({0, seeds - 1}) if isinstance(seeds, int) else seeds
        super().__init__(doc, name, out, options, command=command, seeds=seeds, rows=rows, steps=steps)
        self.smoke = smoke

    def add(self, *rows: Mapping[str, Any]) -> None:
        """More rows, at once on disk, and one step done."""
        self.put(*rows)
        self.step()

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
