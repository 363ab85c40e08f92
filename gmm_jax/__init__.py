"""gmm_jax: recover (φ, μ, Σ) of a Gaussian mixture by every serious method, and compare each with the truth.

Names are loaded when they are first used (PEP 562), so `import gmm_jax` is instant and imports not even JAX.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "mixture": "GMM Fit Known MixtureSpec Moments NotSupported Posterior Prior Status affine align e_step impute "
    "log_joint log_prob match match_cost n_parameters permute predict responsibilities sample validate",
    "estimators": "BayesianGaussianMixture GaussianMixture",
    "saving": "load save",
}
_PACKAGES = ("mixture", "problems", "em", "bayes", "judge", "bench", "estimators", "plot")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted([*_HOME_OF, *_PACKAGES])


def __getattr__(name):
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return [*__all__, "__version__"]
