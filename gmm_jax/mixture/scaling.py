"""What every entry point does before and after: check the data, centre and scale them, map the answer back.

In float64 NumPy, because compilation of eager operations is slow and float32 cannot hold an offset of 1e8.
With s the scale and c the centre of each feature: z = (x − c) / s, μ = c + s μ_z, Σ = s Σ_z s,
log p(x) = log p(z) − Σ_j log s_j. This makes every fit affine equivariant, in float32 too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from .annotations import Annotations, check_missing
from .checks import first_of, float_array, real_array
from .covariance import structure
from .forks import check_process
from .gmm import GMM, variances_of
from .programs import make_room
from .spec import Hyperparameters, Known, MixtureSpec

RELATIVE_RIDGE = 1e-6  # of each feature's variance
QUIET = np.errstate(all="ignore")  # what under- or overflows is harmless or checked, whatever the caller has set


class Scaling(NamedTuple):
    """Centre and scale of each feature, and what the dtype of the answer is."""

    centre: Float[np.ndarray, "D"]
    scale: Float[np.ndarray, "D"]  # one common number, repeated, for spherical
    constant: tuple[int, ...]  # columns without any spread: their scale is 1
    dtype: np.dtype  # of the data that came in, and so of the answer that goes out
    coarse: tuple[int, ...] = ()  # columns whose spread their dtype hardly resolves at their offset
    names: tuple[str, ...] = ()  # of the columns, where the data have any

    @property
    def log_volume(self) -> float:
        """Σ_j log s_j: what a sample's log density loses when it is read in the units of the data."""
        return float(np.sum(np.log(self.scale)))

    @property
    def remarks(self) -> list[str]:
        """What the user should know, in sentences without a full stop."""
        constant = [j for j in self.constant if j not in self.coarse]
        dropped = "x is constant in column(s) {}, whose variance is not identified: drop them"
        rounded = f"x varies in column(s) {{}} by less than a few steps of {self.dtype} at their offset: subtract it "
        both = ((dropped, constant), (rounded + "before numbers are rounded to that type, or drop them", self.coarse))
        return [sentence.format(self.named(columns)) for sentence, columns in both if columns]

    def named(self, columns: Sequence[int]) -> str:
        """Columns by their names, or else by their numbers from 0."""
        return ", ".join(repr(self.names[j]) if self.names else str(j) for j in columns)

    def log_volume_of(self, n_samples: float, rows: Annotations) -> float:
        """What the log-likelihood of all rows loses; of missing entries none. n_samples is the sum of the weights."""
        if rows.groups is None:
            return n_samples * self.log_volume
        members, seen = rows.groups
        weight = np.ones(members.shape) if rows.weight is None else np.asarray(rows.weight, float)[members]
        return float(np.sum(np.where(members >= 0, weight, 0.0), axis=1) @ seen @ np.log(self.scale))

    def rows_inward(
        self, x: Float[np.ndarray, "N D"], out: Float[np.ndarray, "N D"] | None = None
    ) -> Float[np.ndarray, "N D"]:
        """Rows of data, standardised in float64, in the dtype that JAX computes in, or into `out`; NaN stay NaN."""
        out = np.empty(x.shape, jax.dtypes.canonicalize_dtype(self.dtype)) if out is None else out
        largest = np.finfo(out.dtype).max
        with np.errstate(all="ignore"):
            for j in range(x.shape[1]):  # NumPy is several times slower along rows of few numbers
                column = np.subtract(x[:, j], self.centre[j], dtype=np.float64) / self.scale[j]
                if out.dtype == np.float32:
                    column = np.clip(column, -largest, largest)
                out[:, j] = np.where(np.isnan(column), column, 0.0) if j in self.constant else column
        return out

    @QUIET
    def known_inward(self, spec: MixtureSpec) -> Known:
        """What the spec knows, in standardised units."""
        weights, means, covariances = spec.known.weights, spec.known.means, spec.known.covariances
        if covariances is not None:
            covariances = structure(spec.covariance_type).rescale(covariances, 1.0 / self.scale)
        return Known(weights, None if means is None else (means - self.centre) / self.scale, covariances)

    @QUIET
    def inward(self, gmm: GMM) -> GMM:
        """A mixture in the units of the data, standardised; leading axes kept."""
        gmm = jax.tree.map(lambda leaf: np.asarray(leaf, float), gmm)
        covariances = structure(gmm.covariance_type).rescale(gmm.covariances, 1.0 / self.scale)
        return replace(gmm, means=(gmm.means - self.centre) / self.scale, covariances=covariances)

    @QUIET
    def outward(self, gmm: GMM) -> GMM:
        """A standardised mixture in the units and the dtype of the data; leading axes kept."""
        gmm = jax.tree.map(lambda leaf: np.asarray(leaf, float), gmm)
        covariances = structure(gmm.covariance_type).rescale(gmm.covariances, self.scale)
        gmm = replace(gmm, means=gmm.means * self.scale + self.centre, covariances=covariances)
        return jax.tree.map(lambda leaf: leaf.astype(self.dtype), gmm)

    def ridge_inward(self, reg_covar) -> Float[np.ndarray, "D"]:
        """An absolute reg_covar, in the squared units of the data, standardised; None is 1e-6 of the variance."""
        if reg_covar is None:
            return np.full(self.scale.shape, RELATIVE_RIDGE)
        ridge = real_array(reg_covar, "reg_covar").astype(float)
        if ridge.shape not in ((), self.scale.shape):
            raise ValueError(f"reg_covar must be a number or have shape {self.scale.shape}; got shape {ridge.shape}.")
        if not np.all(np.isfinite(ridge)) or np.any(ridge < 0.0):
            raise ValueError(f"reg_covar must be finite and not negative; got {reg_covar!r}.")
        return np.broadcast_to(ridge, self.scale.shape) / self.scale**2

    @QUIET
    def prior_inward(self, prior: Hyperparameters, covariance_type: str) -> Hyperparameters:
        """A semi-conjugate prior in the units of the data, standardised; its normalising constants change."""
        stretch = np.outer(self.scale, self.scale)
        return Hyperparameters(
            alpha=np.asarray(prior.alpha, float),
            loc=(np.asarray(prior.loc, float) - self.centre) / self.scale,
            precision=np.asarray(prior.precision, float) * stretch,
            dof=np.asarray(prior.dof, float),
            size=structure(covariance_type).rescale(np.asarray(prior.size, float), 1.0 / self.scale),
            size_dof=None if prior.size_dof is None else np.asarray(prior.size_dof, float),
        )


def check_data(x, *, n_components: int = 1, name: str = "x", missing: str | None = None) -> np.ndarray:
    """x as a finite (N, D) float array in NumPy; integers, float16 and data frames are converted.

    With missing="marginalise" NaN may stand anywhere. A ValueError names what is wrong, where it is, and what to do.
    """
    check_process()
    make_room()
    x = float_array(x, name)
    if x.ndim == 1:
        raise ValueError(f"{name} must be two-dimensional (N, D); got shape {x.shape}: use {name}.reshape(-1, 1).")
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] == 0:
        raise ValueError(f"{name} must be two-dimensional (N, D) and not empty; got shape {x.shape}.")
    check_missing(missing)
    bad = np.isinf(x) if missing else ~np.isfinite(x)
    if bad.any():
        row, column = first_of(bad)
        raise ValueError(
            f"{name} must be finite; {int(bad.sum())} of {x.size} values are not, the first {x[row, column]} at row "
            f"{row}, column {column}: drop or impute those rows"
            + (', or fit with missing="marginalise".' if np.isnan(x[row, column]) else ".")
        )
    if x.shape[0] < n_components:
        raise ValueError(
            f"n_components={n_components} is more than the {x.shape[0]} row{'s' * (x.shape[0] != 1)} of {name}: lower "
            "n_components or add data."
        )
    return x


def check_sample_weight(sample_weight, n_samples: int) -> np.ndarray | None:
    """sample_weight as (N,) floats that are finite, not negative, and not all zero; None stays None."""
    if sample_weight is None:
        return None
    weight = real_array(sample_weight, "sample_weight").astype(float)
    if weight.shape != (n_samples,):
        raise ValueError(f"sample_weight must have shape ({n_samples},), one a row of x; got {weight.shape}.")
    if not np.all(np.isfinite(weight)) or np.any(weight < 0.0) or not np.any(weight > 0.0):
        row = int(np.argmax(~np.isfinite(weight) | (weight < 0.0)))
        raise ValueError(
            f"sample_weight must be finite, not negative and not all zero; row {row} has {weight[row]}: "
            "use 0 to leave a row out."
        )
    return weight


def check_labels(labels, n_samples: int, n_components: int) -> Int[np.ndarray, "N"] | None:
    """labels as (N,) integers from -1 (unknown) to K − 1; None where none is known."""
    if labels is None:
        return None
    labels = real_array(labels, "labels")
    if labels.shape != (n_samples,):
        raise ValueError(f"labels must have shape ({n_samples},), one a row of x, -1 if unknown; got {labels.shape}.")
    whole = np.isfinite(labels) & (labels == np.round(labels))
    wrong = ~(whole & (labels >= -1) & (labels < n_components))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"labels must be integers from 0 to n_components - 1 = {n_components - 1}, or -1 where unknown; row {row} "
            f"has {labels[row]}: number the classes from 0, or raise n_components."
        )
    return labels.astype(np.int32) if np.any(labels >= 0) else None


@QUIET
def standardise(x: np.ndarray, spec: MixtureSpec, sample_weight=None) -> tuple[np.ndarray, Scaling]:
    """Standardised data in JAX's compute dtype, and the map back. `x` has passed check_data.

    Where a column has NaN, its centre and scale are those of its other entries.
    """
    weight = np.ones(x.shape[0]) if sample_weight is None else sample_weight
    columns = [_centre_and_deviation(x[:, j], weight, j) for j in range(x.shape[1])]
    scaling = scaling_of(*map(np.array, zip(*columns, strict=True)), spec, x.dtype)
    return scaling.rows_inward(x), scaling


def scaling_of(centre, deviation, constant, spec: MixtureSpec, dtype) -> Scaling:
    """The scaling from each column's mean, standard deviation, and whether it is constant; all (D,)."""
    step = np.spacing(np.abs(centre).astype(dtype)).astype(float)
    coarse = (deviation > 0.0) & (deviation < 4.0 * step)  # a variance is off by a two-hundredth of itself, or more
    scale = np.where(constant, 1.0, deviation)
    if spec.covariance_type == "spherical":
        varying = scale[~constant] if not constant.all() else np.ones(1)
        common = np.max(varying) * np.sqrt(np.mean((varying / np.max(varying)) ** 2))
        scale = np.full(scale.shape, common)
    limits = np.finfo(dtype)  # the answer's variances must fit
    outside = ~((scale <= np.sqrt(float(limits.max)) / 16.0) & (scale >= 16.0 * np.sqrt(float(limits.tiny))))
    if outside.any():
        column = int(np.argmax(outside))
        raise ValueError(
            f"x column {column} has standard deviation {scale[column]:.3g}, whose square {dtype} cannot hold: "
            "rescale the column" + (" or pass float64 data." if dtype == np.float32 else ".")
        )
    constant, coarse = (tuple(int(j) for j in np.flatnonzero(mask)) for mask in (constant, coarse))
    return Scaling(centre, scale, constant, np.dtype(dtype), coarse)


@QUIET
def standard_units(gmm: GMM, dtype, others: GMM | None = None) -> tuple[GMM, Scaling]:
    """The mixture, or others, in units in which its own mean is 0 and its variances 1, and the map back.

    What is returned has the dtype that JAX computes in; leading axes of the others are kept.
    """
    weights, means = np.asarray(gmm.weights, float), np.asarray(gmm.means, float)
    centre = weights @ means
    scale = np.sqrt(weights @ (variances_of(gmm) + (means - centre) ** 2))
    if gmm.covariance_type == "spherical":
        scale = np.full(scale.shape, np.sqrt(np.mean(scale**2)))
    frame = Scaling(centre, scale, (), np.dtype(dtype))
    compute_dtype = jax.dtypes.canonicalize_dtype(dtype)
    inner = frame.inward(gmm if others is None else others)
    return jax.tree.map(lambda leaf: leaf.astype(compute_dtype), inner), frame


def _centre_and_deviation(column, weight, j):
    """Mean and sd of what was seen of column j, and whether it is constant; a column at a time, as in rows_inward."""
    wide, dtype = column.astype(np.float64), column.dtype
    seen = ~np.isnan(wide)
    if not seen.all():
        if not seen.any():
            raise ValueError(f"x column {j} holds no number, only NaN: drop the column.")
        wide, weight = wide[seen], weight[seen]
    share = weight / np.sum(weight)
    centre = wide[0] + share @ (wide - wide[0])  # about a row: the mean of a constant column is exact
    off = wide - centre
    reach = np.max(np.abs(off))
    # relative to the offset: what is left of a constant column is rounding
    constant = reach <= 4.0 * np.finfo(dtype).eps * np.max(np.abs(wide))
    safe = 1.0 if constant else reach
    return centre, safe * np.sqrt(share @ (off / safe) ** 2), constant
