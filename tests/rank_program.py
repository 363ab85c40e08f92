"""A rank for tests/test_sharded.py: some of `cases` on this rank's rows, and what came of them in FOLDER/rank*.npz.

As a program: rank_program.py FOLDER N_GROUPS N_DEVICES CASE...; unless N_DEVICES is 0 it is alone, with so many.
"""

import sys
from pathlib import Path

import numpy as np

N_SAMPLES = 1003  # no number of devices divides it


def data():
    """(1003, 2): three groups that overlap, far from the origin, of unequal scale; and weights, some of them zero."""
    rng = np.random.default_rng(7)
    means, spread = np.array([[0.0, 0.0], [2.5, 1.0], [0.0, 3.5]]), np.array([1.0, 0.5, 1.5])
    labels = rng.choice(3, N_SAMPLES, p=[0.5, 0.2, 0.3])
    z = means[labels] + spread[labels, None] * rng.standard_normal((N_SAMPLES, 2))
    return z * [1.0, 20.0] + [50.0, -300.0], rng.integers(0, 3, N_SAMPLES).astype(float)


def cases():
    """name -> (spec, options): the options of fit_em_restarts that fit_em_sharded shares."""
    from gmm_jax import Known, MixtureSpec
    from gmm_jax.em import EMConfig

    fifty, to_the_end = EMConfig(max_iter=50, tol=0.0), EMConfig(max_iter=400, tol=1e-7)
    weight = data()[1]
    labels = np.where((np.arange(N_SAMPLES) < 200) & (weight > 1.0), np.arange(N_SAMPLES) % 2, -1)  # of rank 0 alone
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


def main(folder, n_groups, n_devices, *names):
    """The cases, one after the other, and the sentences about what this rank does wrong on purpose."""
    import jax

    from gmm_jax.shell import configure_jax, join_ranks

    configure_jax()
    if int(n_devices):
        jax.config.update("jax_num_cpu_devices", int(n_devices))
    else:
        join_ranks()
    from gmm_jax.em import fit_em_sharded, local_rows, mesh_of

    mesh, found = mesh_of(int(n_groups)), {}
    mine = local_rows(N_SAMPLES, mesh)
    for name in names:
        spec, options = cases()[name]
        of_rows = {option: options[option][mine] for option in ("sample_weight", "labels") if option in options}
        fit = fit_em_sharded(jax.random.key(3), rows(name)[mine], spec, n_restarts=3, mesh=mesh, **options | of_rows)
        for leaf, value in (fit.fits.gmm.__dict__ | fit.fits._asdict()).items():
            if leaf not in ("gmm", "covariance_type"):
                found[f"{name}/{leaf}"] = value
    rank = jax.process_index()
    found["sentences"] = np.array(list(_mistakes(fit_em_sharded, rank, rows("full")[mine], cases()["full"], mesh)))
    np.savez(Path(folder) / f"rank{rank}.npz", **found)


def _mistakes(fit, rank, x, case, mesh):
    import jax

    spec, options = case
    broken = np.where(np.arange(len(x))[:, None] == 5, np.nan, x) if rank == 1 else x
    for key, here in ((3, broken), (3 + rank, x)):
        try:
            fit(jax.random.key(key), here, spec, n_restarts=3, mesh=mesh, **options)
            yield "nothing"
        except ValueError as error:
            yield str(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
