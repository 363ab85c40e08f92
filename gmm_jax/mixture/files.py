"""Placeholder until the merge."""
from ..em.checkpoint import Keeper, checkpoint_path, digest, read_checkpoint, write_checkpoint  # noqa: F401
