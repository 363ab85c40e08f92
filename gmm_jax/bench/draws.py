"""Posterior draws on disk: one netCDF file, written whole or not at all, read only if it is the file that was written.

Its SHA-256 stands in provenance.json beside the rows; every array has a checksum of its own as well.
"""

import hashlib
import io
from pathlib import Path
from tempfile import TemporaryDirectory

from ..mixture import Posterior, from_datatree
from ..mixture.files import write_bytes_atomic
from .store import UnreadableResult, read_bytes


def write_draws(path, tree) -> str:
    """Keep what `Posterior.to_datatree` made; returns the SHA-256 by which read_draws knows the file again."""
    checked = {f"/{group}": {name: {"fletcher32": True} for name in tree[group].data_vars} for group in tree.children}
    with TemporaryDirectory() as folder:
        made = Path(folder) / "draws.nc"
        tree.to_netcdf(made, engine="h5netcdf", encoding=checked)
        content = made.read_bytes()
    write_bytes_atomic(path, content)
    return hashlib.sha256(content).hexdigest()


def read_draws(path, checksum: str) -> Posterior:
    """The posterior of a file of draws, or UnreadableResult: missing, or not the file of that SHA-256."""
    from xarray import open_datatree

    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() != checksum:
        raise UnreadableResult(path, "its content does not agree with its checksum")
    with open_datatree(io.BytesIO(content), engine="h5netcdf") as tree:
        return from_datatree(tree)
