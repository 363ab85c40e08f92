"""Rows of a file, block by block: the same numbers as the whole file, and a file that is not whole is named."""

import numpy as np
import pytest

from gmm_jax.problems import blocks, open_blocks, text_table


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks even of small files."""
    monkeypatch.setattr(blocks, "BLOCK_NUMBERS", 100)
    monkeypatch.setattr(blocks, "FEWEST_ROWS", 7)
    monkeypatch.setattr(text_table, "ROWS_AT_A_TIME", 16)


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((200, 3))


def write(path, rows):
    """The same table in the format that the suffix names."""
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(dict(zip("abc", rows.T, strict=True))), path)
    else:
        path.write_text("a,b,c\n" + "\n".join(",".join(repr(float(v)) for v in row) for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".csv"])
def test_blocks_are_the_whole_file_at_every_call(suffix, rows, tmp_path):
    table = open_blocks(write(tmp_path / f"x{suffix}", rows))
    assert table.names == (("0", "1", "2") if suffix == ".npy" else ("a", "b", "c"))
    for _ in range(2):
        parts = list(table())
        assert len(parts) > 3
        np.testing.assert_array_equal(np.concatenate(parts), rows)
    chosen = open_blocks(table.path, columns=[table.names[2], "0"])
    np.testing.assert_array_equal(np.concatenate(list(chosen())), rows[:, [2, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_kind_and_order(dtype, order, rows, tmp_path):
    table = np.asarray(rows > 0 if dtype is np.bool_ else 10 * rows, dtype=dtype, order=order)
    parts = list(open_blocks(write(tmp_path / "x.npy", table))())
    assert parts[0].dtype == dtype
    np.testing.assert_array_equal(np.concatenate(parts), table)


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_file_that_is_cut_off_is_named(suffix, rows, tmp_path):
    path = write(tmp_path / f"x{suffix}", rows)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=rf"x{suffix} is no whole"):
        open_blocks(path)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_is_cut_off_while_it_is_read_is_named_with_the_rows(order, tmp_path):
    path = write(tmp_path / "x.npy", np.zeros((2000, 4), order=order))
    reading = open_blocks(path)()
    next(reading)
    with open(path, "r+b") as file:
        file.truncate(40_000)
    with pytest.raises(ValueError, match=r"x.npy is cut off within rows \d+ to \d+"):
        list(reading)


def test_a_file_whose_shape_changes_is_named(rows, tmp_path):
    path = write(tmp_path / "x.npy", rows)
    table = open_blocks(path)
    write(path, rows[:100])
    with pytest.raises(ValueError, match=r"x.npy has changed since it was opened"):
        list(table())


WRONG = {
    "a vector": (lambda path: np.save(path, np.zeros(5)), r"must hold one table of shape \(rows, columns\)"),
    "no rows": (lambda path: np.save(path, np.zeros((0, 2))), "not empty"),
    "objects": (lambda path: np.save(path, np.array([[None]]), allow_pickle=True), "no whole .npy file of numbers"),
    "text": (lambda path: path.write_text("1,2\n"), "no whole .npy file of numbers"),
    "nothing": (lambda path: path.write_bytes(b""), "no whole .npy file of numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_table_of_numbers_is_refused(case, tmp_path):
    make, sentence = WRONG[case]
    make(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=sentence):
        open_blocks(tmp_path / "x.npy")


def test_parquet_without_pyarrow_says_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs pyarrow: pip install pyarrow"):
        open_blocks(tmp_path / "x.parquet")


def test_a_column_of_words_in_parquet_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1.0, None], "b": ["x", "y"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="column 'b' holds string, not numbers"):
        list(open_blocks(tmp_path / "x.parquet")())
    np.testing.assert_array_equal(next(open_blocks(tmp_path / "x.parquet", columns=["a"])()), [[1.0], [np.nan]])


COLUMNS = {  # the type in the file, and in a block
    "float32": "float32",
    "float64": "float64",
    "int8": "int8",
    "bool": "float64",
    "decimal": "float64",
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_parquet_columns_of_numbers_of_every_kind(kind, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    of = pyarrow.decimal128(5, 2) if kind == "decimal" else pyarrow.type_for_alias(kind)
    for name, values in {"whole": [0, 1, 1], "gaps": [0, None, 1]}.items():
        column = pyarrow.array(values, pyarrow.int8()).cast(of)
        parquet.write_table(pyarrow.table({"a": column, "b": column}), tmp_path / f"{name}.parquet")
    whole, gaps = (next(open_blocks(tmp_path / f"{name}.parquet")()) for name in ("whole", "gaps"))
    assert whole.dtype == COLUMNS[kind]
    np.testing.assert_array_equal(whole, [[0, 0], [1, 1], [1, 1]])
    np.testing.assert_array_equal(gaps, [[0, 0], [np.nan, np.nan], [1, 1]])


def test_a_parquet_file_that_makes_no_table_is_named(rows, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "x.parquet"
    for names, said in ((["a", "a"], "it has a, a"), ([], "it has none")):
        parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([1.0])] * len(names), names=names), path)
        with pytest.raises(ValueError, match=f"x.parquet must have columns of different names; {said}"):
            open_blocks(path)
    parquet.write_table(pyarrow.table({"a": rows[:, 0]}), path, use_dictionary=False, compression="gzip")
    content = bytearray(path.read_bytes())
    content[100:500] = bytes(400)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="is damaged"):
        list(open_blocks(path)())


def test_a_bad_field_far_into_a_text_file_has_its_line(rows, tmp_path):
    path = write(tmp_path / "x.csv", rows)
    lines = path.read_text().splitlines()
    lines[150] = "1,2,seven"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="line 151, column 'c': 'seven' is no number"):
        list(open_blocks(path)())
    lines[150] = "1,2"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="line 151: 2 fields where the first line has 3"):
        list(open_blocks(path)())
