"""Files that are written whole or not at all, and checkpoints: all that a long fit needs to go on.

A checkpoint is an .npz archive without pickled objects: its members carry checksums, so a damaged one is noticed.
"""

import glob
import hashlib
import io
import json
import os
import secrets
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

SCHEMA = 2  # of the archive: a reader refuses any other
SECONDS_BETWEEN = 5.0


@dataclass
class Keeper:
    """The checkpoint of a running fit, written every few seconds; without a path there is none."""

    path: Path | None
    fingerprint: dict[str, str]
    written: float = field(default_factory=time.monotonic)

    def keep(self, tree: Callable[[], Any], *, at_once: bool = False) -> None:
        """Write what `tree()` gives, if it is time."""
        if self.path is not None and (at_once or time.monotonic() - self.written >= SECONDS_BETWEEN):
            write_checkpoint(self.path, tree(), self.fingerprint)
            self.written = time.monotonic()


def checkpoint_path(checkpoint: str | Path | None, *, resume: bool) -> Path | None:
    """The path, after a check that it can be written and that nothing is overwritten; a ValueError else.

    What an earlier run of this checkpoint, killed while it wrote, has left beside it is removed.
    """
    if checkpoint is None:
        if resume:
            raise ValueError("resume goes on from a checkpoint: give its path as checkpoint.")
        return None
    path = Path(checkpoint)
    if path.exists() and not resume:
        raise ValueError(f"checkpoint {path} is there already: resume from it, delete it, or give another path.")
    if not path.parent.is_dir():
        raise ValueError(f"checkpoint {path} cannot be written: there is no folder {path.parent}.")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)
    return path


def write_checkpoint(path: Path, tree: Any, fingerprint: dict[str, str]) -> None:
    """The leaves of a pytree, and what they belong to."""
    leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    content = io.BytesIO()
    np.savez(content, about=json.dumps({"schema": SCHEMA, "fingerprint": fingerprint}), **leaves)
    write_bytes_atomic(path, content.getvalue())


def read_checkpoint(path: Path, like: Any, fingerprint: dict[str, str]) -> Any:
    """The pytree, with the structure of `like`.

    Raises:
        ValueError: the file is missing, damaged, or belongs to another fit; the sentence says in what they differ.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as archive:
            about = json.loads(str(archive["about"]))
            leaves = [archive[f"leaf{i}"] for i in range(len(archive.files) - 1)]
    except FileNotFoundError:
        raise ValueError(f"there is no checkpoint {path} to resume from: begin without resume.") from None
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no whole checkpoint ({error}): delete it and begin anew.") from None
    if about["schema"] != SCHEMA:
        raise ValueError(f"{path} has schema {about['schema']}, not {SCHEMA}: delete it and begin anew.")
    other = [name for name, digest in fingerprint.items() if about["fingerprint"].get(name) != digest]
    if other:
        raise ValueError(
            f"{path} belongs to another fit, whose {' and '.join(other)} were different: resume with those, or give "
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


def write_bytes_atomic(path, content: bytes) -> Path:
    """`whole_file` of bytes that are there already; the path."""
    with whole_file(path) as file:
        file.write(content)
    return Path(path)


@contextmanager
def whole_file(path) -> Iterator[BinaryIO]:
    """A file to be written so that at every moment the old or the new content is there whole, also after a crash.

    Raises:
        OSError: naming path, with what was there before still in place; a full disk does so too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names no file, and a refusal to open the temporary one
        raise
    _sync_folder(path.parent)


def _sync_folder(folder):
    if os.name != "posix":
        return  # other systems cannot open a folder
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
