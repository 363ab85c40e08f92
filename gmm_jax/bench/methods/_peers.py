"""What the methods of other people's programs share: how they are found, what they refuse, on which terms they ran."""

import shutil
import subprocess
import warnings
from importlib import import_module
from importlib.util import find_spec

import jax
import numpy as np

from ...bayes.checks import check_spec
from ...mixture import GMM, Fit, MixtureSpec, NotSupported, Status, check_data, validate_spec
from ...mixture.checks import check_key
from . import Unavailable

PIP_NAMES = {"sklearn": "scikit-learn"}


def how_to_get(*packages: str) -> str:
    """ "" where they are all installed, else "unavailable: pip install ..."."""
    lacking = [PIP_NAMES.get(package, package) for package in packages if find_spec(package) is None]
    return f"unavailable: pip install {' '.join(lacking)}" if lacking else ""


def require(*packages: str):
    """The modules of these names; Unavailable, with what to type, where one is not installed."""
    missing = how_to_get(*packages)
    if missing:
        raise Unavailable(missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say on being imported is for their developers
        modules = [import_module(package) for package in packages]
    return modules[0] if len(modules) == 1 else modules


NO_PACKAGE = 64  # exit code of a program in R that lacks its package


def ask_r(package: str, program: str, *arguments, timeout: float | None = None) -> subprocess.CompletedProcess:
    """Rscript on a program that ends with NO_PACKAGE where its package is not there: Unavailable, as without R."""
    rscript = shutil.which("Rscript")
    command = [rscript, "--vanilla", "-e", program, *map(str, arguments)]
    try:
        done = rscript and subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)  # noqa: S603 - fixed words
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{package} took longer than the option timeout, {timeout:g} s.") from None
    if rscript is None or done.returncode == NO_PACKAGE:
        raise Unavailable(f"unavailable: install R, then in it install.packages('{package}')")
    return done


def check_answer(done: subprocess.CompletedProcess) -> str:
    """What it printed; RuntimeError where it ended with an error."""
    if done.returncode:
        raise RuntimeError(f"Rscript ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def free_data(name: str, x, spec: MixtureSpec, covariance_types=("full", "tied", "diag", "spherical")) -> np.ndarray:
    """x checked, for a program that fits with nothing known; else NotSupported."""
    x = check_data(x, n_components=check_spec(spec).n_components)
    known = validate_spec(spec, x.shape[1]).known
    parts = [part for part in ("weights", "means", "covariances") if getattr(known, part) is not None]
    if parts:
        raise NotSupported(f"{name} cannot know {' and '.join(parts)} beforehand: use em.")
    if spec.covariance_type not in covariance_types:
        raise NotSupported(f"{name} has no {spec.covariance_type} covariances, only {', '.join(covariance_types)}.")
    return np.asarray(x, float)


def terms(
    start, tol, tol_is, *, reg_covar="none", threads="XLA's own", precision="float64", same_prior="no prior"
) -> dict[str, str]:
    """On which terms a program ran, for its row."""
    how = {"start": start, "reg_covar": reg_covar, "tol": tol, "tol_is": tol_is}
    return how | {"threads": threads, "precision": precision, "same_prior": same_prior}


def absolute(reg_covar) -> str:
    """What a program adds to variances, in words."""
    return f"{reg_covar} in squared units of x"


def em_evaluations(restarts, x, spec: MixtureSpec) -> int:
    """Component densities, n·K at a time, that EM from many starts has cost: k-means++'s distances count as much."""
    n_starts = restarts.fits.status.size
    return (restarts.effort.spent + 2 * n_starts) * len(x) * spec.n_components


def seed_of(key) -> int:
    """32 bits of a typed key, for programs with generators of their own."""
    return int(np.asarray(jax.random.key_data(check_key(key))).ravel()[-1])


def sklearn_fit(kind: str, key, x, spec: MixtureSpec, options, n_threads: int | None, **about):
    """scikit-learn's fitted GaussianMixture or BayesianGaussianMixture with these options, and its Fit.

    about: of `terms`.
    """
    require("sklearn")
    more = {"covariance_type": spec.covariance_type, "random_state": seed_of(key)}
    model = sklearn_model(kind, x, spec.n_components, options | more, n_threads)
    info = {"density_evaluations": model.density_evaluations_, "n_iter": int(model.n_iter_)}
    start, reg_covar = f"best of {options['n_init']} by {options['init_params']}", absolute(options["reg_covar"])
    info |= terms(start, options["tol"], reg_covar=reg_covar, threads=n_threads or "its own", **about)
    point = GMM(model.weights_, model.means_, model.covariances_, spec.covariance_type)
    return model, Fit(point, None, None, Status.CONVERGED if model.converged_ else Status.MAX_ITER, info)


def sklearn_model(kind: str, x, n_components: int, options, n_threads: int | None = None):
    """A fitted sklearn.mixture.GaussianMixture or BayesianGaussianMixture; its warnings can be read from the model.

    density_evaluations_ is how many component densities it took; k-means' distances at its start cannot be seen.
    """
    mixture, threadpoolctl = require("sklearn.mixture", "threadpoolctl")
    with threadpoolctl.threadpool_limits(n_threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge stands in converged_
        model = getattr(mixture, kind)(n_components=n_components, **options)
        densities, rows = model._estimate_log_prob, []

        def counted(x, **more):  # some versions say of which array library x is
            rows.append(len(x))
            return densities(x, **more)

        model._estimate_log_prob = counted
        model.fit(x)
    model.density_evaluations_ = sum(rows) * n_components
    return model
