"""Rendering of pages: one HTML file each, light and dark, for desktop and phone.

A page runs no script and loads only the resources that its template allows; names chosen by users
are escaped.
"""

import base64
import hashlib
import io
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from annotation_platform.pages.text import compact, shown

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from PIL import Image

_QUALITY = 80


def render_page(package: str, template: str, *, style: str = "", **values: Any) -> str:
    """Return a page: a template in ``templates/`` of ``package``, rendered with ``values``.

    The template gets the whole style as ``css`` and its digest as ``style_digest``, for a content
    security policy that forbids any other style. Its filters are ``shown`` (a name on one line),
    ``count``, ``compact`` and ``percent``.

    Args:
        package: package of the caller, ``__package__``.
        template: file name of the template.
        style: CSS that is added to the shared one.
        values: variables of the template; a missing one is an error.
    """
    css = _source(__package__, "page.css") + style
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return _template(package, template).render(css=css, style_digest=digest, **values)


def as_base64(image: "Image.Image") -> str:
    """Return an image as JPEG in base64, to be embedded in a page."""
    sink = io.BytesIO()
    image.save(sink, format="JPEG", quality=_QUALITY)
    return base64.b64encode(sink.getvalue()).decode()


@cache
def _template(package: str, name: str) -> "Template":
    return _environment().from_string(_source(package, "templates", name))


@cache
def _environment() -> "Environment":
    # The import takes a tenth of a second, and few commands write a page.
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "shown": shown,
        "compact": compact,
        "count": lambda number: f"{number:,}",
        "percent": percent,
    }
    return environment


def percent(part: float, whole: float) -> str:
    """Return ``part`` of ``whole`` in percent, rounded; a dash if ``whole`` is 0."""
    return f"{part / whole:.0%}".replace("%", " %") if whole else "–"


def _source(package: str, *path: str) -> str:
    return files(package).joinpath(*path).read_text(encoding="utf-8")
