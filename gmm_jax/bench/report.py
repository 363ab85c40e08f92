"""What people look at: tables in the terminal, and one HTML file that needs no network.

A Table is plain text in rows; the same one is printed by Rich and set by Jinja. The reader's numbers come with their
uncertainty, and with z = (estimate − truth) / uncertainty.
"""

from __future__ import annotations

import base64
import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..mixture import GMM, Known, Status
from .parameters import parameters
from .provenance import read_provenance
from .store import UnreadableResult, write_text_atomic

DASH = "—"
TOLD_ELSEWHERE = ("command", "question", "design", "answer")  # of a provenance


class Table(NamedTuple):
    """Rows of text; the first column is left-aligned, the others right-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()


class Picture(NamedTuple):
    """An image file (PNG or GIF) with its caption, which also describes it to those who cannot see it."""

    path: str | Path
    caption: str


class Section(NamedTuple):
    """One part of a report."""

    heading: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Picture] = ()


# ---- tables


def parameter_records(
    truth: GMM | None, known: Known, answers: Mapping[str, tuple[GMM | None, GMM | None, Status]]
) -> list[dict[str, Any]]:
    """Every number of the mixture beside every method's answer, as numbers.

    Args:
        truth: None for real data.
        answers: method -> (point, standard errors or posterior sd or None, status), components in the truth's order.

    Returns:
        One dict a number: parameter, known, truth, and method -> {estimate, uncertainty, z}; None where there is none.
    """
    points = [point for point, _, _ in answers.values() if point is not None]
    if truth is None and not points:
        return []
    records = []
    for entry in parameters(points[0] if truth is None else truth, known):
        true = None if truth is None else entry.value(truth)
        record = {"parameter": entry.label, "known": entry.known, "truth": true}
        for method, (point, errors, _) in answers.items():
            estimate = None if point is None else _number(entry.value(point))
            uncertainty = None if errors is None or entry.known else _number(entry.value(errors))
            z = None
            if None not in (estimate, uncertainty, true) and uncertainty > 0.0:
                z = (estimate - true) / uncertainty
            record[method] = {"estimate": estimate, "uncertainty": uncertainty, "z": z}
        records.append(record)
    return records


def parameter_rows(
    truth: GMM | None, known: Known, answers: Mapping[str, tuple[GMM | None, GMM | None, Status]], caption: str = ""
) -> Table:
    """`parameter_records` set as text: a row a number; truth, and for each method "estimate ± uncertainty" and z.

    A method whose status is not ok carries a dagger, and its advice stands in the notes.
    """
    records = parameter_records(truth, known, answers)
    has_z = {m: any(r[m]["z"] is not None for r in records) for m in answers}
    columns, notes = ["", *([] if truth is None else ["truth"])], []
    for method, (_, _, status) in answers.items():
        columns += [method if status.ok else f"{method} †", *(["z"] if has_z[method] else [])]
        if not status.ok:
            notes.append(f"† {method}: {status.advice}.")
    if any(has_z.values()):
        notes.append("± one standard error or posterior sd; z = (estimate − truth) / that.")
    rows = []
    for record in records:
        row = [record["parameter"], *([] if truth is None else [_plain_number(record["truth"])])]
        for method in answers:
            row.append(_cell(record, record[method]))
            if has_z[method]:
                row.append(DASH if record[method]["z"] is None else f"{record[method]['z']:+.1f}")
        rows.append(tuple(row))
    return Table(tuple(columns), tuple(rows), caption, tuple(notes))


def with_uncertainty(value: float, uncertainty: float) -> str:
    """value ± uncertainty, both to the second significant digit of the uncertainty."""
    if not (math.isfinite(value) and math.isfinite(uncertainty) and uncertainty > 0.0):
        return _plain_number(value)
    exponent = math.floor(math.log10(uncertainty))
    largest = max(abs(value), uncertainty)
    if not (-4 <= exponent <= 4 and largest < 1e6):
        digits = min(max(math.floor(math.log10(largest)) - exponent + 1, 1), 6)
        return f"{value:.{digits}e} ± {uncertainty:.1e}"
    decimals = max(1 - exponent, 0)
    return f"{value:.{decimals}f} ± {uncertainty:.{decimals}f}"


def _cell(record, answer):
    if record["known"]:
        return "known"
    if answer["estimate"] is None:
        return DASH
    if answer["uncertainty"] is None:
        return _plain_number(answer["estimate"])
    return with_uncertainty(answer["estimate"], answer["uncertainty"])


def _plain_number(value):
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.3f}" if value == 0.0 or 1e-2 <= abs(value) < 1e4 else f"{value:.3g}"


def _number(value):
    return value if math.isfinite(value) else None


# ---- terminal


def console():
    """A Rich console on stdout that colours no numbers."""
    from rich.console import Console

    return Console(highlight=False)


def print_table(console, title: str, table: Table) -> None:
    """The table on a Rich console; where output is no terminal, as wide as it needs to be and without colour."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if title:
        console.print(Text(title, style="bold"))
    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, column in enumerate(table.columns):
        rich.add_column(Text(column), justify="left" if i == 0 else "right", no_wrap=True)
    for row in table.rows:
        rich.add_row(*(Text(cell, style="dim" if cell in ("known", DASH) else "") for cell in row))
    needed = console.measure(rich, options=console.options.update(max_width=10_000)).maximum
    width = console.width
    if not console.is_terminal:
        console.width = max(needed, width)
    console.print(rich)
    console.width = width
    for note in table.notes:
        console.print(Text(note, style="dim"))


@contextmanager
def progress_bar(description: str, total: float | None = None, *, delay: float = 2.0) -> Iterator:
    """Yields update(done, total=None, note=""); a bar on stderr after `delay` seconds, if that is a terminal.

    With total None it shows the time alone. It leaves nothing behind; one at a time.
    """
    if not sys.stderr.isatty():
        yield lambda done, total=None, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    what, note = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}"))
    columns = (SpinnerColumn(), what, BarColumn(), note, TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
    task = progress.add_task(description, total=total, note="")
    lock, ended = threading.Lock(), False

    def start():
        with lock:
            if not ended:
                progress.start()

    timer = threading.Timer(delay, start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda done, total=None, note="": progress.update(task, completed=done, total=total, note=note)
    finally:
        timer.cancel()
        with lock:
            ended = True
            progress.stop()


# ---- HTML


def write_html(
    path, title: str, summary: str, sections: Sequence[Section], provenance: Mapping[str, Any] | None = None
) -> Path:
    """One HTML file with its pictures inside, which loads nothing from anywhere; all text is escaped.

    Args:
        summary: what was found, a paragraph; blank lines part it into several.
        provenance: of `provenance.entry`; it stands at the end, with the command.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_uri"] = _data_uri
    environment.filters["minus"] = _minus
    template = environment.from_string(Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8"))
    text = template.render(
        title=title,
        summary=[paragraph for paragraph in summary.split("\n\n") if paragraph.strip()],
        sections=sections,
        command=(provenance or {}).get("command"),
        facts=list(_facts({k: v for k, v in (provenance or {}).items() if k not in TOLD_ELSEWHERE})),
    )
    return write_text_atomic(path, text)


def _data_uri(path):
    path = Path(path)
    kind = {".png": "image/png", ".gif": "image/gif"}.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"pictures in a report are PNG or GIF; got {path.name}.")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _minus(cell):
    """A number's hyphen as a minus sign; other text as it is."""
    return cell.replace("-", "−") if cell[:1] == "-" and cell[1:2].isdigit() else cell


def _facts(record):
    """Provenance as (name, text) pairs, a line each."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield name, " · ".join(f"{key} {_short(item)}" for key, item in value.items() if item is not None)
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(map(_short, value))
        elif value is not None:
            yield name, _short(value)


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---- the index of results

INDEX = (
    "Generated from each folder's `provenance.json`; do not edit. `report.html` opens in any browser, offline. "
    "An experiment is told by its aim (a question), data, estimands, methods and performance measures (ADEMP: "
    "Morris, White & Crowther 2019, Statistics in Medicine 38), and what was found."
)


def write_index(results_root) -> Path:
    """results/README.md: each experiment with its question, its design, its answer, and what can be opened."""
    folders = [path.parent for path in sorted(Path(results_root).glob("*/provenance.json"))]
    lines = ["# Results", "", INDEX, "", *(f"- [{folder.name}](#{folder.name})" for folder in folders)]
    for folder in folders:
        lines += ["", *_section(folder)]
    return write_text_atomic(Path(results_root) / "README.md", "\n".join(lines) + "\n")


def _section(folder):
    try:
        record = read_provenance(folder)[-1]
    except UnreadableResult as error:
        record = {"question": f"unreadable: {str(error).removeprefix(str(folder)).lstrip('/')}"}
    names = ("report.html", "rows.csv", "provenance.json")
    files = ", ".join(f"[{name}]({folder.name}/{name})" for name in names if (folder / name).exists())
    date = str(record.get("ended") or record.get("started") or "")[:10]
    answer = str(record.get("answer") or "").splitlines()
    design = record.get("design")
    told = design.items() if isinstance(design, dict) else ()
    return [
        *(f"## {folder.name}", "", f"**{_markdown(record.get('question'))}**", ""),
        *(f"- *{_markdown(part)}:* {_markdown(text)}" for part, text in told),
        *([f"- *Found{f', {date}' if date else ''}:* {_markdown(answer[0])}"] if answer else []),
        *(f"  - {_markdown(line)}" for line in answer[1:]),
        f"- *Files:* {files}",
    ]


def _markdown(text):
    escaped = str(text or "").replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")
    return " ".join(escaped.split())
