"""Results on disk: `save` and `load` of mixtures, fits, restarts, posteriors and estimators, never pickled.

An .npz archive holds any result to the last bit: arrays beside a description in JSON. A .json file holds one mixture
and what is known of it, for people and other programs: `GMM(**json.load(file)["gmm"])`; `gmm-jax fit --out` writes it.
"""

import io
import json
import math
import re
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from . import __version__
from .bench.store import mixture_record, write_json
from .mixture import GMM, Fit, Status, validate
from .mixture.files import write_bytes_atomic

SCHEMA = 1  # a reader refuses any other


def save(path: str | Path, result: Any) -> Path:
    """Write a mixture or a result to `path`, whole or not at all: .npz for any, .json for a GMM or a Fit without draws.

    Raises:
        ValueError: another suffix, or something in the result that is no number, text or record of gmm_jax.
    """
    path = Path(path)
    if path.suffix == ".json":
        return write_model(path, _document(result))
    if path.suffix != ".npz":
        raise ValueError(f"results are saved as .npz or .json; got {path.name!r}.")
    arrays, content = {}, io.BytesIO()
    tree = _encoded(result, arrays, type(result).__name__)
    about = {"schema": SCHEMA, "version": __version__, "result": tree}
    np.savez_compressed(content, about=json.dumps(about), **arrays)
    return write_bytes_atomic(path, content.getvalue())


def load(path: str | Path) -> Any:
    """What `save` has written: the same record. A .json file is a Fit, or a GMM where it holds nothing else.

    Raises:
        ValueError: the file is damaged, of another schema or a newer version, or no result of gmm_jax.
    """
    content = Path(path).read_bytes()
    try:
        if not content.startswith(b"PK"):
            return _fit_of(json.loads(content.decode()))
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            about = json.loads(str(archive["about"]))
            _check_schema(about)
            return _decoded(about["result"], archive)
    except (ValueError, KeyError, TypeError, AttributeError, ImportError, EOFError, BadZipFile) as error:
        said = f"{path} is no whole result of gmm_jax {__version__}"
        raise ValueError(f"{said} ({error or type(error).__name__}): save it again with this version.") from None


def write_model(path: Path, document: dict[str, Any]) -> Path:
    """A mixture with what is known of it, as JSON: `document` has gmm, a `mixture_record`, and any other keys."""
    return write_json(path, {"gmm_jax": __version__, "schema": SCHEMA, **document})


def _document(result):
    if isinstance(result, GMM):
        return {"gmm": mixture_record(validate(result))}
    if not isinstance(result, Fit) or result.draws is not None:
        raise ValueError(f"a .json file holds a GMM, or a Fit without draws; got a {type(result).__name__}: use .npz.")
    errors = mixture_record(result.standard_errors)
    return {"gmm": mixture_record(result.point), "status": result.status, "standard_errors": errors, **result.info}


def _fit_of(document):
    _check_schema(document)
    info = {name: value for name, value in document.items() if name not in ("gmm_jax", "schema")}
    gmm = validate(GMM(**info.pop("gmm")))
    if not info:
        return gmm
    errors, status = info.pop("standard_errors", None), Status[info.pop("status")]
    return Fit(gmm, None, None if errors is None else GMM(**errors), status, info)


def _check_schema(about):
    if not isinstance(about, dict) or "schema" not in about:
        raise ValueError("it names no schema")
    version = str(about.get("version", about.get("gmm_jax")))
    if about["schema"] != SCHEMA:
        raise ValueError(f"it was written by version {version} in schema {about['schema']}, this reads {SCHEMA}")
    if _numbers(version) > _numbers(__version__):
        raise ValueError(f"it was written by version {version}, which is newer")


def _numbers(version):
    return [int(number) for number in re.findall(r"\d+", version)]


# ---- records as JSON and arrays


def _encoded(value, arrays, place):
    """JSON, with arrays by the name under which they stand in `arrays`."""
    if isinstance(value, Enum):
        return {"type": _tag(type(value)), "value": value.name}
    if value is None or isinstance(value, (str, bool, int)) or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, dict):
        return {"dict": {key: _encoded(item, arrays, f"{place}[{key!r}]") for key, item in value.items()}}
    if is_record(type(value)):
        state = _state(value)
        return {"type": _tag(type(value)), "fields": {n: _encoded(v, arrays, f"{place}.{n}") for n, v in state.items()}}
    if type(value) in (list, tuple):
        items = [_encoded(item, arrays, f"{place}[{i}]") for i, item in enumerate(value)]
        return {type(value).__name__: items}
    if hasattr(value, "__array__") or isinstance(value, float):
        array = np.asarray(value)
        strings = array.dtype == object and all(isinstance(item, str) for item in array.ravel())
        if strings or array.dtype.kind in "fiubcU":
            name = f"array{len(arrays)}"
            arrays[name] = array.astype(str) if strings else array
            return {"float" if type(value) is float else "strings" if strings else "array": name}
    raise ValueError(f"{place} is a {type(value).__name__}, which cannot be saved: leave it out.")


def _decoded(tree, arrays):
    if not isinstance(tree, dict):
        return tree
    if "type" in tree:
        kind = _class_of(tree["type"])
        if issubclass(kind, Enum):
            return kind[tree["value"]]
        state = {name: _decoded(value, arrays) for name, value in tree["fields"].items()}
        if not _is_estimator(kind):
            return kind(**state)
        found = kind.__new__(kind)
        vars(found).update(state)
        return found
    ((kind, value),) = tree.items()
    if kind == "dict":
        return {key: _decoded(item, arrays) for key, item in value.items()}
    if kind in ("list", "tuple"):
        items = [_decoded(item, arrays) for item in value]
        return tuple(items) if kind == "tuple" else items
    array = arrays[value]
    return float(array) if kind == "float" else array.astype(object) if kind == "strings" else array[()]


def is_record(kind: type) -> bool:
    """Whether it is a class of ours whose state is numbers, texts and other such records."""
    ours = kind.__module__.startswith("gmm_jax.")
    return ours and (is_dataclass(kind) or hasattr(kind, "_fields") or _is_estimator(kind))


def _is_estimator(kind):
    if not kind.__module__.startswith("gmm_jax.estimators."):
        return False
    from .estimators.base import BaseMixture  # scikit-learn takes a third of a second

    return issubclass(kind, BaseMixture)


def _state(value):
    if hasattr(value, "_fields"):
        return value._asdict()
    return {f.name: getattr(value, f.name) for f in fields(value)} if is_dataclass(value) else vars(value)


def _tag(kind):
    """package.Name where the package offers it, else module.Name."""
    module = kind.__module__.removeprefix("gmm_jax.")
    package = module.partition(".")[0]
    public = getattr(import_module(f"gmm_jax.{package}"), kind.__name__, None) is kind
    return f"{package if public else module}.{kind.__name__}"


def _class_of(tag):
    module, _, name = tag.rpartition(".")
    if not all(part.isidentifier() for part in tag.split(".")):
        raise ValueError(f"{tag!r} is no record")
    kind = getattr(import_module(f"gmm_jax.{module}"), name)
    if not (isinstance(kind, type) and (is_record(kind) or issubclass(kind, Enum))):
        raise ValueError(f"{tag!r} is no record")
    return kind
