"""Where a long fit stands, on disk: arrays in one .npz, written whole or not at all, never pickled."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from ..mixture.atomic import write_bytes_atomic


def pack(tree, about: Mapping[str, str]) -> bytes:
    """A pytree of arrays, and words that say what it belongs to."""
    leaves = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    file = io.BytesIO()
    np.savez(file, about=np.frombuffer(json.dumps(dict(about)).encode(), np.uint8), **leaves)
    return file.getvalue()


def unpack(content: bytes, like, about: Mapping[str, str], name: str):
    """The pytree in that content, in the form of `like`.

    Raises:
        ValueError: it is cut off or damaged, or belongs to something else; the sentence begins with `name`.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            there = json.loads(file["about"].tobytes())
            leaves = [file[f"leaf_{i}"] for i in range(len(file.files) - 1)]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile):
        raise ValueError(f"{name} is no checkpoint, or is damaged: delete it, or name another file.") from None
    other = [key for key, value in about.items() if there.get(key) != value]
    wanted, structure = jax.tree.flatten(like)
    if other or [leaf.shape for leaf in leaves] != [np.shape(leaf) for leaf in wanted]:
        what = other[0] if other else "shape"
        raise ValueError(f"{name} is the checkpoint of another fit ({what} differs): delete it, or name another file.")
    return jax.tree.unflatten(structure, leaves)


def save(path, tree, about: Mapping[str, str]) -> Path:
    """Replace the checkpoint at `path` by this one."""
    return write_bytes_atomic(path, pack(tree, about))
