"""Near-duplicate texts: MinHash finds candidates, exact Jaccard similarity decides.

Broder 1997, "On the resemblance and containment of documents"; banding as in Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", section 3.4. Signatures come from rensa.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from rensa import RMinHash

WORD = re.compile(r"\w+")
N_BANDS, N_ROWS = 32, 4
"""128 hashes: two texts of similarity 0.6 share a band with probability 1 - (1 - 0.6^4)^32 = 0.99."""


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


def copies_of(
    references: Sequence[str], texts: Sequence[str], *, threshold: float, n_words: int
) -> list[tuple[int, float] | None]:
    """For each text, the reference it nearly repeats and their similarity; None for those that are new.

    Args:
        references: Texts that stay.
        texts: Texts that must not repeat them.
        threshold: Jaccard similarity of word shingles from which a text counts as a copy.
        n_words: Length of a shingle in words.
    """
    kept, asked = ([shingles(one, n_words) for one in side] for side in (references, texts))
    tables: list[defaultdict[tuple[int, ...], list[int]]] = [defaultdict(list) for _ in range(N_BANDS)]
    for index, signature in enumerate(_signatures(kept)):
        if kept[index]:
            for band, table in enumerate(tables):
                table[tuple(signature[band * N_ROWS : (band + 1) * N_ROWS])].append(index)
    found: list[tuple[int, float] | None] = []
    for parts, signature in zip(asked, _signatures(asked), strict=True):
        candidates: set[int] = set()
        if parts:
            for band, table in enumerate(tables):
                candidates.update(table.get(tuple(signature[band * N_ROWS : (band + 1) * N_ROWS]), ()))
        best = max(((jaccard(parts, kept[i]), -i) for i in candidates), default=(0.0, 0))
        found.append((-best[1], best[0]) if candidates and best[0] >= threshold else None)
    return found


def _signatures(sets: Sequence[frozenset[str]]) -> list[list[int]]:
    if not sets:
        return []
    rows = RMinHash.digests_from_token_sets([sorted(one) for one in sets], N_BANDS * N_ROWS, 42)
    return [list(row) for row in rows]
