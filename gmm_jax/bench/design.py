"""What an experiment says of itself in its docstring, by ADEMP: aim, data, estimands, methods, performance measures.

Reference:
    Morris, White & Crowther (2019), Statistics in Medicine 38.
"""

from __future__ import annotations

import re
from typing import Any

PARTS = ("Data", "Estimands", "Methods", "Performance", "Expected")
_BREAK = re.compile(rf"\n\s*\n|^(?=(?:{'|'.join(PARTS)}): )|(?=Found: )", re.MULTILINE)


def design_of(doc: str) -> dict[str, Any]:
    """The question that a docstring begins with, None where it asks nothing, and its parts, each on one line.

    A part begins a line with its name and a colon, and ends at an empty line or the next part.
    """
    pieces = (piece.partition(":") for piece in _BREAK.split(doc))
    parts = {name: " ".join(text.split()) for name, _, text in pieces if name in PARTS}
    question = " ".join(doc.partition("?")[0].split())
    return {"question": f"{question}?" if "?" in doc else None, "design": parts}
