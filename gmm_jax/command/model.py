"""gmm-jax predict, sample and plot: what a fitted model says of rows; gmm-jax choose: how many components."""

import json
from contextlib import closing
from pathlib import Path

import jax
import numpy as np

from .. import judge
from ..bayes.checks import host_mixture
from ..bench import report, store
from ..judge.choose import BEST
from ..mixture import Fit, sample
from ..saving import load
from . import folder
from .reading import Reading, rows_of

SHOWN = ("n_components", "log_likelihood", "n_parameters", "aic", *BEST, "bootstrap_p")  # columns


def read_model(path: Path):
    """(mixture, names of its features) of a file that `fit --out` or `gmm_jax.save` wrote."""
    found = load(path)
    gmm = host_mixture(found, f"the result in {path}")
    if np.ndim(gmm.means) != 2:
        raise ValueError(f"{path} holds {len(gmm.means)} mixtures, not one: save one of them.")
    columns = found.info.get("columns") if isinstance(found, Fit) else getattr(found, "feature_names_in_", None)
    return gmm, [str(j) for j in range(gmm.n_features)] if columns is None else [str(name) for name in columns]


def predict(model: Path, data: Path, reading: Reading, out: Path | None, *, force: bool) -> int:
    """Write the rows with their component and its probabilities to a file or stdout."""
    gmm, names = read_model(model)
    folder.check_free(out, force=force)
    with closing(reading.open(data, names)) as table:
        if out is None and folder.is_parquet(table):
            raise ValueError("labels of a Parquet file go to a file: add --out labels.parquet.")
        folder.write_labels(out, table, gmm, reading.marginalise)
    if out is not None:
        print(f"wrote {out}")
    return 0


def draw_samples(model: Path, n: int, seed: int, out: Path | None, *, force: bool) -> int:
    """Write n rows drawn from the model, with the component that made each, as CSV to a file or stdout."""
    gmm, names = read_model(model)
    folder.check_free(out, force=force)
    rows, components = (np.asarray(part) for part in sample(jax.random.key(seed), gmm, n))
    lines = ([*row, k + 1] for row, k in zip(rows.tolist(), components.tolist(), strict=True))
    store.write_csv(out, [*names, "component"], lines)
    return 0


def draw_pictures(model: Path, data: Path, reading: Reading, out: Path, *, force: bool) -> int:
    """Write pictures of the data under the model to a folder."""
    gmm, names = read_model(model)
    folder.check_free(out, force=force)
    with closing(reading.open(data, names)) as table:
        x = rows_of(table, 1, reading.marginalise)
    x = x[:: max(1, len(x) // folder.MOST_ROWS)]
    written = [Path(picture.path).name for picture in folder.draw(Path(out), x, gmm, names)]
    print(f"wrote {', '.join(written)} to {out}")
    return 0


def choose(data: Path, columns, drop, reading: Reading, *, ks, covariance_type, criteria, seed, as_json: bool) -> int:
    """Print a row for each number of components and a column for each criterion, and what each prefers."""
    with closing(reading.open(data, columns, drop)) as table, report.progress_bar("choose", unit="numbers") as update:
        x, options = rows_of(table, max(ks), None), {"criteria": criteria, "covariance_type": covariance_type}
        rows = judge.choose_components(jax.random.key(seed), x, ks, **options, progress=update)
    found = judge.choices(rows)
    if as_json:
        print(json.dumps(store.plain({"rows": rows, "choices": found}), allow_nan=False))
        return 0
    shown = [name for name in SHOWN if any(name in row for row in rows)]
    lines = tuple(tuple(_cell(row, name, found) for name in shown) for row in rows)
    notes = ("* what the criterion prefers, AIC, BIC and ICL the lowest; they answer different questions.",)
    title = f"{table.path}: {len(x)} rows of {', '.join(table.names)}"
    heads = tuple(name.replace("_", " ") for name in shown)
    report.print_table(report.console(), title, report.Table(heads, lines, notes))
    return 0


def _cell(row, name, found):
    return report.cell(row.get(name), ".6g") + " *" * (found.get(name) == row["n_components"])
