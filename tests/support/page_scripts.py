"""The scripts of a page, and those that its own policy would not run."""

import base64
import hashlib
from html.parser import HTMLParser

_EXECUTED = (None, "", "module", "text/javascript")  # others hold data, which nobody runs


class _Scripts(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found, self.policy, self._inside = [], "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        self._inside = tag == "script" and attributes.get("type") in _EXECUTED
        if self._inside:
            self.found.append("")

    def handle_data(self, data):
        if self._inside:
            self.found[-1] += data

    def handle_endtag(self, tag):
        self._inside = False


def foreign_scripts(html):
    """Scripts that are not the page's own, by the hashes of its policy."""
    page = _Scripts(html)
    assert "unsafe" not in page.policy
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.found]
    return [s for s, digest in zip(page.found, hashes, strict=True)
            if f"'sha256-{digest}'" not in page.policy]  # fmt: skip
