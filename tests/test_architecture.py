"""The layout that design.md draws, read from the sources: who imports whom, and what is never done."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gmm_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
LINE = ("mixture", "problems", "em", "bayes", "judge", "bench")
MAY_IMPORT = {package: set(LINE[:place]) for place, package in enumerate(LINE)}
MAY_IMPORT["estimators"] = set(LINE) - {"bench"}
INTERFACES = {"__init__", "__main__", "cli", "command", "plot", "saving", "shell", "stored"}
SHELL = {"cli.py", "shell.py", "stored.py"}  # the command, and what it shares with the experiments


def name_of(path):
    return str(path.relative_to(PACKAGE.parent))


def package_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """(absolute module name, whether inside a function) of every import; `from . import a` counts as `.a` too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    package = ["gmm_jax", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found += [(name, id(node) in inside) for name in names]
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path):
    package = package_of(path)
    if package in INTERFACES:
        return
    assert package in MAY_IMPORT, f"{package} is no package of the layout"
    for module, _ in imports(path):
        parts = module.split(".")
        if parts[0] == "gmm_jax" and len(parts) > 1:
            other = parts[1]
            if other in MAY_IMPORT or other in INTERFACES:
                assert other == package or other in MAY_IMPORT[package], f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_that_is_shipped_imports_what_is_not(path):
    beside = {place.stem for place in (PACKAGE.parent / "experiments").iterdir()} | {"experiments", "tests"}
    assert not {module.split(".")[0] for module, _ in imports(path)} & beside


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_numpyro_blackjax_and_matplotlib_stay_in_their_places(path):
    for module, inside in imports(path):
        top = module.split(".")[0]
        if top in ("numpyro", "blackjax"):
            subclass = path == PACKAGE / "bayes" / "hierarchical.py"  # it needs its base, and is imported in functions
            assert (package_of(path), inside or subclass) == ("bayes", True), f"{name_of(path)} imports {module}"
        if module == "gmm_jax.bayes.hierarchical":
            assert inside, f"{name_of(path)} imports NumPyro by way of {module}"
        if top == "matplotlib":
            style = PACKAGE / "bench" / "plots" / "style.py"
            assert (path, inside) == (style, True), f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_dangerous_is_called(path):
    source = path.read_text(encoding="utf-8")
    for module, _ in imports(path):
        assert module.split(".")[0] not in ("pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else None
            assert name not in ("eval", "exec", "compile", "__import__"), f"{name_of(path)} calls {name}"
            for keyword in node.keywords:
                if keyword.arg in ("shell", "allow_pickle"):
                    assert isinstance(keyword.value, ast.Constant)
                    assert keyword.value.value is False


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_shell_sets_the_configuration_of_jax(path):
    if path.name in SHELL:
        return
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "config" and isinstance(node.value, ast.Name):
            assert node.value.id != "jax", f"{name_of(path)} touches jax.config in line {node.lineno}"
    assert not re.search(r"environ.*JAX_", source)


def test_the_oracles_import_nothing_of_ours():
    tree = ast.parse((Path(__file__).parent / "oracles.py").read_text(encoding="utf-8"))
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert modules <= {"itertools", "math", "numpy"}


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, gmm_jax; dir(gmm_jax); "
        "heavy = ('jax', 'numpy', 'scipy', 'numpyro', 'blackjax', 'matplotlib', 'sklearn'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import gmm_jax

    for name in gmm_jax.__all__:
        assert getattr(gmm_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gmm_jax.nothing
