"""How Sphinx builds these pages: `make docs`, with the dependency group `docs` and fastsoft installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from docutils import nodes

import fastsoft

HERE = Path(__file__).parent

project = "fastsoft"
author = "the fastsoft authors"
copyright = author
version = release = fastsoft.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "pictures", "generated/backreferences", "sg_execution_times.rst"]
default_role = "autolink"  # `name` in a docstring is a link where there is such a name
nitpicky = True
# No inventory is fetched from elsewhere, so that the build needs no network.
nitpick_ignore_regex = [("py:.*", r"(numpy|scipy|torch)\..*")]
nitpick_ignore = [("py:obj", "chunk")]  # an argument, and before Python 3.13 a module as well

autosummary_generate = True
autodoc_mock_imports = ["torch"]  # so that fastsoft.torch has its pages where PyTorch is not installed
autodoc_typehints = "none"  # the docstrings say more
numpydoc_show_class_members = False  # the template lists them
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": ["../examples", "pictures"],
    "gallery_dirs": ["generated/gallery", "generated/pictures"],
    "filename_pattern": ".py",
    "ignore_pattern": "make_digits_logits",  # writes a file of the repository
    "copyfile_regex": r".*\.npy",
    "within_subsection_order": "FileNameSortKey",
    "image_srcset": ["2x"],
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("fastsoft",),
    "reference_url": {"fastsoft": None},
    "capture_repr": (),
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = f"fastsoft {version}"
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 8,
}
html_sidebars = {"*": []}  # only examples and functions have neighbours


def write_help() -> None:
    """Keep what `fastsoft COMMAND --help` says for the page of the command line."""
    folder = HERE / "generated" / "help"
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    for command in ("", "bench", "softmax", "log-softmax", "logsumexp"):
        arguments = [sys.executable, "-m", "fastsoft", *command.split(), "--help"]
        found = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
        (folder / f"{command or 'fastsoft'}.txt").write_text(found.stdout, encoding="utf-8")


write_help()


def describe_thumbnails(app, doctree, _):
    """Give the thumbnails, which sphinx-gallery leaves without an alternative text, the titles of their pages."""
    for image in doctree.findall(nodes.image):
        found = re.fullmatch(r"(generated/\w+)/images/thumb/sphx_glr_(\w+)_thumb\.\w+", image["uri"])
        if found:
            image["alt"] = app.env.titles["/".join(found.groups())].astext()


def setup(app):
    app.connect("doctree-resolved", describe_thumbnails)
