"""Lines and paragraphs of a text that repeat an earlier one of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MEASURES = (
    "duplicate_lines",
    "duplicate_line_chars",
    "duplicate_paragraphs",
    "duplicate_paragraph_chars",
)
"""The columns of `measure`: how many of the lines repeat an earlier one, what share of all characters of
lines is in such lines, and both for paragraphs. Blank lines and the spaces around a line do not count."""

_BLANK = re.compile(r"\n\s*\n")


def measure(texts: Sequence[str]) -> NDArray[np.float64]:
    """One row a text, one column a measure."""
    found = [measure_lines(text, parts(text.split("\n"))) for text in texts]
    return np.array(found).reshape(-1, len(MEASURES))


def measure_lines(text: str, lines: Sequence[str]) -> tuple[float, ...]:
    """The measures of one text whose `parts` by lines are known."""
    if len(set(lines)) == len(lines):
        return 0.0, 0.0, 0.0, 0.0  # without a line twice there is no paragraph twice
    return *_repeated(lines), *_repeated(parts(_BLANK.split(text)))


def parts(pieces: Sequence[str]) -> list[str]:
    """The pieces that are not blank, without the spaces around them."""
    return [stripped for piece in pieces if (stripped := piece.strip())]


def _repeated(pieces: Sequence[str]) -> tuple[float, float]:
    unique = set(pieces)
    if len(unique) == len(pieces):
        return 0.0, 0.0
    total = sum(map(len, pieces))
    return (len(pieces) - len(unique)) / len(pieces), (total - sum(map(len, unique))) / total
