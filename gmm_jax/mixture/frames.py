"""Data that are no numbers: a file's name, or a data frame with columns of text, which are named."""

from __future__ import annotations

import numpy as np


def refuse_text(x, name: str) -> None:
    """A ValueError for the name of a file, and one that names the columns of a data frame that hold text."""
    if isinstance(x, (str, bytes)) or hasattr(x, "__fspath__"):
        raise ValueError(
            f"{name} must be an array or a data frame; got {x!r}: read the file first, by numpy.load or pandas, or use "
            "the command gmm-jax fit."
        )
    columns, kinds = getattr(x, "columns", None), getattr(x, "dtypes", None)
    if columns is None or kinds is None:
        return
    text = [str(c) for c, kind in zip(columns, kinds, strict=False) if not _are_numbers(x, c, kind)]
    if text:
        raise ValueError(f"{name} has column(s) of text, {', '.join(text)}: drop them or code them as numbers.")


def _are_numbers(frame, column, kind):
    if getattr(kind, "kind", "O") in "fiub":
        return True
    try:
        np.asarray(frame[column]).astype(float)
    except (TypeError, ValueError):
        return False
    return True
