"""How `make docs` builds the site: Sphinx, MyST-NB and furo, without the network."""

import shutil
import tomllib
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils.nodes import SkipNode

import jscan

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]

project = "jscan"
author = copyright = "the jscan authors"
release = version = jscan.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
# Sphinx reads what lies in its folder; the notebooks lie beside it.
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(CHECKOUT / "notebooks", HERE / "notebooks")

# Notebooks are shown as they are stored; `make notebooks` runs them.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # no notebook holds a widget, and they would come from elsewhere
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

# In docstrings `name` is a name of jscan's where there is one, and code elsewhere.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [("py:obj", ".*")]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more than `Any` does
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
napoleon_use_rtype = False
napoleon_preprocess_types = False
napoleon_attr_annotations = False

html_theme = "furo"
html_title = "jscan"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "figures/icon.svg"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "source_repository": PROJECT["urls"]["Repository"],
    "source_branch": "main",
    "source_directory": "docs/",
    "navigation_with_keys": True,
    "top_of_page_buttons": [],
}
pygments_style = "friendly"
pygments_dark_style = "monokai"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"
copybutton_exclude = ".linenos, .gp, .go"


def whole_first_line(app: Any, what: str, *rest: Any) -> None:
    """Keep napoleon from taking a property's first words for its type."""
    lines = rest[-1]
    if what == "property" and lines:
        lines[0] = lines[0].replace(": ", " - ", 1)


def setup(app: Any) -> None:
    """Write formulas as MathML, which browsers draw without a script."""
    app.connect("autodoc-process-docstring", whole_first_line, priority=400)

    def formula(display: str) -> Any:
        def visit(translator: Any, node: Any) -> None:
            mathml = latex2mathml.converter.convert(node.astext(), display=display)
            translator.body.append(mathml)
            raise SkipNode

        return visit

    app.add_html_math_renderer(
        "mathml", (formula("inline"), None), (formula("block"), None)
    )


html_math_renderer = "mathml"
