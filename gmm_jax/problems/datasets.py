"""Real data sets that ship with the package, each with its source, its variant and a checksum (data/datasets.json).

The file is checked against the SHA-256 of its record whenever it is loaded: published figures belong to a variant.
"""

import csv
import hashlib
import json
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Dataset(NamedTuple):
    """What is known of a data set; `load` returns its numbers."""

    name: str
    columns: tuple[str, ...]  # features, in the order of x
    subject: str
    units: str
    n_samples: int
    source: str
    variant: str
    sha256: str  # of the CSV file
    classes: tuple[str, ...] = ()  # names of the labels 0, 1, ..., empty where there are none


def names() -> list[str]:
    """Every data set that can be loaded."""
    return list(_datasets())


def describe(name: str) -> Dataset:
    """Columns, units, source, variant and checksum of a data set; a ValueError names the nearest ones."""
    if name in names():
        return _datasets()[name]
    if name == "galaxies":
        raise ValueError(
            "two variants of the galaxies data circulate, with different likelihoods: load 'galaxies_mass' (26690, "
            "MASS's typing error) or 'galaxies_roeder' (26960, as in Roeder, Chib and SAS)."
        )
    near = ", ".join(get_close_matches(str(name), names()) or names())
    raise ValueError(f"name must be one of problems.datasets.names(); got {name!r}: try {near}.")


def sentence(name: str) -> str:
    """A data set in a line: subject, rows, columns with their units, source."""
    of = describe(name)
    return f"{of.subject}: {of.n_samples} rows of {', '.join(of.columns)} ({of.units}); {of.source}"


def load(name: str) -> tuple[Float[np.ndarray, "N D"], Int[np.ndarray, "N"] | None]:
    """The data, float64, in the units of `describe(name)`, and the labels, or None where there are none."""
    record = describe(name)
    content = _read(f"{name}.csv")
    found = hashlib.sha256(content).hexdigest()
    if found != record.sha256:
        raise ValueError(
            f"problems/data/{name}.csv has SHA-256 {found[:12]}..., not {record.sha256[:12]}...: the file was "
            "changed (by an editor, or in its line endings); install the package again or restore the file."
        )
    rows = list(csv.DictReader(content.decode().splitlines()))
    x = np.array([[float(row[column]) for column in record.columns] for row in rows])
    labels = np.array([record.classes.index(row["class"]) for row in rows]) if record.classes else None
    return x, labels


@cache
def _datasets():
    records = json.loads(_read("datasets.json"))
    for record in records.values():
        record |= {key: tuple(record.get(key, ())) for key in ("columns", "classes")}
    return {name: Dataset(name, **record) for name, record in records.items()}


def _read(file):
    return files(__package__).joinpath("data", file).read_bytes()
