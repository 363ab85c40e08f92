"""What is asked of arguments before anything is computed: arrays of real numbers, typed keys, fields of a record.

A ValueError names the argument, its value, and what to pass instead.
"""

import os
from dataclasses import dataclass, fields
from functools import wraps

import jax
import numpy as np

from .forks import check_process


def tree_dataclass(cls):
    """A frozen dataclass that is a pytree; its `__post_init__` checks what a caller writes, not what JAX rebuilds.

    JAX rebuilds records around tracers, batched leaves and placeholders: those go round `__init__`.
    """
    cls = dataclass(frozen=True)(cls)
    static = [f.name for f in fields(cls) if f.metadata.get("static")]
    leaves = [f.name for f in fields(cls) if not f.metadata.get("static")]

    def flatten(record):
        named = tuple((jax.tree_util.GetAttrKey(name), getattr(record, name)) for name in leaves)
        return named, tuple(getattr(record, name) for name in static)

    def unflatten(values, children):
        record = object.__new__(cls)
        vars(record).update(zip((*leaves, *static), (*children, *values), strict=True))
        return record

    def flatten_plainly(record):
        return tuple(getattr(record, name) for name in leaves), tuple(getattr(record, name) for name in static)

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten, flatten_plainly)
    return cls


def real_array(value, name) -> np.ndarray:
    """The value as an array of real numbers in NumPy, masked entries as NaN, or a ValueError that names it."""
    if isinstance(value, (str, bytes, os.PathLike)):
        if name.lower() != "x":
            raise ValueError(f"{name} must hold real numbers; got {value!r}.")
        raise ValueError(f"{name} must be an array; got {value!r}: read the file first, or see problems.open_blocks.")
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        value = value.astype(np.result_type(value.dtype, np.float16)).filled(np.nan)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # NumPy's sentence on ragged lists does not say whose they are
        raise ValueError(f"{name} must be an array; got rows of different lengths or kinds.") from None
    if array.dtype.kind not in "fiub":
        parts = {str(c): np.asarray(value[c]) for c in getattr(value, "columns", ())}
        columns = [name for name, part in parts.items() if part.dtype.kind not in "fiub"]
        if parts and not columns:  # a data frame whose columns have types that know missing values
            return np.column_stack(list(parts.values()))
        where = f" in column {', '.join(columns)}" if columns else ""
        kind = type(value).__name__ if array.dtype == object and not array.ndim else f"dtype {array.dtype}"
        raise ValueError(f"{name} must hold real numbers; got {kind}{where}: convert or drop what is no number.")
    return array


def native(leaf):
    """The same in native byte order, which JAX asks for; what is no array of NumPy as it is."""
    if not isinstance(leaf, np.ndarray) or leaf.dtype.isnative:
        return leaf
    return leaf.astype(leaf.dtype.newbyteorder("="))


def float_array(value, name) -> np.ndarray:
    """The same as float32 or float64 in native byte order: wider and whole numbers as float64, float16 as float32."""
    array = real_array(value, name)
    small = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    return array.astype(np.float32 if small else np.float64, copy=False)


def first_of(mask) -> tuple[int, ...]:
    """The index of the first True."""
    return tuple(int(i) for i in np.argwhere(mask)[0])


def check_key(key, name: str = "key"):
    """The typed JAX key itself, or a ValueError that says what it is instead."""
    check_process()
    typed = isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    if typed and not key.shape:
        return key
    got = f"{type(key).__name__} {key!r}" if key is None or np.isscalar(key) else f"a {type(key).__name__}"
    if typed:
        got = f"an array of keys of shape {key.shape}, where one is wanted"
    elif getattr(key, "dtype", None) == np.uint32:
        got = "a legacy key of uint32 (wrap it by jax.random.wrap_key_data)"
    raise ValueError(f"{name} must be a typed JAX key; got {got}: pass jax.random.key(0), in the place of {name}.")


def keyed(function):
    """The same function of a key, which is looked at before a compiled program is given it."""
    return wraps(function)(lambda key, *arguments, **options: function(check_key(key), *arguments, **options))


def check_count(value, name: str, least: int = 1) -> int:
    """The whole number itself, or a ValueError where it is none, or too small."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        kind = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"{name} must be {kind}; got {value!r}.")
    return value


def check_type(value, kind: type, name: str, example: str):
    """The value itself, or a ValueError where it is of another type."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}; got {kind_of(value)}: pass {example}.")
    return value


def kind_of(value) -> str:
    """A value in a few words."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return repr(value)
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")
