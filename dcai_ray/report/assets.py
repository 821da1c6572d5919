"""What the page carries beside its text: style, script, data, and the policy that allows no more.

The Content-Security-Policy names the hashes of the one style and the one script: nothing else runs,
whatever a file or a class is called. Data is escaped, so that it cannot end its block.
"""

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from dcai_ray.report.suspects import Suspects

_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


@cache
def source(name: str) -> str:
    """A file of the page, as packaged."""
    return (files("dcai_ray.report") / name).read_text(encoding="utf-8")


def style() -> str:
    """The style of the page."""
    return source("page.css")


def script() -> str:
    """The script of the page."""
    return source("page.js") + source("marks.js")


def policy() -> str:
    """Content-Security-Policy: this style, this script, pictures in the page; no request at all."""
    return (
        f"default-src 'none'; style-src {_hash(style())}; script-src {_hash(script())}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def scripts(suspects: Suspects | None) -> str:
    """The blocks at the end of the page: data, pictures, and the script that shows them."""
    if suspects is None:
        return ""
    made = suspects.sheets()
    sheets = {kind: {"side": found.side_px, "sizes": found.sizes} for kind, found in made.items()}
    blocks = [data_block({**suspects.data, "sheets": sheets})]
    for kind, found in made.items():
        blocks += [_block(f"{kind}-{i}", "text/plain", text) for i, text in enumerate(found.sheets)]
    return "\n".join([*blocks, f"<script>{script()}</script>"])


def data_block(data: dict[str, Any]) -> str:
    """The data of the page's script."""
    return _block("data", "application/json", _json(data))


def _block(name: str, kind: str, text: str) -> str:
    """A block that the browser stores and does not run."""
    return f'<script type="{kind}" id="{name}">{text}</script>'


def _json(data: dict[str, Any]) -> str:
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character, escaped in _ESCAPED.items():
        text = text.replace(character, escaped)
    return text
