"""The same sentences about images, and about texts and rows, which are called examples."""

import re
from collections.abc import Iterator
from typing import Any

from jinja2.ext import Extension
from jinja2.lexer import Token

_NOUN = re.compile(r"\b([Ii])mage(s?)\b")


def worded(text: str, unit: str) -> str:
    """A text of our own, without names from data, with the noun of the run.

    Args:
        text: about images.
        unit: "images" or "examples"; both words take the article "an".
    """
    if unit == "images":
        return text
    return _NOUN.sub(lambda found: ("E" if found[1] == "I" else "e") + f"xample{found[2]}", text)


class Examples(Extension):
    """A template whose own texts speak of examples; what is put into it stays as it is."""

    def filter_stream(self, stream: Any) -> Iterator[Token]:
        """The tokens of the template, with other words."""
        for token in stream:
            text = token.type in ("data", "string")
            value = worded(token.value, "examples") if text else token.value
            yield Token(token.lineno, token.type, value)
