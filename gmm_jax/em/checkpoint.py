"""A long fit on disk: every number it needs to go on, and of what it is a fit. Written whole or not at all.

An .npz archive without pickled objects: its members carry checksums, so a damaged one is noticed and never guessed at.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..mixture.atomic import write_bytes_atomic

SCHEMA = 1  # of the archive: a reader refuses any other


def write_checkpoint(path: Path, tree: Any, fingerprint: dict[str, str]) -> None:
    """The leaves of a pytree, and what they belong to."""
    write_bytes_atomic(path, pack(tree, fingerprint))


def read_checkpoint(path: Path, like: Any, fingerprint: dict[str, str]) -> Any:
    """The pytree, with the structure of `like`; a ValueError where the file is missing, and those of `unpack`."""
    return unpack(read_bytes(path), like, fingerprint, str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a checkpoint, or a ValueError where there is none."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"there is no checkpoint {path} to resume from: begin without resume.") from None


def checkpoint_path(checkpoint: str | Path | None, *, resume: bool) -> Path | None:
    """The path, if it can be written and nothing is lost by it."""
    if checkpoint is None:
        if resume:
            raise ValueError("resume goes on from a checkpoint: give its path as checkpoint.")
        return None
    path = Path(checkpoint)
    if path.exists() and not resume:
        raise ValueError(f"checkpoint {path} is there already: resume from it, delete it, or give another path.")
    if not path.parent.is_dir():
        raise ValueError(f"checkpoint {path} cannot be written: there is no folder {path.parent}.")
    return path


def pack(tree: Any, fingerprint: dict[str, str]) -> bytes:
    """A checkpoint's content."""
    leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    content = io.BytesIO()
    np.savez(content, about=json.dumps({"schema": SCHEMA, "fingerprint": fingerprint}), **leaves)
    return content.getvalue()


def unpack(content: bytes, like: Any, fingerprint: dict[str, str], name: str) -> Any:
    """The pytree in that content, with the structure of `like`.

    Raises:
        ValueError: it is damaged, or belongs to another fit; the sentence begins with `name`, and says in what they
            differ.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            about = json.loads(str(archive["about"]))
            leaves = [archive[f"leaf{i}"] for i in range(len(archive.files) - 1)]
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name} is no whole checkpoint ({error}): delete it and begin anew.") from None
    if about["schema"] != SCHEMA:
        raise ValueError(f"{name} has schema {about['schema']}, not {SCHEMA}: delete it and begin anew.")
    other = [part for part, digest in fingerprint.items() if about["fingerprint"].get(part) != digest]
    if other:
        raise ValueError(
            f"{name} belongs to another fit, whose {' and '.join(other)} were different: resume with those, or give "
            "another path."
        )
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def digest(*parts: Any) -> str:
    """SHA-256 of values: strings, numbers, arrays and pytrees of them, with their structure."""
    sha = hashlib.sha256()
    for leaf in (repr(jax.tree.structure(parts)), *jax.tree.leaves(parts)):
        array = np.asarray(leaf)
        sha.update(f"{array.dtype} {array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
