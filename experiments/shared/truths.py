"""Random truths, and data from them: means normal with sd 2, Σ = A·Aᵀ with A = I + 0.4·N, weights Dirichlet(4)."""

import numpy as np
from jaxtyping import Float

from gmm_jax import GMM

MEAN_SD, SPREAD, ALPHA = 2.0, 0.4, 4.0


def random_truths(
    rng: np.random.Generator,
    n: int,
    n_components: int,
    n_features: int,
    *,
    mean_sd: float = MEAN_SD,
    even: bool = False,
) -> GMM:
    """Mixtures with leading (n,); even: of equal weights."""
    shape = (n, n_components, n_features)
    root = np.eye(n_features) + SPREAD * rng.standard_normal((*shape, n_features))
    weights = rng.dirichlet(np.full(n_components, ALPHA), n)
    weights = np.full_like(weights, 1.0 / n_components) if even else weights
    return GMM(weights, mean_sd * rng.standard_normal(shape), root @ np.swapaxes(root, -1, -2))


def draw(rng: np.random.Generator, gmm: GMM, n_samples: int) -> Float[np.ndarray, "n N D"]:
    """Samples of each of the mixtures with leading (n,), their labels drawn too."""
    n, n_components, n_features = gmm.means.shape
    labels = np.stack([rng.choice(n_components, n_samples, p=weights) for weights in gmm.weights])
    noise, roots = rng.standard_normal((n, n_samples, n_features, 1)), np.linalg.cholesky(gmm.covariances)
    each = zip(gmm.means, roots, labels, noise, strict=True)
    return np.stack([mean[k] + (root[k] @ e)[..., 0] for mean, root, k, e in each])
