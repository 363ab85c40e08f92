r"""Named problems: a truth (φ, μ, Σ), how many samples are drawn from it, and what is hard about it.

A new problem is one function of this file under `@problem`, which returns the truth; nothing else is edited.
Truths are NumPy, in float64; the random ones come from RandomState, whose stream NumPy has frozen for good (NEP 19).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import GMM, Known, MixtureSpec, affine, responsibilities, sample, structure
from ..mixture.checks import check_count, check_key
from ..mixture.gmm import sample_given_labels
from ..mixture.programs import jit
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
        check_key(key)
        n = self.n_samples if n is None else int(check_count(n, "n"))
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
        n_draws = int(check_count(n_draws, "n_draws"))
        doubt = np.asarray(_doubt(check_key(key), _centred(self.truth)[0], n_draws), float)
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
    return list(_PROBLEMS)


def load(name: str) -> Problem:
    """The problem of that name; a ValueError names the nearest ones."""
    if name not in _PROBLEMS:
        near = ", ".join(get_close_matches(str(name), names()) or names())
        raise ValueError(f"name must be one of problems.names(); got {name!r}: try {near}.")
    return _PROBLEMS[name]()


_PROBLEMS: dict[str, Callable[[], Problem]] = {}


def problem(n_samples: int, difficulty: str) -> Callable:
    """Register the function below, which returns a truth, as a named problem; its docstring is the description."""

    def register(function):
        def make():
            truth = function()
            spec = MixtureSpec(truth.n_components, truth.covariance_type)
            return Problem(function.__name__, function.__doc__, truth, spec, n_samples, difficulty)

        _PROBLEMS[function.__name__] = make
        return make

    return register


@problem(500, "easy: Bayes error 2.1 %.")
def course_2d():
    """The course's two Gaussians in the plane, 350 and 150 samples."""
    return _gmm([0.7, 0.3], [[1.0, 1.0], [-1.0, -1.0]], [0.6 * np.eye(2), [[0.8, -0.3], [-0.3, 0.6]]])


@problem(500, "easy: Bayes error 3.3 %.")
def course_3d():
    """Two random Gaussians in space as the course draws them (distance 2), 350 and 150 samples."""
    # The course drew them without a seed; these were drawn in the same way, rounded and written down. Bayes error
    # 3.34 % (Monte Carlo, standard error 0.02 %); condition numbers 6.8 and 3.6.
    covariances = [
        [[0.21, 0.11, -0.02], [0.11, 0.56, 0.20], [-0.02, 0.20, 0.24]],
        [[0.31, 0.01, 0.16], [0.01, 0.35, -0.05], [0.16, -0.05, 0.29]],
    ]
    return _gmm([0.7, 0.3], [[0.10, 0.97, 1.98], [1.64, 1.60, 1.70]], covariances)


@problem(600, "easy: no overlap.")
def well_separated():
    """Three round Gaussians in the plane, ten standard deviations apart."""
    return _gmm([0.5, 0.3, 0.2], [[0.0, 0.0], [10.0, 0.0], [5.0, 9.0]], [np.eye(2)] * 3)


@problem(600, "moderate: neighbours overlap, 3 to 4 standard deviations apart.")
def one_dimensional():
    """Three Gaussians on the line with different spreads."""
    return _gmm([0.3, 0.5, 0.2], [[-3.0], [0.0], [4.0]], [[[0.5]], [[1.0]], [[2.0]]])


@problem(600, "easy: few parameters, although k-means cuts across the tilt.")
def shared_covariance():
    """Three Gaussians in the plane with one common tilted covariance (tied)."""
    return _gmm([0.4, 0.35, 0.25], [[0.0, 0.0], [2.5, -1.0], [0.0, 3.0]], [[1.0, 0.7], [0.7, 1.0]], "tied")


@problem(600, "moderate: long components cross.")
def axis_aligned():
    """Three Gaussians in space without correlations (diag), each long in another direction."""
    means = [[0.0, 0.0, 0.0], [2.5, 2.5, 0.0], [0.0, 2.5, 2.5]]
    return _gmm([0.4, 0.3, 0.3], means, [[4.0, 0.25, 0.5], [0.5, 4.0, 0.25], [0.25, 0.5, 4.0]], "diag")


@problem(800, "hard: small components stand at the edge of large ones, and few starts find them.")
def round_clusters():
    """Four round Gaussians in the plane (spherical) whose radii differ eightfold."""
    means = [[0.0, 0.0], [1.5, 0.0], [0.0, 3.0], [5.0, 4.0]]
    return _gmm([0.1, 0.2, 0.3, 0.4], means, [0.0625, 0.25, 1.0, 4.0], "spherical")


@problem(1000, "moderate: EM is slow here, and 50 samples say little about the small component.")
def unbalanced():
    """Two Gaussians in the plane, 95 and 5 % of the samples."""
    return _gmm([0.95, 0.05], [[0.0, 0.0], [3.0, 0.0]], [[[1.0, 0.3], [0.3, 1.0]], 0.3 * np.eye(2)])


@problem(1000, "hard: Bayes error 22 %, a flat likelihood and hundreds of iterations.")
def overlapping():
    """Three Gaussians in the plane, two standard deviations apart."""
    covariances = [[[1.0, 0.3], [0.3, 0.8]], [[0.8, -0.3], [-0.3, 1.0]], 0.7 * np.eye(2)]
    return _gmm([0.4, 0.35, 0.25], [[0.0, 0.0], [2.0, 0.0], [1.0, 1.75]], covariances)


@problem(600, "moderate: covariances alone tell the components apart, and some starts end elsewhere.")
def crossing():
    """Two thin Gaussians in the plane that cross at their common mean."""
    return _gmm([0.5, 0.5], [[0.0, 0.0], [0.0, 0.0]], [[[1.0, 0.95], [0.95, 1.0]], [[1.0, -0.95], [-0.95, 1.0]]])


@problem(1000, "moderate: no cut of the plane tells them apart, and a ridge above 1e-3 blurs the tight one.")
def tight_inside_broad():
    """A tight Gaussian inside a broad one in the plane, radii one to twenty."""
    return _gmm([0.2, 0.8], [[0.5, 0.5], [0.0, 0.0]], [0.0025 * np.eye(2), np.eye(2)])


@problem(4000, "hard: Bayes error 0.8 %, but hardly two starts end in the same optimum.")
def many_components():
    """Twenty tilted Gaussians in the plane on a jittered lattice, with unequal weights."""
    rng = np.random.RandomState(20)
    weights, lattice = _random_weights(rng, 20), np.stack(np.divmod(np.arange(20), 5), axis=1)
    return _gmm(weights, 6.0 * (lattice + rng.uniform(-0.2, 0.2, lattice.shape)), _random_covariances(rng, 20, 2))


@problem(2000, "moderate: 263 free parameters, some overlap.")
def ten_dimensional():
    """Four random Gaussians in ten dimensions."""
    rng = np.random.RandomState(10)
    return _gmm(_random_weights(rng, 4), rng.normal(0.0, 0.8, (4, 10)), _random_covariances(rng, 4, 10))


@problem(3000, "hard: 3977 free parameters against 3000 samples.")
def fifty_dimensional():
    """Three random Gaussians in fifty dimensions."""
    rng = np.random.RandomState(50)
    return _gmm(_random_weights(rng, 3), rng.normal(0.0, 0.5, (3, 50)), _random_covariances(rng, 3, 50))


@problem(500, "easy: for a method that is affine equivariant; else cancellation ruins the covariances.")
def far_offset():
    """The course's two Gaussians in the plane, a million units away from the origin."""
    return affine(load("course_2d").truth, 1.0, np.array([1e6, -1e6]))


@problem(500, "easy: for a method that is affine equivariant; else regularisation swamps the data.")
def tiny_scale():
    """The course's two Gaussians in the plane, a hundred million times smaller."""
    return affine(load("course_2d").truth, 1e-8)


@problem(500, "easy: for a method that is affine equivariant; k-means on raw columns sees the last one only.")
def mixed_units():
    """The 3-D problem of the course with features in units of 1e-3, 1 and 1e4."""
    return affine(load("course_3d").truth, np.array([1e-3, 1.0, 1e4]))


def _gmm(weights, means, covariances, covariance_type="full"):
    return GMM(np.array(weights, float), np.array(means, float), np.array(covariances, float), covariance_type)


def _random_weights(rng, n_components):
    """φ ∝ uniform on (1/2, 3/2): none below 1 / (3K)."""
    mass = rng.uniform(0.5, 1.5, n_components)
    return mass / mass.sum()


def _random_covariances(rng, n_components, n_features):
    """Σ = B Bᵀ / (3D) with B standard normal, (D, 3D): of the size of I, eigenvalues about 0.2 to 2.5."""
    b = rng.normal(size=(n_components, n_features, 3 * n_features))
    return np.einsum("kij,klj->kil", b, b) / (3 * n_features)


def _centred(truth):
    """(mixture, centre, scale) with truth = centre + scale · mixture, so that float32 can hold the mixture too."""
    centre = truth.weights @ truth.means
    scale = math.sqrt(np.max(truth.covariances))  # the largest entry is a variance, whatever the structure
    return affine(affine(truth, 1.0, -centre), 1.0 / scale), centre, scale


@partial(jit, static_argnames="n")
def _sample(key, gmm, n):
    return sample(key, gmm, n)


@partial(jit, static_argnames="n")
def _doubt(key, gmm, n):
    """1 − max_k p(k | x) of n samples x of the mixture."""
    x, _ = sample(key, gmm, n)
    return 1.0 - jnp.max(responsibilities(gmm, x), axis=-1)


def _checked_components(components, n_components):
    rows = list(components) if np.iterable(components) else [components]
    for k in rows:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 0 <= k < n_components:
            raise ValueError(f"components must list numbers from 0 to {n_components - 1}; got {k!r}.")
    return rows
