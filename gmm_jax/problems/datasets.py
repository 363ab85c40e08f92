"""Real data sets that ship with the package, each with its source, its variant and a checksum.

The file is checked against the SHA-256 of its record whenever it is loaded: published figures belong to a variant.
"""

from __future__ import annotations

import csv
import hashlib
from difflib import get_close_matches
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Dataset(NamedTuple):
    """What is known of a data set; `load` returns its numbers."""

    name: str
    columns: tuple[str, ...]  # features, in the order of x
    units: str
    n_samples: int
    source: str
    variant: str
    sha256: str  # of the CSV file
    classes: tuple[str, ...] = ()  # names of the labels 0, 1, ..., empty where there are none


_GALAXIES = "Postman, Huchra & Geller (1986), Astron. J. 92:1238; Roeder (1990), JASA 85:617"

_DATASETS = [
    Dataset(
        name="acidity",
        columns=("acidity",),
        units="log(ANC + 50), ANC the acid neutralising capacity of a lake",
        n_samples=155,
        source="Crawford, DeGroot, Kadane & Small (1992), Technometrics 34:441; Crawford (1994), JASA 89:259",
        variant="as in R's mclust: 155 lakes of the Eastern Lake Survey, log scale",
        sha256="3f7333b0192528a395fa78df1300c98892cccc5c2f49af23a02e350e304f4654",
    ),
    Dataset(
        name="faithful",
        columns=("eruptions", "waiting"),
        units="minutes",
        n_samples=272,
        source="Härdle (1991), Smoothing Techniques; Azzalini & Bowman (1990), Applied Statistics 39:357",
        variant="as in R's datasets: 272 eruptions of Old Faithful (Azzalini & Bowman print 299)",
        sha256="d40b983752ab7ec0b15b740089c3ca7b7b59d0c7433a029a1714d134de1e8d14",
    ),
    Dataset(
        name="galaxies_mass",
        columns=("velocity_km_s",),
        units="km/s",
        n_samples=82,
        source=_GALAXIES,
        variant="as in R's MASS: has 26690, a typing error that its manual admits",
        sha256="3d4ed84b10fc352565d9a568c7fdd8ae143c523725bf88b91a9621e2f385c1b8",
    ),
    Dataset(
        name="galaxies_roeder",
        columns=("velocity_km_s",),
        units="km/s",
        n_samples=82,
        source=_GALAXIES,
        variant="as in Roeder, Chib and SAS: 26960 where MASS has 26690",
        sha256="6c89a86bea823bb916dbff2abdaa2d01b2600b2f5d378cdbf72f29b8d5b415f8",
    ),
    Dataset(
        name="iris",
        columns=("Sepal.Length", "Sepal.Width", "Petal.Length", "Petal.Width"),
        units="cm",
        n_samples=150,
        source="Anderson (1935), Bull. Am. Iris Soc. 59:2; Fisher (1936), Annals of Eugenics 7:179",
        variant="as in R's datasets and Fisher's print (the UCI copy differs in rows 35 and 38)",
        sha256="c1e22e240969e6e104a7a1e115792dbf53917d05b76b76444e859cb70af7c119",
        classes=("setosa", "versicolor", "virginica"),
    ),
]


def names() -> list[str]:
    """Every data set that can be loaded."""
    return [record.name for record in _DATASETS]


def describe(name: str) -> Dataset:
    """Columns, units, source, variant and checksum of a data set; a ValueError names the nearest ones."""
    for record in _DATASETS:
        if record.name == name:
            return record
    if name == "galaxies":
        raise ValueError(
            "two variants of the galaxies data circulate, with different likelihoods: load 'galaxies_mass' (26690, "
            "MASS's typing error) or 'galaxies_roeder' (26960, as in Roeder, Chib and SAS)."
        )
    near = ", ".join(get_close_matches(str(name), names()) or names())
    raise ValueError(f"name must be one of problems.datasets.names(); got {name!r}: try {near}.")


def load(name: str) -> tuple[Float[np.ndarray, "N D"], Int[np.ndarray, "N"] | None]:
    """The data, float64, in the units of `describe(name)`, and the labels, or None where there are none."""
    record = describe(name)
    rows = list(csv.DictReader(_checked_text(record).splitlines()))
    x = np.array([[float(row[column]) for column in record.columns] for row in rows])
    labels = np.array([record.classes.index(row["class"]) for row in rows]) if record.classes else None
    return x, labels


def _checked_text(record):
    """The text of the CSV file, or a ValueError where it is not the file of the record."""
    content = _read(record.name)
    found = hashlib.sha256(content).hexdigest()
    if found != record.sha256:
        raise ValueError(
            f"problems/data/{record.name}.csv has SHA-256 {found[:12]}..., not {record.sha256[:12]}...: the file was "
            "changed (by an editor, or in its line endings); install the package again or restore the file."
        )
    return content.decode()


def _read(name):
    return files(__package__).joinpath("data", f"{name}.csv").read_bytes()
