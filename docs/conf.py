"""Sphinx: pages in Markdown, one notebook and a gallery that are executed, and a reference made of the docstrings.

Everything is built from packages: no page loads anything from another place. Formulas become MathML, which browsers
draw themselves.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent, HERE.parent / "experiments"):
    sys.path.insert(0, str(folder))
os.environ["PYTHONPATH"] = str(HERE.parent)  # of the kernels
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(HERE / "_build" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import site_parts  # noqa: E402

import gmm_jax  # noqa: E402

project = "gmm_jax"
author = "gmm_jax developers"
release = version = gmm_jax.__version__
copyright = "gmm_jax developers, MIT licence"
html_title = "gmm_jax"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery", "gallery_pages/*.ipynb"]
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "executed")
nb_execution_timeout = 240
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = ["Reference", "Columns"]

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "gallery_pages",
    "filename_pattern": r"\.py$",
    "show_memory": False,
    "download_all_examples": False,
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "capture_repr": (),
    "write_computation_times": False,
}


def setup(app):
    """What Sphinx lacks, from site_parts."""
    site_parts.setup(app)
