"""The pages in docs/ tell the truth: code runs and is short, commands are understood, figures are those of the rows."""

import ast
import importlib.util
import inspect
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import gmm_jax
from gmm_jax import cli, shell
from gmm_jax.bench import conformance, methods, store

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [DOCS / "start.md", *sorted((DOCS / "guides").glob("*.md"))]
GALLERY = sorted((DOCS / "gallery").glob("*.py"))
LINES = 12  # of a block, at most


def text_of(name):
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(path):
    return [line for block in blocks(path, "console") for line in block.splitlines()]


def site_parts():
    spec = importlib.util.spec_from_file_location("site_parts", DOCS / "site_parts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page, capsys, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names = {}
    for block in blocks(page, "python"):
        exec(block, names)
        assert capsys.readouterr().out or "def fit(" in block


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_blocks_are_short(page):
    found = blocks(page, "python") + blocks(page, "console")
    assert found
    assert max(sum(bool(line.strip()) for line in block.splitlines()) for block in found) <= LINES


@pytest.mark.parametrize(
    "line", sorted({line for page in (*PAGES, DOCS / "contributing.md") for line in commands(page)})
)
def test_every_command_is_understood(line, monkeypatch):
    program, *arguments = shlex.split(line, comments=True)
    if program in ("python", "make", "pip"):
        there = {"python": lambda name: (ROOT / name).exists(), "pip": {"install"}.__contains__}
        there["make"] = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE).__contains__
        assert there[program](arguments[0])
        return
    understood = []
    monkeypatch.setattr(cli, "guarded", understood.append)
    cli.main(arguments)
    assert (program, len(understood)) == ("gmm-jax", 1)


def test_the_method_that_a_page_adds_keeps_every_promise(tmp_path, monkeypatch):
    (block,) = [block for block in blocks(DOCS / "guides" / "compare.md", "python") if "def fit(" in block]
    (tmp_path / "one_start.py").write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    outcomes = conformance.check(methods.load("one_start:fit"))
    assert [outcome for outcome in outcomes if not outcome.kept] == []


# ---- the notebook and the gallery


def test_the_notebook_runs_has_no_outputs_and_recovers_the_truth(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import pyplot

    content = text_of("course.ipynb")
    notebook = json.loads(content)
    assert notebook["nbformat"] == 4
    assert len(content) < 60_000
    names, cells = {}, [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    pyplot.close("all")
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert len(pyplot.get_fignums()) == 6
    pyplot.close("all")
    z = (names["best"].means - names["truth"].means) / names["errors"].means
    assert abs(z).max() < 5.0
    assert names["result"].status == gmm_jax.Status.COLLAPSED  # the notebook's broken input


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_a_script_of_the_gallery_begins_with_its_title(path):
    title, line, *text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()
    assert line == "=" * len(title)
    assert any(text)


def test_the_gallery_has_ten_scripts():
    assert len(GALLERY) == 10


@pytest.mark.slow
@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_a_script_of_the_gallery_runs_and_leaves_a_picture(path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    with monkeypatch.context() as patch:
        patch.setattr(pyplot, "show", lambda: None)
        runpy.run_path(str(path))
    assert all(panel.has_data() for panel in pyplot.gcf().axes)
    assert pyplot.gcf().axes
    pyplot.close("all")


# ---- the reference


@pytest.mark.parametrize(
    ("plain", "marked"),
    [
        ("p(x | θ) of `x_test`, *args", "p(x \\| θ) of ``x_test``, \\*args"),
        ("means_ and Σ_k", "means\\_ and Σ_k"),
        ("`a`s, and `b`", "``a``\\s, and ``b``"),
        ("one ` alone", "one \\` alone"),
    ],
)
def test_what_restructuredtext_takes_for_marks_is_escaped(plain, marked):
    assert site_parts().marks_escaped(plain) == marked


def test_the_reference_has_every_public_name_and_its_fields():
    parts = site_parts()
    pages = "\n".join(parts.reference().values())
    for name in gmm_jax.__all__:
        value = getattr(gmm_jax, name)
        assert inspect.ismodule(value) or f":: gmm_jax.{name}\n" in pages
    for package in ("mixture", "problems", "em", "bayes", "judge"):
        module = getattr(gmm_jax, package)
        for name in vars(module):
            value = getattr(module, name)
            if not name.startswith("_") and not inspect.ismodule(value) and name not in gmm_jax.__all__:
                assert f":: gmm_jax.{package}.{name}\n" in pages or name == "annotations", name
    fields = parts.fields_of(gmm_jax.Fit)
    assert [re.match(r"    (\w+):", line).group(1) for line in fields[2:-1]] == list(gmm_jax.Fit._fields)


# ---- the site, as `make docs` builds it


REMOTE = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"'](?:https?:)?//|<link\b[^>]*\bhref=[\"'](?:https?:)?//|"
    r"url\(\s*[\"']?(?:https?:)?//|@import\s+[\"'](?:https?:)?//"
)


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ('<script src="https://a.b/c.js">', True),
        ("<link rel='stylesheet' href='//a.b/c.css'>", True),
        ("@font-face { src: url(http://a.b/c.woff) }", True),
        ('<script src="_static/c.js"></script><a href="https://a.b">', False),
    ],
)
def test_what_is_loaded_from_elsewhere_is_seen(text, remote):
    assert bool(REMOTE.search(text)) == remote


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_loads_nothing_from_elsewhere_and_its_links_lead_somewhere():
    """In docs/_build, where `make docs` leaves it, so that what was run already is not run again."""
    pytest.importorskip("myst_nb", reason="the extra docs is not installed")
    site = DOCS / "_build" / "html"
    build = ["-m", "sphinx", "--quiet", "--fail-on-warning", "--doctree-dir", str(DOCS / "_build" / "doctrees")]
    done = subprocess.run([sys.executable, *build, str(DOCS), str(site)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert len(pages) > 40
    for path, text in pages.items():
        assert not REMOTE.search(text), path
        for link in re.findall(r'(?:href|src)="(?!\w+:)([^"#?]+)', text):
            assert path.parent.joinpath(link).exists(), f"{path}: {link}"
    for path in (*site.rglob("*.css"), *site.rglob("*.js")):
        assert path.suffix == ".js" or not REMOTE.search(path.read_text(encoding="utf-8")), path


# ---- figures that are said


def test_the_shares_of_criteria_are_those_of_the_rows():
    answer = store.read_json(ROOT / "results" / "choose_k" / "provenance.json")[-1]["answer"]
    at_three = re.search(r"3 sd apart \(.*?\): (.*?)[;\n]", answer).group(1)
    said = dict(part.split() for part in at_three.split(", "))
    rows = re.findall(r"^\| (`.*?) \|.*\| (\d\.\d+)", text_of("guides/components.md"), flags=re.MULTILINE)
    assert len(rows) == 8
    for row in rows:
        for name in re.findall(r"`(\w+)`", row[0]):
            assert float(said[name]) == float(row[1]), name


def test_the_exit_codes_are_those_of_the_shell():
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", text_of("exit-codes.md"), flags=re.MULTILINE)]
    said = {value for name, value in vars(shell).items() if name.startswith("EXIT_")}
    assert codes == sorted(said | {1})  # 1 is Python's own, with a traceback
