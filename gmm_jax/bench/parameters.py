"""Every free number of a mixture by its name: φ₁, μ₂₁ (component 2, feature 1), Σ₁,₂₁ (component 1, entry 2 1).

Of a covariance matrix the lower triangle is named; of a diagonal one its variances as Σ₁,₁₁; of a spherical one its one
variance as Σ₁; of a tied one the entries without a component.
"""

from typing import NamedTuple

import numpy as np

from ..mixture import GMM, Known, MixtureSpec, free_parts

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class Parameter(NamedTuple):
    """One number of a mixture."""

    label: str
    field: str  # weights, means or covariances
    index: tuple[int, ...]  # its place in that leaf
    known: bool

    def value(self, gmm: GMM) -> float:
        """Its value in this mixture (or in a mixture of standard errors)."""
        return float(np.asarray(getattr(gmm, self.field))[self.index])


def parameters(gmm: GMM, known: Known = Known()) -> list[Parameter]:
    """The numbers of a mixture in the order φ, μ, Σ, component by component."""
    n_components, n_features = gmm.n_components, gmm.n_features
    spec = MixtureSpec(n_components, gmm.covariance_type, known)
    free_weights, free_means, free_covariances = free_parts(spec)
    comma = "," if max(n_components, n_features) > 9 else ""
    named = [Parameter(f"φ{_low(k)}", "weights", (k,), not free_weights[k]) for k in range(n_components)]
    named += [
        Parameter(f"μ{_low(k)}{comma}{_low(j)}", "means", (k, j), not free_means[k])
        for k in range(n_components)
        for j in range(n_features)
    ]
    for index in _covariance_places(gmm):
        if gmm.covariance_type == "tied":
            k, label = 0, f"Σ{comma.join(map(_low, index))}"
        else:
            k, entry = index[0], index[1:] * (2 if gmm.covariance_type == "diag" else 1)
            label = f"Σ{_low(k)}" + ("," if entry else "") + comma.join(map(_low, entry))
        named.append(Parameter(label, "covariances", index, not free_covariances[k]))
    return named


def _covariance_places(gmm):
    if gmm.covariance_type in ("spherical", "diag"):
        return [tuple(map(int, i)) for i in np.ndindex(np.shape(gmm.covariances))]
    triangle = [(i, j) for i in range(gmm.n_features) for j in range(i + 1)]
    return triangle if gmm.covariance_type == "tied" else [(k, *e) for k in range(gmm.n_components) for e in triangle]


def _low(i):
    return str(i + 1).translate(SUBSCRIPTS)
