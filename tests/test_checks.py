"""What is asked of arguments: a sentence that names the argument, its value, and what to pass instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import random_gmm
from gmm_jax import (
    GMM,
    Known,
    MixtureSpec,
    Prior,
    em,
    log_prob,
    match,
    permute,
    predict,
    problems,
    responsibilities,
    sample,
)
from gmm_jax.mixture import check_data, check_labels, check_sample_weight, validate, validate_spec
from gmm_jax.mixture.checks import check_key, real_array
from gmm_jax.problems.generators import random_mixture

GMM_2 = random_gmm(0, 3, 2, "full")
KEYS = {
    "an integer": (0, "got int 0"),
    "None": (None, "got NoneType None"),
    "a generator": (np.random.default_rng(0), "got a Generator"),
    "a legacy key": (jax.random.PRNGKey(0), "a legacy key of uint32"),
    "another argument": (GMM_2, "got a GMM"),
    "many keys": (jax.random.split(jax.random.key(0), 3), r"an array of keys of shape \(3,\)"),
}


@pytest.mark.parametrize("case", KEYS)
def test_what_is_no_typed_key_is_named_with_the_remedy(case):
    key, said = KEYS[case]
    problem = problems.load(problems.names()[0])
    for call in (
        lambda: sample(key, GMM_2, 5),
        lambda: problem.sample(key, 5),
        lambda: problem.bayes_error(key),
        lambda: random_mixture(key, 2, 2),
    ):
        with pytest.raises(ValueError, match=rf"key must be a typed JAX key; .*{said}.*pass jax\.random\.key\(0\)"):
            call()


def test_keys_pass_also_where_they_are_traced():
    key = jax.random.key(0)
    assert check_key(key) is key
    many = jax.vmap(lambda key: sample(key, GMM_2, 5)[0])(jax.random.split(key, 4))
    np.testing.assert_array_equal(many[1], sample(jax.random.split(key, 4)[1], GMM_2, 5)[0])


def checked(prior):
    return validate_spec(MixtureSpec(2, prior=prior), 2)


SPECS = {
    "no component": (lambda: MixtureSpec(0), "n_components must be a positive integer; got 0"),
    "half a component": (lambda: MixtureSpec(2.5), "n_components must be a positive integer; got 2.5"),
    "an unknown type": (lambda: MixtureSpec(2, "diagonal"), "one of full, tied, diag, spherical; got .diagonal."),
    "a dict as known": (lambda: MixtureSpec(2, known={"means": 1}), r"known must be a Known; .*pass Known\(\.\.\.\)"),
    "None as known": (lambda: MixtureSpec(2, known=None), "known must be a Known; got None"),
    "a number as prior": (lambda: MixtureSpec(2, prior=3), "prior must be a Prior; got 3"),
    "a negative concentration": (lambda: checked(Prior(correlation=-1.0)), "prior.correlation must be a pos.*got -1.0"),
    "another object": (lambda: checked(Prior(correlation=object())), "prior.correlation must be a pos.*got <object"),
    "another spec": (lambda: validate_spec({"n_components": 2}, 2), "spec must be a MixtureSpec; got dict: pass"),
    "weights of another K": (lambda: GMM(np.ones(2) / 2, np.zeros((3, 2)), np.ones((3, 2, 2))), r"shape \(3,\)"),
    "another type's Σ": (lambda: GMM(np.ones(1), np.zeros((1, 2)), np.ones((1, 2))), r"shape \(1, 2, 2\).*'full'"),
    "one feature": (lambda: GMM(np.ones(1), np.zeros(1), np.ones(1)), r"means must have shape \(K, D\)"),
    "a type that is none": (lambda: GMM(np.ones(1), np.zeros((1, 1)), np.ones((1, 1)), "dense"), "got 'dense'"),
}


@pytest.mark.parametrize("case", SPECS)
def test_records_are_checked_where_they_are_written(case):
    build, said = SPECS[case]
    with pytest.raises(ValueError, match=said):
        build()


def test_jax_rebuilds_records_without_a_check():
    """Around placeholders, batched leaves and tracers."""
    leaves, tree = jax.tree.flatten((GMM_2, MixtureSpec(3, known=Known(means=np.zeros((3, 2)))), Prior()))
    rebuilt = jax.tree.unflatten(tree, [object()] * len(leaves))
    assert jax.tree.structure(rebuilt) == tree
    many = jax.tree.map(lambda leaf: np.stack([leaf] * 4), GMM_2)
    assert jax.vmap(log_prob, in_axes=(0, None))(many, np.zeros((5, 2))).shape == (4, 5)
    assert jax.eval_shape(log_prob, GMM_2, jnp.zeros((5, 2))).shape == (5,)
    assert [str(path[0]) for path, _ in jax.tree_util.tree_leaves_with_path(GMM_2)] == [
        ".weights",
        ".means",
        ".covariances",
    ]


ARGUMENTS = {
    "swapped": (lambda f, x: f(x, GMM_2), "gmm must be a GMM or a result that holds one; got a ndarray"),
    "two mixtures": (lambda f, x: f(GMM_2, GMM_2), "x must be an array of rows; got a GMM"),
    "another D": (lambda f, x: f(GMM_2, x[:, :1]), r"x must have shape \(N, 2\), as the mixture has it; got \(60, 1\)"),
    "one row": (lambda f, x: f(GMM_2, x[0]), r"got \(2,\): one row is x\[None\]"),
    "a file": (lambda f, x: f(GMM_2, "rows.csv"), "x must be an array; got 'rows.csv': read the file first"),
    "many mixtures": (lambda f, x: f(jax.tree.map(lambda a: a[None], GMM_2), x), "gmm must be one mixture.*jax.vmap"),
}


@pytest.mark.parametrize("function", [log_prob, responsibilities, predict])
@pytest.mark.parametrize("case", ARGUMENTS)
def test_exchanged_and_unfit_arguments_are_a_sentence(case, function, x):
    call, said = ARGUMENTS[case]
    with pytest.raises(ValueError, match=said):
        call(function, x)


FITS = {
    "a start of another kind": (
        lambda x: em.fit_em(x, x),
        "init must be a GMM or a result that holds one; got a ndarray",
    ),
    "rows of another kind": (lambda x: em.fit_em("rows.csv", GMM_2), "x must be an array; got 'rows.csv'"),
    "rows of another width": (lambda x: em.fit_em(x[:, :1], GMM_2), r"x must have shape \(N, 2\)"),
    "known of another kind": (lambda x: em.fit_em(x, GMM_2, known={}), "known must be a Known; got dict"),
    "another history": (lambda x: em.iterates(x, GMM_2, n_iter=2, known=3), "known must be a Known; got 3"),
    "config": (lambda x: em.iterates(x, GMM_2, n_iter=2, config=None), "config must be a EMConfig; got None"),
    "bootstrap": (
        lambda x: em.bootstrap(jax.random.key(0), x, GMM_2, MixtureSpec(3), n_resamples=2, config={}),
        "config must be a EMConfig; got dict",
    ),
    "tol": (
        lambda x: em.fit_em_restarts(jax.random.key(0), x, MixtureSpec(2), config=em.EMConfig(tol="small")),
        "config.tol must be finite and not negative; got 'small'",
    ),
    "match": (lambda x: match(x, GMM_2), "gmm must be a GMM or a result that holds one; got a ndarray"),
    "reference": (lambda x: match(GMM_2, None), "reference must be a GMM or a result that holds one; got a NoneType"),
    "spec": (lambda x: match(GMM_2, GMM_2, 3), "spec must be a MixtureSpec; got 3"),
    "another K": (lambda x: match(GMM_2, GMM_2, MixtureSpec(2)), "spec has 2 components, but gmm has 3"),
    "order": (lambda x: permute(x, [0, 1]), "gmm must be a GMM or a result that holds one; got a ndarray"),
    "type": (lambda x: MixtureSpec(2, ["full"]), r"covariance_type must be one of .*; got \['full'\]"),
}


@pytest.mark.parametrize("case", FITS)
def test_arguments_of_another_kind_are_a_sentence(case, x):
    call, said = FITS[case]
    with pytest.raises(ValueError, match=said):
        call(x)


def test_results_stand_for_their_mixture(x):
    found = em.fit_em(x, GMM_2)
    np.testing.assert_array_equal(match(found, found), [0, 1, 2])


def test_a_mixture_in_another_byte_order_is_the_same_mixture(x):
    foreign = jax.tree.map(lambda leaf: np.asarray(leaf).astype(">f8"), GMM_2)
    np.testing.assert_array_equal(log_prob(foreign, x.astype(">f8")), log_prob(GMM_2, x))
    np.testing.assert_array_equal(em.fit_em(x.astype(">f8"), foreign).gmm.means, em.fit_em(x, GMM_2).gmm.means)


def test_lists_and_whole_numbers_are_rows_too():
    rows = [[0, 1], [2, 3]]
    np.testing.assert_array_equal(log_prob(GMM_2, rows), log_prob(GMM_2, np.array(rows, float)))
    np.testing.assert_array_equal(log_prob(GMM_2, jnp.array(rows)), log_prob(GMM_2, np.array(rows, float)))


@pytest.mark.parametrize("kind", [">f4", "<f4", ">f8", ">i4"])
def test_byte_order_is_no_dtype(kind, x):
    found = check_data(x.astype(kind))
    assert found.dtype == (np.float32 if kind.endswith("f4") else np.float64)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, x.astype(kind).astype(found.dtype))


def test_what_is_masked_is_missing_and_never_its_filler(x):
    masked = np.ma.array(np.where(x > 2.0, 1e6, x), mask=x > 2.0)
    row, column = np.argwhere(x > 2.0)[0]
    with pytest.raises(ValueError, match=f"the first nan at row {row}, column {column}"):
        check_data(masked)
    np.testing.assert_array_equal(check_data(masked, missing="marginalise"), np.where(x > 2.0, np.nan, x))
    np.testing.assert_array_equal(check_data(np.ma.array(x)), x)
    with pytest.raises(ValueError, match="row 1 has nan"):
        check_labels(np.ma.array([0, 1, 2], mask=[0, 1, 0]), 3, 3)
    with pytest.raises(ValueError, match="row 2 has nan"):
        check_sample_weight(np.ma.array([1, 1, 2], mask=[0, 0, 1]), 3)
    with pytest.raises(ValueError, match="weights must be finite"):
        validate(GMM(np.ma.array([0.5, 0.5], mask=[0, 1]), np.zeros((2, 1)), np.ones((2, 1, 1))))


class Table:
    """What NumPy sees of a data frame with a column of text."""

    columns = ("height", "name")

    def __getitem__(self, column):
        return {"height": [1.0, 2.0], "name": ["a", "b"]}[column]

    def __array__(self, dtype=None, copy=None):
        return np.array([[1.0, "a"], [2.0, "b"]], object)


def test_a_column_of_text_is_named():
    with pytest.raises(ValueError, match="x must hold real numbers; got dtype object in column name: convert or drop"):
        real_array(Table(), "x")


def test_all_of_many_fits_has_the_dtype_of_the_data(x):
    many = em.fit_em_restarts(jax.random.key(0), [x.astype(">f4")] * 2, MixtureSpec(2), n_restarts=2)
    assert {leaf.dtype for leaf in jax.tree.leaves((many.best.gmm, many.log_likelihood))} == {np.dtype(np.float32)}


def test_data_frames_are_their_numbers_and_a_column_of_text_is_named():
    pandas = pytest.importorskip("pandas")
    nullable = pandas.DataFrame({"a": pandas.array([1, None], dtype="Int64"), "b": [0.5, 1.5]})
    np.testing.assert_array_equal(check_data(nullable, missing="marginalise"), [[1.0, 0.5], [np.nan, 1.5]])
    with pytest.raises(ValueError, match="in column day: convert or drop"):
        check_data(pandas.DataFrame({"a": [1.0, 2.0], "day": ["2024-05-01", "2024-05-02"]}))
