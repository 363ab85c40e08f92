"""How the user's file is read: the options that all commands with DATA share, and the table that they make of it."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

Letter = Annotated[str | None, tyro.conf.arg(metavar="CHARACTER")]


@dataclass(frozen=True)
class Reading:
    """What is said of the file; all else is seen from its first lines."""

    missing: Literal["error", "marginalise"] = "error"
    """Missing values (nothing, NA, NaN, ?): an error, or each row counts by what was seen of it."""
    na: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT [TEXT ...]")] = ()
    """Further texts or numbers that stand for a missing value; -999 is written --na=-999."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first line names the columns."""
    separator: Letter = None
    """Between the fields of a line: a comma, semicolon, bar, blank or tab, if it is not seen by itself."""
    decimal: Annotated[Literal[".", ","] | None, tyro.conf.arg(metavar="SIGN")] = None
    """Decimal sign, . or , if it is not seen by itself."""
    comment: Letter = "#"
    """Lines that begin with it are left out."""
    encoding: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Of text; UTF-8 or else Latin-1 by default."""

    @property
    def marginalise(self) -> str | None:
        """`missing` as the library has it."""
        return None if self.missing == "error" else self.missing

    def open(self, path, columns=(), drop=()):
        """The file's chosen columns, as `problems.open_blocks` gives them."""
        from ..problems import open_blocks

        return open_blocks(path, columns=columns, drop=drop, missing=self.marginalise, text=self._text())

    def open_dask(self, path, columns=(), drop=()):
        """The same for the workers of a Dask cluster."""
        from ..problems import open_dask

        return open_dask(path, columns=columns, drop=drop, text=self._text())

    def _text(self):
        from ..problems import TextFormat

        header = {"auto": None, "yes": True, "no": False}[self.header]
        return TextFormat(header, self.separator, self.decimal, self.comment or "", self.encoding, self.na)


def rows_of(table, n_components: int, missing: str | None):
    """All rows, (N, D), finite or NaN where they may be; a ValueError names the column of one that is not."""
    import numpy as np

    from ..mixture import check_data

    x, file = np.concatenate(list(table())), table.path
    bad = np.argwhere(np.isinf(x) if missing else ~np.isfinite(x))
    if len(bad):
        row, column = bad[0]
        value = x[row, column]
        remedy = "drop or impute the row" + (", or add --missing marginalise" if np.isnan(value) else "")
        raise ValueError(f"{file}, row {row}, column {table.names[column]!r}: {value} is not finite; {remedy}.")
    return check_data(x, n_components=n_components, name=str(file).rpartition("/")[2], missing=missing)
