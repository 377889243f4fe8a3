"""A text as one line that fastText reads as nothing but text."""

from __future__ import annotations

LABEL_PREFIX = "__label__"
"""What fastText takes for a label in a line of training data."""


def one_line(text: str) -> str:
    """The words of `text` with single spaces between them.

    fastText ends its input at a line break and also at the word ``</s>``, and while training takes a word
    that begins with ``__label__`` for a label: a text that holds these would be cut or mislabelled.
    """
    if "</s>" in text or LABEL_PREFIX in text:
        text = text.replace("</s>", " ").replace(LABEL_PREFIX, " ")
    return " ".join(text.replace("\0", " ").split())
