"""What Sphinx lacks: formulas as MathML, plain docstrings, the reference of every public name, results from their rows.

Docstrings are plain text with Google's sections: what reStructuredText would take for marks is escaped, `code` becomes
code, and the fields of a record are listed with their types, shapes and comments as its source has them.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import shutil
import textwrap
from html import escape
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

from gmm_jax.bench import Grid

HERE = Path(__file__).parent
ROOT = HERE.parent
KEPT = ("reference", "results")  # folders that are generated


def setup(app):
    """Connects all of it; pages that changed are written before Sphinx looks for pages."""
    from docutils.utils.math.latex2mathml import tex2mathml

    def inline(self, node):
        self.body.append(f'<span class="math">{tex2mathml(node.astext(), as_block=False)}</span>')
        raise SkipNode

    def display(self, node):
        self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
        raise SkipNode

    from docutils.nodes import SkipNode

    for annotated in (Grid, Grid.__init__):  # the types without what they say to the shell
        annotated.__annotations__ = get_type_hints(annotated)
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    app.connect("config-inited", lambda app, config: write_pages())
    app.connect("source-read", links_within)
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", short_types)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("html-page-context", levels_of_captions, priority=900)  # after the theme's
    return {"parallel_read_safe": True}


# what lies elsewhere in the checkout, and where the site has it
WITHIN = {
    r"(\.\./)+results/README\.md": "/results/index.md",
    r"(\.\./)*gallery/GALLERY_HEADER\.rst": "/gallery_pages/index.rst",
}


def links_within(app, name, content):
    """Links that lead to files of the checkout lead to pages."""
    for elsewhere, page in WITHIN.items():
        content[0] = re.sub(rf"(?<=\]\(){elsewhere}", page, content[0])


def levels_of_captions(app, page, template, context, doctree):
    """The captions of the navigation are headings of a level, which a reader of screens asks for."""
    tree = context.get("furo_navigation_tree")
    if tree:
        context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


# ---- docstrings


def plain_docstring(app, what, name, obj, options, lines):
    """The lines as reStructuredText, the record's fields last."""
    lines[:] = [] if what == "data" else [marks_escaped(line) for line in [*lines, *fields_of(obj)]]


def marks_escaped(line: str) -> str:
    """Plain text as reStructuredText reads it: `code` is code, and other marks are what they are."""
    pieces = line.split("`")
    if len(pieces) % 2 == 0:  # a backtick without its other half
        return re.sub(r"([\\*|`])", r"\\\1", line)
    plain = [re.sub(r"_(?!\w)", r"\\_", re.sub(r"([\\*|])", r"\\\1", piece)) for piece in pieces[::2]]
    coded = [f"``{piece}``" if piece else "" for piece in pieces[1::2]]
    out = plain[0]
    for code, after in zip(coded, plain[1:], strict=True):
        out += code + ("\\" if after[:1].isalnum() else "") + after
    return out


def fields_of(obj) -> list[str]:
    """An Attributes section of a record: name, type with its shape, and the comment that stands beside it."""
    if inspect.isclass(obj) and issubclass(obj, enum.Enum):
        said = [f"    {each.name}: {getattr(each, 'advice', each.value)}." for each in obj]
        return ["", "Attributes:", *said, ""]
    if not (inspect.isclass(obj) and (hasattr(obj, "_fields") or hasattr(obj, "__dataclass_fields__"))):
        return []
    source = textwrap.dedent(inspect.getsource(obj))
    text, (node,) = source.splitlines(), ast.parse(source).body
    said = []
    for each, following in zip(node.body, [*node.body[1:], None], strict=True):
        described = isinstance(following, ast.Expr)  # by a docstring of its own, with which it is listed
        if isinstance(each, ast.AnnAssign) and not each.target.id.startswith("_") and not described:
            comment = text[each.end_lineno - 1][each.end_col_offset :].partition("#")[2].strip()
            kind = ast.unparse(each.annotation).replace("'", '"')
            said.append(f"    {each.target.id}: `{kind}` {comment}".rstrip())
    return ["", "Attributes:", *said, ""] if said else []


LONG = re.compile(
    r"\b(?:jaxlib\._jax|jax|jaxtyping|numpy|collections\.abc|typing|pathlib\._local|pathlib)\.(?=[A-Za-z])"
)


def short_types(app, what, name, obj, options, signature, returns):
    """Types as the sources name them."""
    return tuple(text and LONG.sub("", text) for text in (signature, returns))


def skip_fields(app, what, name, obj, skip, options):
    """Fields of a NamedTuple, which `fields_of` lists, are no members of their own."""
    return True if "_tuplegetter" in type(obj).__name__ else None


# ---- pages


def write_pages():
    """The generated pages; a file that is as it should be is not touched, and one too many is removed."""
    pages = {f"reference/{name}": text for name, text in reference().items()} | {"results/index.md": results_page()}
    for name, text in pages.items():
        path = HERE / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for folder in KEPT:
        for path in (HERE / folder).iterdir():
            if f"{folder}/{path.name}" not in pages:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def public() -> dict[str, list[str]]:
    """Module -> its public names, the package first; a name is shown where it is nearest to the top."""
    import gmm_jax

    modules = [name for name in gmm_jax.__all__ if inspect.ismodule(getattr(gmm_jax, name))]
    found = {"gmm_jax": [name for name in gmm_jax.__all__ if name not in modules]}
    order = {name: i for i, name in enumerate(gmm_jax._PACKAGES)}
    for name in sorted(modules, key=lambda name: order.get(name, 99)):
        module = getattr(gmm_jax, name)
        names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        names = [
            n for n in names if not inspect.ismodule(getattr(module, n)) and n not in ("annotations", "import_module")
        ]
        found[f"gmm_jax.{name}"] = [n for n in names if n not in found["gmm_jax"]]
    found["gmm_jax.problems.datasets"] = ["load", "names", "describe"]
    found["gmm_jax.bench.methods"] = ["available", "load", "from_function"]
    return {module: names for module, names in found.items() if names}


def reference() -> dict[str, str]:
    """File name -> page: each module with the first sentence of every name, then all of it."""
    pages, links = {}, []
    for module, names in public().items():
        home, file = import_module(module), module.replace(".", "-")
        doc = marks_escaped(" ".join((home.__doc__ or "").split("\n\n")[0].split()))
        lines = [module, "=" * len(module), "", doc, "", ".. list-table::", "   :widths: 30 70", ""]
        for name in names:
            lines += [f"   * - :py:obj:`{name} <{module}.{name}>`", f"     - {first_sentence(getattr(home, name))}"]
        for name in names:
            obj = getattr(home, name)
            kind = "class" if inspect.isclass(obj) else "function" if callable(obj) else "data"
            lines += ["", "----", "", f".. auto{kind}:: {module}.{name}"]
            lines += ["   :members:"] if kind == "class" else ["   :no-value:"] if kind == "data" else []
        pages[f"{file}.rst"] = "\n".join([*lines, ""])
        links.append(f"   {file}")
    title = ["Reference", "=========", "", REFERENCE, "", ".. toctree::", "   :maxdepth: 1", "", *links, ""]
    return {"index.rst": "\n".join(title)} | pages


REFERENCE = """Every public name, with its signature, the shapes of its arguments, and its source. In a shape N is the
number of samples, D of features, K of components, R of starts, C of chains, S of draws; see the :doc:`glossary
</glossary>`."""


def first_sentence(obj) -> str:
    """Of a docstring, escaped; of a constant its value."""
    if not callable(obj):
        return f"``{obj!r}``" if len(repr(obj)) < 60 else ""
    first = (inspect.getdoc(obj) or "").split("\n\n")[0]
    return marks_escaped(re.split(r"(?<=\.) ", " ".join(first.split()))[0])


# ---- results


def results_page() -> str:
    """results/README.md with the committed pictures in place of links: nothing is run again."""
    from gmm_jax.bench.provenance import read_provenance

    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    head = re.sub(r"^- \[.*\n", "", head, flags=re.MULTILINE)
    for i, section in enumerate(sections):
        folder = ROOT / "results" / section.split(maxsplit=2)[1]
        captions = read_provenance(folder)[-1].get("pictures") or {}
        body, _, after = section.partition("- *Files:* ")
        linked, _, rest = after.partition("\n")
        data = [link for link in linked.split(", ") if ".png" not in link and "report.html" not in link]
        body += f"- *Files:* {', '.join(data).replace('](', '](../../results/')}\n{rest}"
        for picture in sorted(folder.glob("*.png")):
            caption = captions.get(picture.name) or f"{picture.stem.replace('_', ' ')}."
            place = f"../../results/{folder.name}/{picture.name}"
            body += f'\n```{{figure}} {place}\n:alt: "{escape(caption)}"\n\n{caption}\n```\n'
        sections[i] = body
    return head + "\n".join(sections)
