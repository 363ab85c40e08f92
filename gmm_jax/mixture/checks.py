"""What every entry point asks of a key."""

from __future__ import annotations

import jax
import numpy as np


def check_key(key, name: str = "key", *, shape: tuple[int, ...] = ()):
    """The key itself, if it is a typed JAX key of this shape; else a ValueError that says what to pass."""
    if isinstance(key, (jax.Array, jax.core.Tracer)) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape == shape:
            return key
        want = "one key, such as key[0]" if not shape else f"jax.random.split(key, {shape[0]})"
        raise ValueError(f"{name} must be a typed key of shape {shape}; got keys of shape {key.shape}: pass {want}.")
    raise ValueError(f"{name} must be a typed key of JAX; got {_what(key)}: pass {_remedy(key)}.")


def _what(value):
    if isinstance(value, (bool, int, float, str, type(None))):
        return repr(value)
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}" + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def _remedy(value):
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"jax.random.key({int(value)})"
    if getattr(value, "dtype", None) == np.uint32 and np.shape(value) == (2,):
        return "jax.random.wrap_key_data(key), or jax.random.key(0)"
    return "jax.random.key(0), before all other arguments"
