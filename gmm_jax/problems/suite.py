r"""Named problems: a truth (φ, μ, Σ), how many samples are drawn from it, and what is hard about it.

A new problem is one function of this file that takes nothing and is annotated `-> Problem`; nothing else is edited.
Truths are NumPy, in float64; the random ones come from RandomState, whose stream NumPy has frozen for good (NEP 19).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import GMM, Known, MixtureSpec, affine, responsibilities, sample, sample_given_labels, structure
from .generators import fixed_counts

FIELDS = ("weights", "means", "covariances")


@dataclass(frozen=True, eq=False)
class Problem:
    """A truth, the free specification that fits it, and a way to draw data from it."""

    name: str
    description: str  # one sentence
    truth: GMM  # NumPy leaves, float64
    spec: MixtureSpec  # nothing known
    n_samples: int  # what `sample` draws by default
    difficulty: str  # "easy", "moderate" or "hard", a colon, and why

    def knowing(self, *fields: str, components=None) -> MixtureSpec:
        """The specification with these fields of the truth known: of all components, or of the listed ones.

        `knowing("weights", "covariances")` is the course's Case I; `knowing("means", components=(0,))` knows μ₀ alone.
        """
        for name in fields:
            if name not in FIELDS:
                raise ValueError(f"knowing takes any of {', '.join(FIELDS)}; got {name!r}.")
        return replace(self.spec, known=Known(**{name: self._known(name, components) for name in fields}))

    def sample(
        self, key: Key[Array, ""], n: int | None = None, counts: str = "fixed"
    ) -> tuple[Float[np.ndarray, "n D"], Int[np.ndarray, "n"]]:
        """n samples (by default n_samples) and the components that made them, float64 and int, in NumPy.

        counts="fixed" gives n·φ samples to each component (largest remainder), concatenated component by component as
        in the course; counts="multinomial" draws every label anew, and rows are in no order.
        """
        n = self.n_samples if n is None else _positive(n, "n")
        gmm, centre, scale = _centred(self.truth)
        if counts == "fixed":
            labels = np.repeat(np.arange(gmm.n_components), fixed_counts(gmm.weights, n))
            z = sample_given_labels(key, gmm, labels)
        elif counts == "multinomial":
            z, labels = _sample(key, gmm, n)
        else:
            raise ValueError(f"counts must be 'fixed' or 'multinomial'; got {counts!r}.")
        return centre + scale * np.asarray(z, float), np.asarray(labels, int)

    def bayes_error(self, key: Key[Array, ""], n_draws: int = 20_000) -> tuple[float, float]:
        """P(argmax_k p(k | x) is not x's component) = E[1 − max_k p(k | x)] by Monte Carlo: (value, standard error).

        No classifier does better, so it says how much the components overlap.
        """
        n_draws = _positive(n_draws, "n_draws")
        doubt = np.asarray(_doubt(key, _centred(self.truth)[0], n_draws), float)
        return float(np.mean(doubt)), float(np.std(doubt) / math.sqrt(n_draws))

    def _known(self, name, components):
        """The truth's leaf of that name, NaN in the rows of components that are not listed."""
        leaf = getattr(self.truth, name)
        if components is None:
            return leaf
        if name == "covariances" and not structure(self.truth.covariance_type).per_component:
            raise ValueError("tied covariances are known whole or not at all: leave components out.")
        rows = _checked_components(components, self.truth.n_components)
        known = np.full_like(leaf, np.nan)
        known[rows] = leaf[rows]
        return known


def names() -> list[str]:
    """Every named problem, the course's first."""
    return list(_functions())


def load(name: str) -> Problem:
    """The problem of that name; a ValueError names the nearest ones."""
    if name not in names():
        near = ", ".join(get_close_matches(str(name), names()) or names())
        raise ValueError(f"name must be one of problems.names(); got {name!r}: try {near}.")
    return _functions()[name]()


def course_2d() -> Problem:
    """The course's experiments 1 and 2, in its own numbers."""
    return _problem(
        name="course_2d",
        description="The course's two Gaussians in the plane, 350 and 150 samples.",
        truth=_course_2d(),
        n_samples=500,
        difficulty="easy: Bayes error 2.1 %.",
    )


def course_3d() -> Problem:
    """The course's experiments 3 and 4: two random Gaussians with distance 2, 70 and 30 %.

    The course drew them without a seed; these were drawn in the same way, rounded and written down. Bayes error
    3.34 % (Monte Carlo, standard error 0.02 %); condition numbers 6.8 and 3.6.
    """
    covariances = [
        [[0.21, 0.11, -0.02], [0.11, 0.56, 0.20], [-0.02, 0.20, 0.24]],
        [[0.31, 0.01, 0.16], [0.01, 0.35, -0.05], [0.16, -0.05, 0.29]],
    ]
    return _problem(
        name="course_3d",
        description="Two random Gaussians in space as the course draws them (distance 2), 350 and 150 samples.",
        truth=_gmm([0.7, 0.3], [[0.10, 0.97, 1.98], [1.64, 1.60, 1.70]], covariances),
        n_samples=500,
        difficulty="easy: Bayes error 3.3 %.",
    )


def well_separated() -> Problem:
    """Any method that fails here is broken."""
    return _problem(
        name="well_separated",
        description="Three round Gaussians in the plane, ten standard deviations apart.",
        truth=_gmm([0.5, 0.3, 0.2], [[0.0, 0.0], [10.0, 0.0], [5.0, 9.0]], [np.eye(2)] * 3),
        n_samples=600,
        difficulty="easy: no overlap.",
    )


def one_dimensional() -> Problem:
    """Where every figure can be checked by quadrature."""
    return _problem(
        name="one_dimensional",
        description="Three Gaussians on the line with different spreads.",
        truth=_gmm([0.3, 0.5, 0.2], [[-3.0], [0.0], [4.0]], [[[0.5]], [[1.0]], [[2.0]]]),
        n_samples=600,
        difficulty="moderate: neighbours overlap, 3 to 4 standard deviations apart.",
    )


def shared_covariance() -> Problem:
    """Tied: linear discriminant analysis without the labels."""
    return _problem(
        name="shared_covariance",
        description="Three Gaussians in the plane with one common tilted covariance (tied).",
        truth=_gmm([0.4, 0.35, 0.25], [[0.0, 0.0], [2.5, -1.0], [0.0, 3.0]], [[1.0, 0.7], [0.7, 1.0]], "tied"),
        n_samples=600,
        difficulty="easy: few parameters, although k-means cuts across the tilt.",
    )


def axis_aligned() -> Problem:
    """Diagonal covariances, long in different directions."""
    return _problem(
        name="axis_aligned",
        description="Three Gaussians in space without correlations (diag), each long in another direction.",
        truth=_gmm(
            [0.4, 0.3, 0.3],
            [[0.0, 0.0, 0.0], [2.5, 2.5, 0.0], [0.0, 2.5, 2.5]],
            [[4.0, 0.25, 0.5], [0.5, 4.0, 0.25], [0.25, 0.5, 4.0]],
            "diag",
        ),
        n_samples=600,
        difficulty="moderate: long components cross.",
    )


def round_clusters() -> Problem:
    """One variance a component, and very different ones."""
    return _problem(
        name="round_clusters",
        description="Four round Gaussians in the plane (spherical) whose radii differ eightfold.",
        truth=_gmm(
            [0.1, 0.2, 0.3, 0.4],
            [[0.0, 0.0], [1.5, 0.0], [0.0, 3.0], [5.0, 4.0]],
            [0.0625, 0.25, 1.0, 4.0],
            "spherical",
        ),
        n_samples=800,
        difficulty="hard: small components stand at the edge of large ones, and few starts find them.",
    )


def unbalanced() -> Problem:
    """A rare component that the likelihood hardly feels."""
    return _problem(
        name="unbalanced",
        description="Two Gaussians in the plane, 95 and 5 % of the samples.",
        truth=_gmm([0.95, 0.05], [[0.0, 0.0], [3.0, 0.0]], [[[1.0, 0.3], [0.3, 1.0]], 0.3 * np.eye(2)]),
        n_samples=1000,
        difficulty="moderate: EM is slow here, and 50 samples say little about the small component.",
    )


def overlapping() -> Problem:
    """Where intervals matter more than points: the data do not decide."""
    return _problem(
        name="overlapping",
        description="Three Gaussians in the plane, two standard deviations apart.",
        truth=_gmm(
            [0.4, 0.35, 0.25],
            [[0.0, 0.0], [2.0, 0.0], [1.0, 1.75]],
            [[[1.0, 0.3], [0.3, 0.8]], [[0.8, -0.3], [-0.3, 1.0]], 0.7 * np.eye(2)],
        ),
        n_samples=1000,
        difficulty="hard: Bayes error 22 %, a flat likelihood and hundreds of iterations.",
    )


def crossing() -> Problem:
    """Distances to centres say nothing here."""
    return _problem(
        name="crossing",
        description="Two thin Gaussians in the plane that cross at their common mean.",
        truth=_gmm([0.5, 0.5], [[0.0, 0.0], [0.0, 0.0]], [[[1.0, 0.95], [0.95, 1.0]], [[1.0, -0.95], [-0.95, 1.0]]]),
        n_samples=600,
        difficulty="moderate: covariances alone tell the components apart, and some starts end elsewhere.",
    )


def tight_inside_broad() -> Problem:
    """A spike in a cloud: the reason to fear collapsed components, and not to forbid them."""
    return _problem(
        name="tight_inside_broad",
        description="A tight Gaussian inside a broad one in the plane, radii one to twenty.",
        truth=_gmm([0.2, 0.8], [[0.5, 0.5], [0.0, 0.0]], [0.0025 * np.eye(2), np.eye(2)]),
        n_samples=1000,
        difficulty="moderate: no cut of the plane tells them apart, and a ridge above 1e-3 blurs the tight one.",
    )


def many_components() -> Problem:
    """The landscape of optima: one start in many finds the best."""
    rng = np.random.RandomState(20)
    lattice = np.stack(np.divmod(np.arange(20), 5), axis=1)
    return _problem(
        name="many_components",
        description="Twenty tilted Gaussians in the plane on a jittered lattice, with unequal weights.",
        truth=_gmm(
            _random_weights(rng, 20),
            6.0 * (lattice + rng.uniform(-0.2, 0.2, lattice.shape)),
            _random_covariances(rng, 20, 2),
        ),
        n_samples=4000,
        difficulty="hard: Bayes error 0.8 %, but hardly two starts end in the same optimum.",
    )


def ten_dimensional() -> Problem:
    """Four full covariances of 55 numbers each."""
    rng = np.random.RandomState(10)
    return _problem(
        name="ten_dimensional",
        description="Four random Gaussians in ten dimensions.",
        truth=_gmm(_random_weights(rng, 4), rng.normal(0.0, 0.8, (4, 10)), _random_covariances(rng, 4, 10)),
        n_samples=2000,
        difficulty="moderate: 263 free parameters, some overlap.",
    )


def fifty_dimensional() -> Problem:
    """Where densities underflow without logs and samples get scarce."""
    rng = np.random.RandomState(50)
    return _problem(
        name="fifty_dimensional",
        description="Three random Gaussians in fifty dimensions.",
        truth=_gmm(_random_weights(rng, 3), rng.normal(0.0, 0.5, (3, 50)), _random_covariances(rng, 3, 50)),
        n_samples=3000,
        difficulty="hard: 3977 free parameters against 3000 samples.",
    )


def far_offset() -> Problem:
    """course_2d a million away from the origin: E[x²] − μ² loses everything."""
    return _problem(
        name="far_offset",
        description="The course's two Gaussians in the plane, a million units away from the origin.",
        truth=affine(_course_2d(), 1.0, np.array([1e6, -1e6])),
        n_samples=500,
        difficulty="easy: for a method that is affine equivariant; else cancellation ruins the covariances.",
    )


def tiny_scale() -> Problem:
    """course_2d in other units: an absolute reg_covar of 1e-6 is 1e10 variances."""
    return _problem(
        name="tiny_scale",
        description="The course's two Gaussians in the plane, a hundred million times smaller.",
        truth=affine(_course_2d(), 1e-8),
        n_samples=500,
        difficulty="easy: for a method that is affine equivariant; else regularisation swamps the data.",
    )


def mixed_units() -> Problem:
    """course_3d with its features in different units, as tables of measurements have them."""
    return _problem(
        name="mixed_units",
        description="The 3-D problem of the course with features in units of 1e-3, 1 and 1e4.",
        truth=affine(course_3d().truth, np.array([1e-3, 1.0, 1e4])),
        n_samples=500,
        difficulty="easy: for a method that is affine equivariant; k-means on raw columns sees the last one only.",
    )


def _course_2d():
    return _gmm([0.7, 0.3], [[1.0, 1.0], [-1.0, -1.0]], [0.6 * np.eye(2), [[0.8, -0.3], [-0.3, 0.6]]])


def _gmm(weights, means, covariances, covariance_type="full"):
    return GMM(np.array(weights, float), np.array(means, float), np.array(covariances, float), covariance_type)


def _problem(*, name, description, truth, n_samples, difficulty):
    spec = MixtureSpec(truth.n_components, truth.covariance_type)
    return Problem(name, description, truth, spec, n_samples, difficulty)


def _random_weights(rng, n_components):
    """φ ∝ uniform on (1/2, 3/2): none below 1 / (3K)."""
    mass = rng.uniform(0.5, 1.5, n_components)
    return mass / mass.sum()


def _random_covariances(rng, n_components, n_features):
    """Σ = B Bᵀ / (3D) with B standard normal, (D, 3D): of the size of I, eigenvalues about 0.2 to 2.5."""
    b = rng.normal(size=(n_components, n_features, 3 * n_features))
    return np.einsum("kij,klj->kil", b, b) / (3 * n_features)


def _functions():
    """name -> function of this module that takes nothing and returns a Problem."""
    return {name: f for name, f in globals().items() if getattr(f, "__annotations__", None) == {"return": "Problem"}}


def _centred(truth):
    """(mixture, centre, scale) with truth = centre + scale · mixture, so that float32 can hold the mixture too."""
    centre = truth.weights @ truth.means
    scale = math.sqrt(np.max(truth.covariances))  # the largest entry is a variance, whatever the structure
    return affine(affine(truth, 1.0, -centre), 1.0 / scale), centre, scale


@partial(jax.jit, static_argnames="n")
def _sample(key, gmm, n):
    return sample(key, gmm, n)


@partial(jax.jit, static_argnames="n")
def _doubt(key, gmm, n):
    """1 − max_k p(k | x) of n samples x of the mixture."""
    x, _ = sample(key, gmm, n)
    return 1.0 - jnp.max(responsibilities(gmm, x), axis=-1)


def _positive(value, name):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}.")
    return int(value)


def _checked_components(components, n_components):
    rows = list(components) if np.iterable(components) else [components]
    for k in rows:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 0 <= k < n_components:
            raise ValueError(f"components must list numbers from 0 to {n_components - 1}; got {k!r}.")
    return rows
