"""Shingles of single texts and their similarity, in plain Python.

`llm.curation.shingles` does the same for whole batches by hashes.
"""

from __future__ import annotations

import re

WORD = re.compile(r"\w+")


def shingles(text: str, n_words: int) -> frozenset[str]:
    """Distinct runs of `n_words` lower-case words; the whole text when it is shorter."""
    words = WORD.findall(text.lower())
    if len(words) <= n_words:
        return frozenset({" ".join(words)}) if words else frozenset()
    return frozenset(" ".join(words[i : i + n_words]) for i in range(len(words) - n_words + 1))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Size of the intersection over size of the union; 0 for two empty sets."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0
