"""results/README.md: every experiment with its question, its design, its answer, and what can be opened."""

from pathlib import Path

from gmm_jax.bench.provenance import read_provenance
from gmm_jax.bench.store import UnreadableResult, write_text_atomic

INDEX = (
    "Generated from each folder's `provenance.json`; do not edit. `report.html` opens in any browser, offline. "
    "An experiment is described by its aim (a question), data, estimands, methods and performance measures (ADEMP: "
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
    design = record["design"] if isinstance(record.get("design"), dict) else {}
    return [
        *(f"## {folder.name}", "", f"**{_markdown(record.get('question'))}**", ""),
        *(f"- *{_markdown(part)}:* {_markdown(text)}" for part, text in design.items()),
        *([f"- *Found{f', {date}' if date else ''}:* {_markdown(answer[0])}"] if answer else []),
        *(f"  - {_markdown(line)}" for line in answer[1:]),
        f"- *Files:* {files}",
    ]


def _markdown(text):
    escaped = str(text or "").replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")
    return " ".join(escaped.split())
