"""Singular data are named with the features concerned, regular ones are not; the oracle is how the data were made."""

import jax
import numpy as np
import pytest

from gmm_jax.problems import datasets, dependent_features, doubtful_features, load, names
from gmm_jax.problems.checks import dependencies

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 3)) * [1.0, 1e-3, 1e4] + [1e6, 0.0, -5.0]

SINGULAR = {
    "constant": (np.c_[X, np.full(200, 0.1)], {"d": "is constant"}),
    "constant far away": (np.c_[np.full(200, 1e9 / 3), X], {"a": "is constant"}),
    "copy": (np.c_[X, X[:, 1]], {"d": "a copy of 'b'"}),
    "other units and offset": (np.c_[X, 32.0 + 1.8 * X[:, 2]], {"d": "a copy of 'c'"}),
    "negative": (np.c_[X, -X[:, 0]], {"d": "a copy of 'a'"}),
    "sum": (np.c_[X[:, :2] / [1.0, 1e-3], (X[:, :2] / [1.0, 1e-3]).sum(axis=1)], {"c": "combination of 'a', 'b'"}),
    "percentages": (100 * (w := RNG.dirichlet([1, 2, 3], 200)), {"c": "combination of 'a', 'b'"}),
    "copy in float32": (np.float32(np.c_[X[:, :1] - 1e6, 2.54 * (X[:, :1] - 1e6)]), {"b": "a copy of 'a'"}),
    "two of them": (np.c_[X, X[:, 0], np.ones(200)], {"d": "a copy of 'a'", "e": "is constant"}),
    "all constant": (np.ones((9, 1)), {"a": "is constant"}),
}


@pytest.mark.parametrize("case", SINGULAR)
@pytest.mark.parametrize("blocks", [False, True])
def test_singular_data_are_named_with_their_features(case, blocks):
    x, expected = SINGULAR[case]
    found = dependent_features((lambda: iter(np.array_split(x, 3))) if blocks else x, names="abcde")
    assert len(found) == len(expected)
    for (name, words), sentence in zip(expected.items(), found, strict=True):
        assert sentence.startswith(f"feature '{name}' ")
        assert words in sentence


@pytest.mark.parametrize("name", names())
def test_every_named_problem_is_regular(name):
    import jax

    assert dependent_features(load(name).sample(jax.random.key(0))[0]) == []


def test_what_is_constant_in_the_first_block_alone_is_not_called_so():
    x = np.c_[np.repeat([0.0, 1.0], 50), np.arange(100.0)]
    assert dependent_features(lambda: iter(np.split(x, 4))) == []
    nearly = np.c_[X[:, 0] - 1e6, X[:, 0] - 1e6 + 1e-3 * RNG.standard_normal(200)]
    assert dependent_features(nearly) == []


def test_fewer_rows_than_features_and_gaps():
    assert "9 rows cannot tell 20 features apart" in dependent_features(RNG.standard_normal((9, 20)))[0]
    gaps = np.c_[X, X[:, 0]]
    gaps[::3, 1] = np.nan
    assert "feature '3' is a multiple or a copy of '0'" in dependent_features(gaps)[0]
    assert dependent_features(np.full((5, 2), np.nan)) == []


def test_dependencies_are_those_of_the_covariance():
    x = np.random.default_rng(0).standard_normal((200, 5))
    x[:, 3] = 2.0 * x[:, 0] - x[:, 1] + 7.0
    assert dependencies(np.cov(x.T)) == {3: [0, 1]}
    x[:, 4] = 1.0
    assert dependencies(np.cov(x.T)) == {3: [0, 1], 4: []}
    assert dependencies(np.cov(x[:, :3].T)) == {}


def test_features_that_are_no_measurements_are_named():
    x = np.round(RNG.standard_normal((50, 4)), 2)
    x[:, 0] = RNG.permutation(50) + 7
    x[:, 1] = 10 * np.arange(50)
    x[[3, 9, 11], 2] = -999.0
    x[5, 3] = -999.0  # once: an outlier
    names = ["seven", "ID", "b", "c"]
    found = doubtful_features(x, names)
    assert [said.split(":")[0] for said in found] == [
        "column 'seven' numbers the rows, and is fitted like a measurement",
        "column 'ID' numbers the rows, and is fitted like a measurement",
        "-999 occurs 3 times in column 'b', far from all other values",
    ]
    assert "--na=-999 --missing marginalise" in found[2]


@pytest.mark.parametrize("name", names())
def test_measurements_are_not_doubted(name):
    x = load(name).sample(jax.random.key(0))[0]
    assert doubtful_features(x, [str(j) for j in range(x.shape[1])]) == []


@pytest.mark.parametrize("name", datasets.names())
def test_real_measurements_are_not_doubted(name):
    assert doubtful_features(datasets.load(name)[0], datasets.describe(name).columns) == []
