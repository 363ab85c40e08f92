"""Not a method but a bound: maximum likelihood when the labels are known."""

from dataclasses import replace

import jax
import numpy as np

from ... import em
from ...mixture import Fit, NotSupported, Status, check_data, check_labels, standardise, validate_spec
from ...mixture.programs import jit
from ...mixture.starts import from_labels


def fit(key, x, spec, *, labels=None) -> Fit:
    if labels is None:
        raise NotSupported("oracle needs the labels of the samples, which real data do not have: leave it out.")
    x = check_data(x, n_components=spec.n_components)
    spec = validate_spec(spec, x.shape[1])
    labels = check_labels(labels, len(x), spec.n_components)
    if labels is None or np.any(labels < 0):
        raise ValueError("labels must name the component of every row: leave those of unknown label out.")
    z, scaling = standardise(x, spec)
    point = _fit(z, labels, replace(spec, known=scaling.known_inward(spec)))
    return Fit(scaling.outward(jax.tree.map(np.asarray, point)), None, None, Status.CONVERGED, {})


@jit
def _fit(z, labels, spec):
    return em.fit_labelled(z, labels, from_labels(z, labels, spec), known=spec.known)
