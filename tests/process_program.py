"""One process of several for tests/test_places.py: `cases` on a sharded array, their answers in FOLDER/NUMBER.npz.

As a program: process_program.py FOLDER PORT N_PROCESSES NUMBER CASE...; with PORT 0 it is alone, with N_PROCESSES
devices.
"""

import sys
from pathlib import Path

import numpy as np

N_SAMPLES = 1008  # so many as divide among 2, 3 and 4 devices


def data():
    """(1008, 2): three groups that overlap, far from the origin, of unequal scale; and weights, some of them zero."""
    rng = np.random.default_rng(7)
    means, spread = np.array([[0.0, 0.0], [2.5, 1.0], [0.0, 3.5]]), np.array([1.0, 0.5, 1.5])
    labels = rng.choice(3, N_SAMPLES, p=[0.5, 0.2, 0.3])
    z = means[labels] + spread[labels, None] * rng.standard_normal((N_SAMPLES, 2))
    return z * [1.0, 20.0] + [50.0, -300.0], rng.integers(0, 3, N_SAMPLES).astype(float)


def cases():
    """name -> (spec, options) of fit_em_restarts."""
    from gmm_jax import Known, MixtureSpec
    from gmm_jax.em import EMConfig

    fifty, to_the_end = EMConfig(max_iter=50, tol=0.0), EMConfig(max_iter=400, tol=1e-7)
    weight = data()[1]
    labels = np.where((np.arange(N_SAMPLES) < 200) & (weight > 1.0), np.arange(N_SAMPLES) % 2, -1)  # of the first alone
    known = Known(weights=np.array([0.3, np.nan, np.nan]), means=np.array([[50.0, -300.0], *[[np.nan] * 2] * 2]))
    return {
        "full": (MixtureSpec(3), {"config": fifty}),
        "tied": (MixtureSpec(3, "tied"), {"config": fifty}),
        "diag": (MixtureSpec(3, "diag"), {"config": fifty, "sample_weight": weight}),
        "spherical": (MixtureSpec(3, "spherical"), {"config": fifty, "init": "random_points"}),
        "labels": (MixtureSpec(3), {"config": fifty, "labels": labels, "sample_weight": weight}),
        "known": (MixtureSpec(3, "full", known), {"config": fifty}),
        "tolerance": (MixtureSpec(3), {"config": to_the_end}),
        "accelerated": (MixtureSpec(3), {"config": EMConfig(max_iter=100, tol=1e-7, acceleration="lbfgs")}),
        "float32": (MixtureSpec(3), {"config": EMConfig(max_iter=20, tol=0.0)}),
    }


def rows(name):
    """x in the dtype of the case."""
    return data()[0].astype(np.float32 if name == "float32" else np.float64)


def over_devices(x):
    """The array divided over its rows, each process holding its own."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    along = NamedSharding(jax.make_mesh((jax.device_count(),), ("rows",)), PartitionSpec("rows"))
    return jax.make_array_from_callback(x.shape, along, lambda index: x[index])


def main(folder, port, n_processes, number, *names):
    """The cases, one after the other, and the sentences about what this process does wrong on purpose."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", 1 if int(port) else int(n_processes))
    if int(port):
        jax.distributed.initialize(f"127.0.0.1:{port}", int(n_processes), int(number), initialization_timeout=60)
    from gmm_jax.em import fit_em_restarts

    found = {}
    for name in names:
        spec, options = cases()[name]
        fits = fit_em_restarts(jax.random.key(3), over_devices(rows(name)), spec, n_restarts=3, **options).fits
        for leaf, value in (fits.gmm.__dict__ | fits._asdict()).items():
            if leaf not in ("gmm", "covariance_type"):
                found[f"{name}/{leaf}"] = value
    found["sentences"] = np.array(list(_mistakes(fit_em_restarts, int(number))))
    np.savez(Path(folder) / f"{number}.npz", **found)


def _mistakes(fit, number):
    import jax

    x, (spec, options) = rows("full"), cases()["full"]
    broken = np.where(np.arange(len(x))[:, None] == len(x) - 5, np.nan, x)
    for key, here in ((3, broken), (3 + number, x)):
        try:
            fit(jax.random.key(key), over_devices(here), spec, n_restarts=3, **options)
            yield "nothing"
        except ValueError as error:
            yield str(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
