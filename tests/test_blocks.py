"""Rows of a file, block by block: the same numbers as the whole file, and a file that is not whole is named."""

import gzip
import os
import sys
import threading

import numpy as np
import pytest

from gmm_jax.problems import TextFormat, formats, open_blocks, open_dask, text_table


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks even of small files."""
    monkeypatch.setattr(formats, "BLOCK_NUMBERS", 100)
    monkeypatch.setattr(formats, "FEWEST_ROWS", 7)
    monkeypatch.setattr(text_table, "BYTES_AT_A_TIME", 1000)


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


@pytest.mark.parametrize("dtype", [np.float32, ">f4", np.float64, np.int64, np.bool_])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_kind_and_order(dtype, order, rows, tmp_path):
    table = np.asarray(rows > 0 if dtype is np.bool_ else 10 * rows, dtype=dtype, order=order)
    parts = list(open_blocks(write(tmp_path / "x.npy", table))())
    assert parts[0].dtype == np.dtype(dtype).newbyteorder("=")
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
    "a number": (lambda path: np.save(path, np.zeros(())), r"must hold one table of shape \(rows, columns\)"),
    "no rows": (lambda path: np.save(path, np.zeros((0, 2))), "not empty"),
    "objects": (lambda path: np.save(path, np.array([[None]]), allow_pickle=True), "no whole .npy file of numbers"),
    "words": (lambda path: np.save(path, np.array([["a"]])), "holds <U1, not real numbers"),
    "complex": (lambda path: np.save(path, np.ones((3, 2), complex)), "holds complex128, not real numbers"),
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
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"needs pyarrow: pip install 'gmm-jax\[parquet\]'"):
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


# ---- pipes


@pytest.mark.parametrize("n", [500, 30_000])
@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".csv"])
def test_a_pipe_gives_every_row_at_every_call(n, suffix, tmp_path):
    """A named pipe can be read once; what is sniffed from it must not be lost."""
    rows = np.random.default_rng(1).standard_normal((n, 3))
    content = write(tmp_path / f"x{suffix}", rows).read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(content))
    writer.start()
    table = open_blocks(tmp_path / "pipe")
    writer.join()
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(table())), rows)
    assert table.n_rows == n
    copy = os.fspath(table.path)
    table.close()
    assert not os.path.exists(copy)


def test_what_is_wrong_in_a_pipe_has_the_name_of_the_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("a,b\n1,2\n3,x\n"))
    writer.start()
    table = open_blocks(tmp_path / "pipe")
    writer.join()
    with pytest.raises(ValueError, match=r"pipe, line 3, column 'b': 'x' is no number"):
        list(table())


# ---- text in parts


@pytest.mark.parametrize("n_bytes", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n \n"])
@pytest.mark.parametrize("last", [True, False])
def test_parts_of_a_text_file_are_its_rows_wherever_it_is_cut(n_bytes, end, last, tmp_path, monkeypatch):
    monkeypatch.setattr(text_table, "BYTES_AT_A_TIME", n_bytes)
    lines = ["\ufeffä,b", *(f"{i},{i * i}" for i in range(40))]
    (tmp_path / "x.csv").write_bytes((end.join(lines) + (end if last else "")).encode())
    table = open_blocks(tmp_path / "x.csv")
    assert table.names == ("ä", "b")
    assert table.n_rows == 40
    np.testing.assert_array_equal(np.concatenate(list(table())), [[i, i * i] for i in range(40)])


TABLES = {  # how it is written -> its bytes, its columns, its rows
    "semicolons and decimal commas": ("a;b\n1,5;2,5\n3,5;4\n", "ab", [[1.5, 2.5], [3.5, 4.0]]),
    "one column with decimal commas": ("height\n1,5\n2,25\n", ["height"], [[1.5], [2.25]]),
    "blanks and decimal commas": ("1,5 2,5\n3,5  4,5\n", "01", [[1.5, 2.5], [3.5, 4.5]]),
    "quoted decimal commas": ('a,b\n"1,5","2,25"\n"2,0","3,5"\n', "ab", [[1.5, 2.25], [2.0, 3.5]]),
    "Latin-1": ("höhe;breite\n1,5;2\n".encode("latin-1"), ["höhe", "breite"], [[1.5, 2.0]]),
    "UTF-16": ("a\tb\n1,5\t2\n".encode("utf-16"), "ab", [[1.5, 2.0]]),
    "comments": ("# made by\n#\na,b\n1,2\n # and\n3,4\n", "ab", [[1, 2], [3, 4]]),
    "a separator at the end": ("a;b;\n1;2;\n3;4;\n", "ab", [[1, 2], [3, 4]]),
    "a separator at the end of rows": ("a,b\n1,2,\n3,4,\n", "ab", [[1, 2], [3, 4]]),
    "thousands": ('a\tb\n1,234.5\t2\n2,000\t"3"\n', "ab", [[1234.5, 2], [2000, 3]]),
    "quoted thousands": ('a,b\n"1,234",2\n"2,000",3\n', "ab", [[1234, 2], [2000, 3]]),
    "European thousands": ("a;b\n1.234,5;2\n2.000;3\n", "ab", [[1234.5, 2], [2000, 3]]),
    "decimal points beside semicolons": ("a;b\n1.234;2\n2.000;3\n", "ab", [[1.234, 2], [2, 3]]),
    "R's row names": ('"a" "b"\n"1" 1.5 2.5\n"2" 3.5 2.5\n', "0ab", [[1, 1.5, 2.5], [2, 3.5, 2.5]]),
    "pandas' index": (",a,b\n0,1.5,2\n1,2.5,3\n", "0ab", [[0, 1.5, 2], [1, 2.5, 3]]),
    "bars": ("a|b\n1|2\n", "ab", [[1, 2]]),
    "years": ("1990,1991\n120,135\n12,15\n", ["1990", "1991"], [[120, 135], [12, 15]]),
    "years beside a name": ("id,1990,1991\n1,135,14\n", ["id", "1990", "1991"], [[1, 135, 14]]),
    "numbered columns": ("0,1\n0.5,1.5\n2.5,3.0\n", "01", [[0.5, 1.5], [2.5, 3.0]]),
    "whole numbers": ("1,2\n3,5\n4,4\n", "01", [[1, 2], [3, 5], [4, 4]]),
    "a name twice": ("a,a,b\n1,2,3\n", ["a", "a_2", "b"], [[1, 2, 3]]),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_are_read_as_people_write_them(case, tmp_path):
    text, names, rows = TABLES[case]
    content = text if isinstance(text, bytes) else text.encode()
    for suffix, packed in (("", content), (".gz", gzip.compress(content))):
        path = tmp_path / f"x.csv{suffix}"
        path.write_bytes(packed)
        table = open_blocks(path)
        assert table.names == tuple(names)
        np.testing.assert_array_equal(np.concatenate(list(table())), rows)
        assert len(list(table.records())) == len(rows)


UNCLEAR = {  # what may be meant otherwise is said, with the option
    "years": ("1990,1991\n120,135\n", "taken for names of columns: --header no", {"header": False}, [1990, 1991]),
    "counts": ("0,1,2\n3,4,5\n", "taken for a row: --header yes", {"header": True}, [3, 4, 5]),
    "thousands": ("a\tb\n1,234\t2,345\n", "--decimal . if it means 1234", {"decimal": "."}, [1234, 2345]),
    "one column": ("1,5\n2,5\n", "--decimal , if they are one", {"decimal": ","}, [1.5]),
    "a name twice": ("a,a\n1,2\n", "the second is called 'a_2'", {"header": True}, [1, 2]),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_may_be_meant_otherwise_is_said_with_its_option(case, tmp_path):
    text, note, given, first = UNCLEAR[case]
    (tmp_path / "x.csv").write_text(text)
    assert any(note in said for said in open_blocks(tmp_path / "x.csv").notes)
    table = open_blocks(tmp_path / "x.csv", text=TextFormat(**given))
    np.testing.assert_array_equal(next(table())[0], first)


def test_what_is_said_of_a_text_file_is_heeded(tmp_path):
    (tmp_path / "x.txt").write_bytes("% é\n1:2,5\n3:-999\n".encode("cp1252"))
    given = TextFormat(separator=":", decimal=",", comment="%", encoding="cp1252", na=("-999",))
    rows = next(open_blocks(tmp_path / "x.txt", missing="marginalise", text=given)())
    np.testing.assert_array_equal(rows, [[1, 2.5], [3, np.nan]])
    wrong = {
        "separator must be one character": {"separator": "::"},
        "decimal must be": {"decimal": "x"},
        "does not exist": {"encoding": "utf-9"},
        "no text in utf-8": {"encoding": "utf-8"},
    }
    for sentence, options in wrong.items():
        with pytest.raises(ValueError, match=sentence):
            open_blocks(tmp_path / "x.txt", text=TextFormat(**options))


def test_missing_values_are_nan_where_they_are_asked_for_and_else_an_error_with_the_option(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,NA\n?,2\n,3\nnan,null\n")
    rows = next(open_blocks(tmp_path / "x.csv", missing="marginalise")())
    np.testing.assert_array_equal(rows, [[1, np.nan], [np.nan, 2], [np.nan, 3], [np.nan, np.nan]])
    with pytest.raises(ValueError, match=r"line 2, column 'b': 'NA' is a missing value; add --missing"):
        next(open_blocks(tmp_path / "x.csv")())


def test_columns_are_chosen_and_dropped_by_name_number_list_and_range(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,c,d,day\n1,2,3,4,2024-05-01\n")
    for options, names in (
        ({"columns": ["a,b"]}, "ab"),
        ({"columns": ["1-3"]}, "bcd"),
        ({"columns": ["d", "0"]}, "da"),
        ({"drop": ["a", "2,day"]}, "bd"),
    ):
        assert open_blocks(tmp_path / "x.csv", **options).names == tuple(names)
    with pytest.raises(ValueError, match=r"column 'day' holds text, such as '2024-05-01': .* --drop day"):
        open_blocks(tmp_path / "x.csv")
    with pytest.raises(ValueError, match=r"column 'a' of .*x.csv is chosen twice"):
        open_blocks(tmp_path / "x.csv", columns=["a", "0-1"])
    with pytest.raises(ValueError, match=r"column 'dey' does not exist in .*did you mean 'day'"):
        open_blocks(tmp_path / "x.csv", drop=["dey"])
    with pytest.raises(ValueError, match="both chosen and dropped"):
        open_blocks(tmp_path / "x.csv", columns=["a"], drop=["a"])


def test_a_vector_is_one_column_and_an_archive_is_its_only_array_or_x(rows, tmp_path):
    np.save(tmp_path / "x.npy", rows[:, 0])
    np.testing.assert_array_equal(np.concatenate(list(open_blocks(tmp_path / "x.npy")())), rows[:, :1])
    np.savez(tmp_path / "x.npz", y=rows[:, 0], x=rows)
    np.testing.assert_array_equal(np.concatenate(list(open_blocks(tmp_path / "x.npz")())), rows)
    np.savez_compressed(tmp_path / "x.npz", y=rows, z=rows)
    with pytest.raises(ValueError, match="holds y, z: save one array, or call it x"):
        open_blocks(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"x.npz is no .npz archive"):
        open_blocks(tmp_path / "x.npz")
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"1,2\n" * 100)[:20])
    with pytest.raises(ValueError, match=r"x.csv.gz is no whole .gz file"):
        open_blocks(tmp_path / "x.csv.gz")


def test_a_workbook_is_its_first_sheet_or_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "x.xlsx"
    path.write_bytes(b"PK\x03\x04 no workbook")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"needs pandas and openpyxl: pip install 'gmm-jax\[excel\]'"):
        open_blocks(path)
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("openpyxl")
    with pytest.raises(ValueError, match="no whole workbook"):
        open_blocks(path)
    pandas.DataFrame({"a": [1.5, 2.5], "b": [1, None]}).to_excel(path, index=False)
    table = open_blocks(path, missing="marginalise")
    assert table.names == ("a", "b")
    np.testing.assert_array_equal(next(table()), [[1.5, 1.0], [2.5, np.nan]])


# ---- Dask


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".csv"])
def test_a_dask_array_holds_the_rows_of_the_file(suffix, rows, tmp_path):
    pytest.importorskip("dask")
    path = write(tmp_path / f"x{suffix}", rows)
    for n_partitions in (1, 3, 64):
        x = open_dask(path, n_partitions=n_partitions)
        assert x.shape == rows.shape
        assert x.npartitions <= n_partitions
        np.testing.assert_array_equal(x.compute(scheduler="synchronous"), rows)
    chosen = open_dask(path, columns=["2", "0"])
    np.testing.assert_array_equal(chosen.compute(scheduler="synchronous"), rows[:, [2, 0]])


def test_a_dask_array_keeps_float32_and_names_a_bad_field(tmp_path):
    pytest.importorskip("dask")
    for dtype, kept in {"float32": "float32", ">f4": "float32", "int64": "float64", "bool": "float64"}.items():
        np.save(tmp_path / "x.npy", np.ones((30, 2), dtype))
        x = open_dask(tmp_path / "x.npy")
        assert x.dtype == x.compute(scheduler="synchronous").dtype == np.dtype(kept)
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 400 + "3,x\n")
    with pytest.raises(ValueError, match=r"x.csv, line 402, column 'b': 'x' is no number"):
        open_dask(tmp_path / "x.csv").compute(scheduler="synchronous")


def test_without_dask_and_for_a_pipe_there_is_a_sentence(tmp_path, monkeypatch):
    pytest.importorskip("dask")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("1,2\n3,4\n"))
    writer.start()
    with pytest.raises(ValueError, match=r"workers cannot read .*pipe: write its rows to a file"):
        open_dask(tmp_path / "pipe")
    writer.join()
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(ValueError, match=r"need Dask: pip install 'gmm-jax\[cluster\]'"):
        open_dask(tmp_path / "x.npy")
