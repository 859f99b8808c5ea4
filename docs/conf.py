"""How Sphinx makes the pages of docs/: `make docs`."""

from importlib.metadata import version as installed

project = "annotation-platform"
release = version = installed("annotation-platform")
copyright = "the authors of annotation-platform, MIT licence"  # noqa: A001  Sphinx's name for it

extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
# Links to headings, as GitHub makes them.
myst_heading_anchors = 4
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = project
html_theme_options = {"navigation_with_keys": True}
