"""The page: a template, a style sheet and scripts that ship with the package, filled with a document. Jinja2 lives here alone."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from feldman import __version__
from feldman.report.document import ReportDocument

__all__ = ["GENERATOR", "render_page"]

GENERATOR = "feldman report"
"""How a page begins to say who made it, in its ``generator``."""

_TEMPLATE, _STYLE = "report.html.j2", "report.css"
_SCRIPTS = (
    "elements.js",
    "document.js",
    "pictures.js",
    "state.js",
    "histogram.js",
    "gallery.js",
    "influence.js",
    "pairs.js",
    "start.js",
)
"""In the order in which they are joined: each uses what those before it define."""

_UNSAFE = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def render_page(document: ReportDocument) -> str:
    """Return the page as HTML: one file that needs no other, and may load none.

    Every text is escaped by the template. The data are JSON in which no character can end the element they stand in. The page's
    own policy lets nothing run but the scripts that ship with the package, told by their hash, and nothing be fetched.
    """
    style, script = _text(_STYLE), _script()
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string(_text(_TEMPLATE)).render(
        document=document,
        generator=f"{GENERATOR} {__version__}",
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=embedded_json(document.data()),
    )


def embedded_json(data: dict[str, Any]) -> Markup:
    """Return JSON to stand in an element: no text in it can end that element, or begin another one."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.translate(_UNSAFE))


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy: this style, this script, and images that are part of the page."""
    rules = {
        "default-src": "'none'",
        "script-src": f"'sha256-{_digest(script)}'",
        "style-src": f"'sha256-{_digest(style)}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _script() -> str:
    parts = "\n".join(_text(name) for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def _text(name: str) -> str:
    return (resources.files("feldman.report") / "templates" / name).read_text(encoding="utf-8")
