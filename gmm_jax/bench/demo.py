"""gmm-jax demo: the course's four experiments, told in the terminal, then drawn and written down."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from . import report, store
from .clock import Clock
from .course import CASES, KNOWING, N_RANDOM_STARTS, QUESTION, run_course
from .course_report import parameter_table, score_table, write_course
from .runner import FAILED

PROBLEMS = ("course_2d", "course_3d")


def demo(
    methods: Mapping[str, Mapping[str, Any]],
    *,
    problems=PROBLEMS,
    cases: Sequence[str] = tuple(CASES),
    n_random_starts: int = N_RANDOM_STARTS,
    seed: int = 0,
    results="results",
    name: str = "demo",
    command: str = "gmm-jax demo",
    as_json: bool = False,
) -> int:
    """Run, print, draw, write to results/NAME; returns the exit code (3 where a trial failed)."""
    folder = store.result_folder(results, name)
    started = datetime.now(UTC)
    n_steps = len(problems) * (len(cases) * (len(methods) + 1) + 1)
    with Clock() as clock:
        with report.progress_bar("demo", n_steps) as update:
            done = iter(range(n_steps + 1))
            options = {"cases": cases, "n_random_starts": n_random_starts, "seed": seed}
            courses = [
                run_course(problem, methods, step=lambda label: update(next(done), note=label), **options)
                for problem in problems
            ]
        if not as_json:
            _tell(courses, clock.so_far())
        with report.progress_bar("drawing pictures"):
            path = write_course(courses, folder, command=command, started=started, clock=clock, seed=seed)
    rows = [trial.row for course in courses for trials in course.trials.values() for trial in trials.values()]
    if as_json:
        answers = {course.problem: {"answer": course.answer, **course.numbers} for course in courses}
        print(json.dumps({"rows": store.plain(rows), "answers": answers, "seconds": clock.so_far()}, allow_nan=False))
    else:
        report.console().print(f"Report and pictures: {path}", soft_wrap=True)
    failed = [row for row in rows if row["status"] in FAILED]
    for row in failed:
        print(f"{row['problem']}, {row['case']}, {row['method']}: {row['reason']}", file=sys.stderr)
    return 3 if failed else 0


def _tell(courses, seconds):
    console = report.console()
    for course in courses:
        for case in course.trials:
            title = f"{course.problem}, {case} ({KNOWING[case]})"
            report.print_table(console, title, parameter_table(course, case))
            report.print_table(console, "", score_table(course, case))
    console.print(f"«{QUESTION}»", style="italic", highlight=False)
    for course in courses:
        console.print(f"{course.problem}: {course.answer}", highlight=False)
    spent = (
        f"{seconds['seconds']:.1f} s: {seconds['seconds_trace']:.1f} s tracing, {seconds['seconds_compile']:.1f} s "
        f"compiling or loading compiled programs, {seconds['seconds_run']:.1f} s running"
    )
    console.print(f"\n{spent}.", highlight=False)
