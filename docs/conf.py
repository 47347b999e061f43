"""The documentation's site: `make docs` builds it into build/docs."""

import pathlib
import re
import shutil
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import jaxcnn  # noqa: E402

project = "jaxcnn"
author = "The jaxcnn developers"
release = version = jaxcnn.__version__
copyright = f"{author}; Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["digits"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the tests run the notebooks; the pages show the outputs that they keep
nb_merge_streams = True

html_theme = "furo"
html_title = "jaxcnn"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "source_repository": "https://github.com/jaxcnn/jaxcnn/",
    "source_branch": "main",
    "source_directory": "docs/",
}
html_copy_source = False
copybutton_exclude = ".linenos, .gp"

add_module_names = False  # jaxcnn.train, not the module behind it
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the descriptions tell types and shapes
default_role = "code"  # a name between single backticks in a docstring
highlight_language = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False
napoleon_use_ivar = True

REPOSITORY = "https://github.com/jaxcnn/jaxcnn/blob/main/"
SHELL = re.compile(r"(\$ |sudo |source |python -m|python |make |pip |srun |sbatch |mpirun |launch/|[A-Z_]+=\S+ )")
_TITLE = re.compile(r"[A-Z][A-Za-z ]*:$")


def copy_notebooks(app):
    """Put the notebooks where Sphinx finds them; the copies are in `.gitignore`."""
    folder = HERE / "notebooks"
    folder.mkdir(exist_ok=True)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        copy = folder / notebook.name
        if not copy.exists() or copy.read_bytes() != notebook.read_bytes():
            shutil.copyfile(notebook, copy)


def read_page(app, name, source):
    """Lead links to files outside docs/ to the repository."""
    if not name.startswith("notebooks/"):
        source[0] = source[0].replace("](../notebooks/", "](notebooks/")
        source[0] = re.sub(r"\]\(\.\./", f"]({REPOSITORY}", source[0])


def read_included(app, relative_path, parent_name, content):
    """The same for included files, which lie at the root."""
    content[0] = re.sub(r"\]\((?!https?:|#)", f"]({REPOSITORY}", content[0])


def mark_code(app, name, options_or_what, *rest):
    """Make the indented examples of a docstring literal blocks, as Markdown has them."""
    lines = rest[-1]
    marked, unindented = [], ""
    for number, line in enumerate(lines):
        starts = line.startswith("    ") and (number == 0 or not lines[number - 1].strip())
        if starts and not _TITLE.match(unindented):
            marked += ["::", ""]
            unindented = "Code:"  # until the next line without indentation
        if line.strip() and not line.startswith(" "):
            unindented = line
        marked.append(line)
    lines[:] = marked


def name_languages(app, tree):
    """Colour the code blocks: commands as shell, others as Python, of pages that name no language."""
    from docutils import nodes

    for block in tree.findall(nodes.literal_block):
        if block.get("language", "none") not in ("none", "default"):
            continue
        text = block.astext()
        if SHELL.match(text):
            block["language"] = "console" if text.startswith("$ ") else "sh"
        elif re.search(r"^(import|from|class|def|run|config|network|np|@)\b", text, re.MULTILINE):
            block["language"] = "python"


def setup(app):
    """Connect the functions above to the events of a build."""
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
    app.connect("autodoc-process-docstring", mark_code, priority=400)
    app.connect("doctree-read", name_languages)
