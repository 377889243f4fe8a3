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
    found = np.zeros((len(texts), len(MEASURES)))
    for row, text in enumerate(texts):
        lines = _parts(text.split("\n"))
        if len(set(lines)) == len(lines):
            continue  # without a line twice there is no paragraph twice
        found[row, :2] = _repeated(lines)
        found[row, 2:] = _repeated(_parts(_BLANK.split(text)))
    return found


def _parts(parts: Sequence[str]) -> list[str]:
    return [stripped for part in parts if (stripped := part.strip())]


def _repeated(parts: Sequence[str]) -> tuple[float, float]:
    unique = set(parts)
    if len(unique) == len(parts):
        return 0.0, 0.0
    total = sum(map(len, parts))
    return (len(parts) - len(unique)) / len(parts), (total - sum(map(len, unique))) / total
