"""Not a method but a bound: maximum likelihood when the labels are known."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from ... import em
from ...mixture import Fit, NotSupported, Status, check_data, standardise, validate_spec
from ...mixture.starts import from_labels


def fit(key, x, spec, *, labels=None) -> Fit:
    if labels is None:
        raise NotSupported("oracle needs the labels of the samples, which real data do not have: leave it out.")
    x = check_data(x, n_components=spec.n_components)
    spec = validate_spec(spec, x.shape[1])
    z, scaling = standardise(x, spec)
    point = _fit(z, _checked(labels, len(x), spec.n_components), replace(spec, known=scaling.known_inward(spec)))
    return Fit(scaling.outward(jax.tree.map(np.asarray, point)), None, None, Status.CONVERGED, {})


def _checked(labels, n_samples, n_components):
    labels = np.asarray(labels)
    if labels.shape != (n_samples,) or labels.dtype.kind not in "iu" or not np.isin(labels, range(n_components)).all():
        raise ValueError(f"labels must be {n_samples} integers from 0 to {n_components - 1}, one a row of x.")
    return labels


@jax.jit
def _fit(z, labels, spec):
    return em.fit_labelled(z, labels, from_labels(z, labels, spec), known=spec.known)
