"""Where climbs of the likelihood end when they go on to a stationary point, and which of these are maxima.

A plateau of the likelihood looks like many optima, because EM stops wherever its gain has become small. `polished`
climbs on from each one by quasi-Newton steps until the gradient vanishes, and counts as one those that arrive at the
same place.
"""

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from gmm_jax import MixtureSpec, Status, em

POLISH = em.EMConfig(max_iter=5000, tol=1e-9, acceleration="lbfgs", stop="gradient")


def polished(key: Key[Array, ""], x: Float[np.ndarray, "N D"], spec: MixtureSpec, found: em.Restarts) -> em.Optima:
    """The distinct stationary points that the optima of `found` lead to; a fit is counted where its optimum ends.

    A step of the climb can leave the basin that it started in: those that end at none, or collapse, are of no optimum.
    """
    first = found.optima
    if not first.count.size:
        return first
    after = em.fit_em_restarts(key, x, spec, n_restarts=first.count.size, init=first.gmm, config=POLISH).optima
    of_fit = np.where(first.of_fit < 0, -1, after.of_fit[first.of_fit])
    highest = [int(np.argmax(after.of_fit == m)) for m in range(after.count.size)]  # first's optima are in order
    count = np.bincount(of_fit[of_fit >= 0], minlength=after.count.size)
    return after._replace(count=count, fit=first.fit[highest], of_fit=of_fit)


def curvature(optima: em.Optima, x: Float[np.ndarray, "N D"], spec: MixtureSpec) -> list[str]:
    """For each optimum "maximum" where the information there is positive definite, else the Status that says why not.

    SINGULAR is a saddle, or components that coincide; BOUNDARY has no such test.
    """
    found = []
    for i in range(optima.count.size):
        gmm = jax.tree.map(lambda leaf, i=i: leaf[i], optima.gmm)
        result = em.EMResult(gmm, optima.log_likelihood[i], np.zeros(0), 0, Status.CONVERGED)
        status = em.asymptotics(x, result, spec).status
        found.append("maximum" if status == Status.CONVERGED else status.name)
    return found
