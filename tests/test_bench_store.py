import math
import os
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_jax.bench import store
from gmm_jax.cli import main
from gmm_jax.mixture import Status


def fail(*_):
    raise OSError(28, "disk full")


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("before", ["old", None])
def test_a_failed_write_leaves_what_was_there_and_no_litter(tmp_path, monkeypatch, step, before):
    path = tmp_path / "a.txt"
    if before is not None:
        path.write_text(before)
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match=r"disk full: .*a\.txt"):
        store.write_text_atomic(path, "new")
    monkeypatch.undo()
    assert (path.read_text() if path.exists() else None) == before
    assert [p.name for p in tmp_path.iterdir()] == (["a.txt"] if before else [])


@pytest.fixture
def small_disk(tmp_path):
    """Folder, and a function that gives it another size: a disk of 200 KiB where that may be mounted."""

    def mount(*options):
        return subprocess.run(["mount", *options, str(tmp_path)], capture_output=True).returncode == 0

    if shutil.which("mount") is None or not mount("-t", "tmpfs", "-o", "size=200k", "tmpfs"):
        pytest.skip("a small disk cannot be mounted here")
    yield tmp_path, lambda size: mount("-o", f"remount,size={size}")
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_named_and_costs_nothing_that_is_finished(small_disk, monkeypatch, capsys):
    monkeypatch.setattr("gmm_jax.cli.configure_jax", lambda: None)
    disk, resize = small_disk
    grid = ["--problems", "well_separated", "--methods", "cheap_methods:split", "--seeds", "60", "--n", "60"]
    command = ["compare", "sweep", *grid, "--out", str(disk)]
    assert main(command) == 2
    (sentence,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("gmm-jax: "))
    assert f"{disk / 'sweep' / 'rows.csv'}: No space left on device; make room" in sentence
    found = [store.read_cell(path) for path in (disk / "sweep" / "cells").glob("*.json")]
    assert 30 < len(found) < 60  # of 50 blocks of 4 KiB each cell takes one
    assert not list(disk.rglob("*.tmp"))
    finished = {path: path.stat().st_mtime_ns for path in (disk / "sweep" / "cells").iterdir()}
    assert resize("20m")
    assert main(command) == 0
    assert [row["seed"] for row in store.read_rows(disk / "sweep")] == list(range(60))
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_content_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append(("replace", a.parent == b.parent)), replace(a, b)))
    store.write_text_atomic(tmp_path / "a.txt", "new")
    assert steps == ["fsync", ("replace", True), "fsync"]


def test_a_cell_comes_back_as_it_was_but_nan_as_null(tmp_path):
    row = {"kl": np.float32(0.5), "bad": math.nan, "worse": -math.inf, "status": Status.CONVERGED, "x": np.arange(2)}
    path = store.write_cell(tmp_path, {"seed": 1}, row)
    assert store.read_cell(path) == {
        "config": {"seed": 1},
        "row": {"kl": 0.5, "bad": None, "worse": None, "status": "CONVERGED", "x": [0, 1]},
        "source": store.source(),
    }


def test_the_place_of_a_cell_depends_on_content_alone(tmp_path):
    here = store.cell_path(tmp_path, {"a": 1, "b": [1, 2]})
    assert here == store.cell_path(tmp_path, {"b": (1, 2), "a": np.int64(1)})
    assert here != store.cell_path(tmp_path, {"a": 2, "b": [1, 2]})


@given(st.data())
def test_any_cut_or_changed_byte_is_noticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cells")
    whole = store.write_cell(folder, {"seed": 0}, {"kl": 0.25, "name": "é"})
    content = whole.read_bytes()
    place = data.draw(st.integers(0, len(content) - 2))
    if data.draw(st.booleans()):
        whole.write_bytes(content[:place])
    else:
        whole.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    try:
        row = store.read_cell(whole)["row"]
    except store.UnreadableResult:
        return
    assert row == {"kl": 0.25, "name": "é"}  # a blank that became another changes nothing


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}', "{", "[" * 100_000, '"\xff"', ""])
def test_what_is_no_json_is_unreadable(tmp_path, text):
    path = tmp_path / "provenance.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(store.UnreadableResult, match=r"provenance\.json"):
        store.read_json(path)


def test_missing_and_oversized_files_are_unreadable(tmp_path, monkeypatch):
    with pytest.raises(store.UnreadableResult, match="does not exist"):
        store.read_json(tmp_path / "none.json")
    monkeypatch.setattr(store, "MOST_BYTES", 10)
    with pytest.raises(store.UnreadableResult, match="larger"):
        store.read_json(store.write_json(tmp_path / "a.json", list(range(100))))


fields = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text("abcµ, \"'\n;", min_size=1),
    st.lists(st.integers(), max_size=3),
)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b b", "c,"]), fields, min_size=1), min_size=1, max_size=4))
def test_rows_come_back_as_they_were(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    store.write_rows(folder, rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    assert store.read_rows(folder) == [{c: row.get(c) for c in columns} for row in rows]


def test_rows_have_all_columns_in_order_of_appearance(tmp_path):
    store.write_rows(tmp_path, [{"b": 1, "a": {"x": [1, float("nan")]}}, {"c": True, "b": None}])
    assert (tmp_path / "rows.csv").read_text() == 'b,a,c\n1,"{""x"":[1,null]}",\n,,true\n'


def test_rows_may_hold_large_matrices(tmp_path):
    matrices = np.random.default_rng(0).standard_normal((3, 50, 50)).tolist()
    store.write_rows(tmp_path, [{"covariances": matrices}])
    assert store.read_rows(tmp_path) == [{"covariances": matrices}]


def test_rows_with_a_field_too_few_are_unreadable(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(store.UnreadableResult, match="line 3"):
        store.read_rows(tmp_path)


@pytest.mark.parametrize("text", ["[x] is no list", "{", "1 of 2", "-", "007", "truely", "NaN", '"a"', "2026-01-01"])
def test_text_that_begins_like_something_else_stays_text(tmp_path, text):
    store.write_rows(tmp_path, [{"reason": text}])
    assert store.read_rows(tmp_path) == [{"reason": text}]


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a/b", "", ".hidden", "-x", "a" * 101, "a\n", "é", None])
def test_a_name_cannot_leave_the_results(tmp_path, name):
    with pytest.raises(ValueError, match="a name of results"):
        store.result_folder(tmp_path, name)


def test_a_link_cannot_leave_the_results(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "out").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out"):
        store.result_folder(tmp_path / "results", "out")
    assert store.result_folder(tmp_path / "results", "course_2d") == tmp_path / "results" / "course_2d"


def test_what_cannot_be_stored_is_named():
    with pytest.raises(TypeError, match="object cannot be stored"):
        store.write_json("never.json", {"a": object()})
