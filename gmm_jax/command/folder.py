"""gmm-jax fit --out FOLDER: the model, labels and responsibilities of each row, pictures, and a page to send on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import plot
from ..bench import landscape, plots, provenance, report, store
from ..bench.plots.style import panels_of
from ..mixture import GMM, Fit, MixtureSpec, standardise
from ..mixture.files import whole_file
from ..mixture.predictive import predictive
from ..problems import FileBlocks
from ..saving import write_model
from . import answer

MOST_ROWS = 20_000  # in pictures, evenly chosen
DIGITS = 6  # of probabilities


def check_free(out: Path | None, *, force: bool) -> None:
    """A ValueError where something is there already and may not be overwritten."""
    if out is None or force or not Path(out).exists():
        return
    if not Path(out).is_dir() or any(Path(out).iterdir()):
        raise ValueError(f"{out} is there already: name another place, or add --force to overwrite what is in it.")


def write(
    out: Path, table: FileBlocks, x, fit: Fit, found, spec: MixtureSpec, said: Mapping[str, Any], command: str = ""
) -> list[str]:
    """The names of the files that were written: labels, model, pictures and report.

    Args:
        x: the rows, None where they are not in memory.
        found: of EM every start, else None.
        said: the document of `answer`.
    """
    labels = out / ("labels.parquet" if is_parquet(table) else "labels.csv")
    seen = write_labels(labels, table, fit.point, said["missing"])
    scaling = {} if x is None else standardise(x, spec)[1]._asdict()
    write_model(out / "model.json", {**said, "scaling": {name: scaling.get(name) for name in ("centre", "scale")}})
    pictures = draw(out, seen, fit.point, said["columns"]) + draw_search(out, fit, found, seen, said["columns"])
    rows = fit.info.get("landscape", ())
    components = [table for _, table in answer.tables(fit, spec, said["columns"])]
    sections = [report.Section("The mixture", components, pictures)]
    if len(rows) > 1:
        sections.append(report.Section("Where the starts ended", [landscape.table(rows)]))
    summary = "\n\n".join((answer.verdict(fit.point, seen, said["missing"]), said["advice"], answer.criteria_of(said)))
    about = {"command": provenance.command_of(command)} if command else {}
    report.write_html(out / "report.html", answer.title_of(said), summary, sections, about)
    return ["model.json", labels.name, *(Path(picture.path).name for picture in pictures), "report.html"]


def is_parquet(table: FileBlocks) -> bool:
    """Whether the rows come from a Parquet file, and labels go to one."""
    return Path(table.path.name).suffix.lower() == ".parquet"


# ---- labels


def write_labels(path: Path | None, table: FileBlocks, gmm: GMM, missing: str | None) -> np.ndarray:
    """Every row as it stands in the file, with its component, from 1, and p_1, p_2, ..., the probability of each.

    In the order of the file, as text or where the data are so as Parquet. Some of the rows, evenly chosen, are returned
    for pictures.
    """
    every = max(1, table.n_rows // MOST_ROWS)
    names, kept = [*table.content.names], []
    added = [_free(name, names) for name in ("component", *(f"p_{k + 1}" for k in range(gmm.n_components)))]
    labelled = _labelled(table, gmm, missing, every, kept)
    if is_parquet(table):
        _write_parquet(path, table, added, labelled)
    else:
        layout = table.content.layout
        separator, decimal = (",", ".") if layout is None else (layout.separator, layout.decimal)
        lines = (
            [*record, component, *(f"{value:.{DIGITS}g}".replace(".", decimal) for value in of_row)]
            for records, components, p in labelled
            for record, component, of_row in zip(records, components.tolist(), p.tolist(), strict=True)
        )
        store.write_csv(path, [*names, *added], lines, separator)
    return np.concatenate(kept)


def _labelled(table, gmm, missing, every, kept) -> Iterator[tuple]:
    """(rows as they stand in the file, components from 1, probabilities) of each part."""
    many, begun = jax.tree.map(lambda leaf: np.asarray(leaf)[None], gmm), 0
    for part in table.parts:
        blocks = list(table.read(part))
        if not blocks:
            continue
        x = np.concatenate(blocks)
        kept.append(x[-begun % every :: every])
        begun += len(x)
        p = predictive(many, x, missing=missing).responsibilities
        yield table.content.records(part), np.argmax(p, axis=1) + 1, p


def _write_parquet(path, table, names, labelled):
    from pyarrow import array, parquet

    parts = [(components, p) for _, components, p in labelled]
    columns = [np.concatenate([components for components, _ in parts]), *np.concatenate([p for _, p in parts]).T]
    whole = parquet.read_table(table.path.path)
    for name, column in zip(names, columns, strict=True):
        whole = whole.append_column(name, array(column))
    with whole_file(path) as file:
        parquet.write_table(whole, file)


def _free(name, names):
    return name if name not in names else _free(f"{name}_", names)


# ---- pictures


def draw(out: Path, x, gmm: GMM, names) -> list[report.Picture]:
    """Pairs of features, densities and responsibilities, as PNG."""
    d = min(len(names), plot.MOST_FEATURES)
    size, some = max(2.2, 4.6 / d), f" (the first {d} of {len(names)})" if d < len(names) else ""
    captions = {
        "pairs.png": f"Each pair of features{some}: rows in the colour of their component, ellipses at 1 and 2 sd.",
        "densities.png": "Each feature: histogram, weighted densities of the components, and their sum.",
        "responsibilities.png": "p(component | row) of every row: where colours mix, the component is uncertain.",
    }
    with panels_of(out / "pairs.png", d * d, d, size, 0.92 * size, extra=0.0) as (_, axes):
        plot.pairs(x, gmm, names=names, axes=axes)
    with panels_of(out / "densities.png", len(names), 3, 3.1, 2.4, extra=0.0) as (_, axes):
        plot.densities(x, gmm, names=names, axes=axes)
    with panels_of(out / "responsibilities.png", 1, 1, 6.2, 2.6, extra=0.0) as (_, axes):
        plot.responsibilities(x, gmm, ax=axes[0])
    return [report.Picture(out / name, caption) for name, caption in captions.items()]


def draw_search(out: Path, fit: Fit, found, x, names) -> list[report.Picture]:
    """How EM or the chains went, as PNG: traces, where the starts ended, and the posterior of the means."""
    shown = found if fit.draws is None else fit
    if shown is None:
        return []
    what = "EM's log-likelihood by iteration, and what is left to its end." if fit.draws is None else "Every chain."
    captions = {"trace.png": what}
    with panels_of(out / "trace.png", 2, 2, 4.1, 3.0, extra=0.0) as (_, axes):
        plot.traces(shown, axes=axes)
    if len(fit.info.get("landscape", ())) > 1:
        plots.landscape(out / "landscape.png", fit.info["landscape"])
        captions["landscape.png"] = "Where the starts ended: grey is spurious."
    if fit.draws is not None:
        with panels_of(out / "posterior.png", fit.point.n_components, 3, 2.9, 2.6, extra=0.0) as (_, axes):
            plot.posterior_of_means(fit, x, names=names, axes=axes)
        captions["posterior.png"] = "Posterior draws of each μ, with ellipses at 1 and 2 posterior sds."
    return [report.Picture(out / name, caption) for name, caption in captions.items()]
