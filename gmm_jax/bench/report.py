"""What people look at: tables in the terminal, and one HTML file that needs no network.

A Table is plain text in rows; the same one is printed by Rich and set by Jinja. Numbers come with their uncertainty,
with z = (estimate − truth) / uncertainty, and in the file with the command that made them.
"""

import base64
import hashlib
import math
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np

from ..mixture import GMM, Known, Status
from .parameters import parameters
from .store import write_text_atomic

DASH = "—"
HEAD_WIDTH = 18  # of a column's head in the terminal, which is broken into lines beyond that
KINDS = (".png", ".gif")
SECONDS_BETWEEN_LINES = 10.0  # of progress, where stderr is no terminal
ELSEWHERE = ("command", "question", "design", "answer", "pictures")  # of a provenance


class Table(NamedTuple):
    """Rows of text; the first column is left-aligned, the others right-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


class Picture(NamedTuple):
    """An image file (PNG or GIF) with its caption, which also describes it to those who cannot see it."""

    path: str | Path
    caption: str


class Section(NamedTuple):
    """One part of a report."""

    heading: str
    tables: Sequence[Table] = ()
    figures: Sequence[Picture] = ()


# ---- tables


def parameter_rows(
    truth: GMM | None, known: Known, answers: Mapping[str, tuple[GMM | None, GMM | None, Status]]
) -> Table:
    """A row for each number of the mixture: the truth, and for each method "estimate ± uncertainty" and z.

    A method whose status is not ok carries a dagger, and its advice stands in the notes.

    Args:
        truth: None for real data.
        answers: method -> (point, standard errors or posterior sd or None, status), components in the truth's order.
    """
    shown = [gmm for gmm in (truth, *(point for point, _, _ in answers.values())) if gmm is not None]
    entries = parameters(shown[0], known) if shown else []
    columns, notes = [("", [entry.label for entry in entries])], []
    if truth is not None:
        columns.append(("truth", [with_uncertainty(entry.value(truth), math.nan) for entry in entries]))
    for method, (point, errors, status) in answers.items():
        estimates, free = _values(point, entries), [not entry.known for entry in entries]
        uncertainty = np.where(free, _values(errors, entries), np.nan)
        cells = map(with_uncertainty, estimates.tolist(), uncertainty.tolist())
        cells = [cell if is_free else "known" for cell, is_free in zip(cells, free, strict=True)]
        columns.append((method if status.ok else f"{method} †", cells))
        notes += [] if status.ok else [f"† {method}: {status.advice}."]
        z = (estimates - _values(truth, entries)) / np.where(uncertainty > 0.0, uncertainty, np.nan)
        if np.isfinite(z).any():
            columns.append(("z", [f"{value:+.1f}" if math.isfinite(value) else DASH for value in z]))
    heads = [head for head, _ in columns]
    notes += ["± one standard error or posterior sd; z = (estimate − truth) / that."] if "z" in heads else []
    return Table(tuple(heads), tuple(zip(*(cells for _, cells in columns), strict=True)), tuple(notes))


def _values(gmm, entries):
    return np.array([math.nan if gmm is None else entry.value(gmm) for entry in entries])


def with_uncertainty(value: float, uncertainty: float) -> str:
    """value ± uncertainty, both to the second significant digit of the uncertainty; the value alone without one."""
    if not math.isfinite(value):
        return DASH
    if not (math.isfinite(uncertainty) and uncertainty > 0.0):
        return f"{value:.3f}" if value == 0.0 or 1e-2 <= abs(value) < 1e4 else f"{value:.3g}"
    exponent = math.floor(math.log10(uncertainty))
    largest = max(abs(value), uncertainty)
    if not (-4 <= exponent <= 4 and largest < 1e6):
        digits = min(max(math.floor(math.log10(largest)) - exponent + 1, 1), 6)
        return f"{value:.{digits}e} ± {uncertainty:.1e}"
    decimals = max(1 - exponent, 0)
    return f"{value:.{decimals}f} ± {uncertainty:.{decimals}f}"


def cell(value: Any, form: str) -> str:
    """A number in this format, text as it is, and a dash for what is not there or not finite."""
    if isinstance(value, str):
        return value
    return DASH if value is None or not math.isfinite(value) else format(value, form)


def table_of(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]], notes: tuple[str, ...] = ()
) -> Table:
    """Rows as text; columns: head -> (name, format of its numbers)."""
    lines = (tuple(cell(row.get(name), form) for name, form in columns.values()) for row in rows)
    return Table(tuple(columns), tuple(lines), notes)


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
        rich.add_column(Text(fill(column, HEAD_WIDTH)), justify="left" if i == 0 else "right", no_wrap=True)
    for row in table.rows:
        rich.add_row(*(Text(cell, style="dim" if cell in ("known", DASH) else "") for cell in row))
    width = console.width
    if not console.is_terminal:
        needed = console.measure(rich, options=console.options.update(max_width=10_000)).maximum
        console.width = max(needed, width)
    console.print(rich)
    console.width = width
    for note in table.notes:
        console.print(Text(note, style="dim"))


@contextmanager
def progress_bar(description: str, total: float | None = None, *, unit: str = "") -> Iterator:
    """Yields update(done, total=None, note=""), which shows how far it is, and the time left, on stderr.

    A bar if that is a terminal, which leaves nothing behind; else a line now and then, the first after
    SECONDS_BETWEEN_LINES. Before the first update it compiles. `unit` is what is counted. One at a time.
    """
    shown = _bar if sys.stderr.isatty() else _lines
    with shown(description, total, f" {unit}" * bool(unit)) as update:
        yield update


@contextmanager
def _bar(description, total, unit):
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    what, note = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}"))
    columns = (SpinnerColumn(), what, BarColumn(), note, TimeElapsedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
    task = progress.add_task(description, total=total, note="compiling" * bool(unit))

    def update(done, total=None, note=""):
        progress.update(task, completed=done, total=total, note=_how_far(done, total, unit, note) if unit else note)

    with progress:
        yield update


@contextmanager
def _lines(description, total, unit):
    begun, state, ended = time.monotonic(), ["compiling" if unit else "running"], threading.Event()

    def update(done, total=None, note=""):
        state[0] = _how_far(done, total, unit, note)

    def speak():
        while not ended.wait(SECONDS_BETWEEN_LINES):
            print(f"{description}: {state[0]}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

    threading.Thread(target=speak, daemon=True).start()
    try:
        yield update
    finally:
        ended.set()


def _how_far(done, total, unit, note):
    of = f"{done:g} of {total:g}{unit}" if total else f"{done:g}{unit}"
    return f"{of}, {note}" if note else of


# ---- HTML


def write_html(
    path, title: str, summary: str, sections: Sequence[Section], provenance: Mapping[str, Any] | None = None
) -> Path:
    """One HTML file with its pictures inside, which loads nothing from anywhere; all text is escaped.

    The first screen has the summary and the first section, its tables beside its figures; the others fold open.

    Args:
        summary: what was found; blank lines part paragraphs, whose first sentences stand out. A question may lead.
        provenance: of `provenance.summary`. Its command, and who made the rows and when, stand under each table, all
            of it at the end.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    record, here = dict(provenance or {}), Path(__file__).parent
    look = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    environment = Environment(autoescape=True, loader=FileSystemLoader(here), **look)
    environment.filters |= {"frames": _frames, "minus": _minus, "digest": _digest}
    style, script = (Markup((here / f"report.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js"))  # noqa: S704
    text = environment.get_template("report.html.jinja").render(
        title=title,
        summary=[_lead(paragraph) for paragraph in summary.split("\n\n") if paragraph.strip()],
        sections=sections,
        command=record.get("command"),
        origin="; ".join(record.get("made by") or ["commit not known"]),
        facts={name: _words(value) for name, value in record.items() if name not in ELSEWHERE and value is not None},
        style=style,
        script=script,
    )
    return write_text_atomic(path, text)


def pictures_in(folder: Path, record: Mapping[str, Any], drawn: Sequence[Picture] = ()) -> list[Picture]:
    """The folder's PNG and GIF files but those `drawn`, captioned as its provenance does, else by their names."""
    captions, known = record.get("pictures") or {}, {Path(picture.path).name for picture in drawn}
    files = [path for path in sorted(Path(folder).iterdir()) if path.suffix in KINDS and path.name not in known]
    files.sort(key=lambda path: [*captions, path.name].index(path.name))  # as they were drawn, then others by name
    return [Picture(path, captions.get(path.name) or f"{path.stem.replace('_', ' ')}.") for path in files]


def _lead(paragraph):
    """Its first sentence, and the rest."""
    lead, rest = re.fullmatch(r"(.*?(?:\n|[.?!](?:\s+|$)|$))(.*)", paragraph.strip(), re.DOTALL).groups()
    return lead.strip(), rest.strip()


def _digest(text):
    """How a page's policy names the one script, and the one style sheet, that it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _frames(path):
    """The picture as text of a page; of an animation every frame."""
    from .plots.style import png_frames

    path = Path(path)
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"pictures in a report are PNG or GIF; got {path.name}.")
    return [f"data:image/png;base64,{base64.b64encode(frame).decode()}" for frame in png_frames(path)]


def _minus(cell):
    """A number's hyphen as a minus sign; other text as it is."""
    return cell.replace("-", "−") if cell[:1] == "-" and cell[1:2].isdigit() else cell


def _words(value, *, inside=False):
    """Plain values as text: names before their values."""
    if isinstance(value, Mapping):
        parts = [f"{key} {_words(item, inside=True)}" for key, item in value.items() if item not in (None, "", [], {})]
        return f"({'; '.join(parts)})" if inside else " · ".join(parts)
    if isinstance(value, (list, tuple)):
        parts = [_words(item, inside=True) for item in value]
        return ("; " if any(", " in part for part in parts) else ", ").join(parts)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
