"""Components of weight 0 at the end of mixtures, and known to be so: fits of fewer components use the same programs.

They are standard normal, take no samples and change no number of the others.
"""

from dataclasses import replace

import numpy as np

from .covariance import structure
from .gmm import GMM
from .spec import Known

ONE = {"full": np.eye, "diag": np.ones, "spherical": lambda _: np.ones(())}  # of D features: a unit covariance


def with_empty(gmm: GMM, n_components: int) -> GMM:
    """Mixtures of so many components, in NumPy; leading axes kept."""
    *leading, n_real, n_features = gmm.means.shape
    shape = (*leading, n_components - n_real)

    def longer(leaf, more):
        leaf = np.asarray(leaf)
        more = np.broadcast_to(more, (*shape, *more.shape)).astype(leaf.dtype)
        return np.concatenate([leaf, more], axis=len(leading))

    longest = {"weights": longer(gmm.weights, np.zeros(())), "means": longer(gmm.means, np.zeros(n_features))}
    if structure(gmm.covariance_type).per_component:
        longest["covariances"] = longer(gmm.covariances, ONE[gmm.covariance_type](n_features))
    return replace(gmm, **longest)


def known_empty(known: Known, gmm: GMM, n_components: int) -> Known:
    """What is known of mixtures with the leading axes and dtype of `gmm`, and that the components at the end are empty.

    A tied covariance has none for them.
    """
    given = vars(known)
    free = {name: np.full_like(np.asarray(getattr(gmm, name)), np.nan) for name in given}
    filled = {name: free[name] if leaf is None else np.asarray(leaf) for name, leaf in given.items()}
    found = vars(with_empty(replace(gmm, **filled), n_components))
    whole = known.covariances is None and not structure(gmm.covariance_type).per_component
    return Known(found["weights"], found["means"], None if whole else found["covariances"])
