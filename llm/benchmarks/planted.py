"""A corpus of made-up words with near duplicates planted in it, and the truth about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm.curation.near_duplicates import WORD

N_KNOWN_WORDS = 20_000
NEAR = (0.8, 1.0)
HARD = (0.6, 0.8)
LETTERS = np.array(list("etaoinshrdlucmfwypvbgk"))


@dataclass(frozen=True)
class Planted:
    """Texts in a random order. n_near, n_hard: how many repeat another one above 0.8, and nearly so."""

    texts: list[str]
    n_near: int
    n_hard: int


def plant(n_documents: int, seed: int, n_words: int = 5) -> Planted:
    """Documents of about 2 KB, their words drawn by Zipf's law.

    One document in ten is a changed copy of another with a Jaccard similarity (shingles of `n_words` words)
    uniform over [0.8, 1], and one in twenty a copy with one over [0.6, 0.8), which no near duplicate is.

    Args:
        n_documents: Documents, copies included.
        seed: Chooses everything.
        n_words: Length of the shingles that similarity is meant for.
    """
    chance = np.random.default_rng(seed)
    n_near, n_hard = n_documents // 10, n_documents // 20
    known = _known_words(chance)
    frequency = 1 / np.arange(1, N_KNOWN_WORDS + 1)
    frequency /= frequency.sum()
    n_originals = n_documents - n_near - n_hard
    ends = np.cumsum(chance.integers(220, 480, n_originals))
    documents = np.split(chance.choice(N_KNOWN_WORDS, ends[-1], p=frequency), ends[:-1])
    for number in range(n_near + n_hard):
        low, high = NEAR if number < n_near else HARD
        wanted = chance.uniform(low, high)
        documents.append(_changed(documents[number], wanted, n_words, chance))
    order = chance.permutation(n_documents)
    return Planted([_prose(known[documents[i]].tolist(), chance) for i in order], n_near, n_hard)


def true_pairs(texts: Sequence[str], n_words: int, threshold: float) -> dict[tuple[int, int], float]:
    """All pairs of texts of at least this Jaccard similarity, found by comparing every pair.

    Pairs without a common shingle have similarity 0, so the pairs that have one are all there is to count.
    Shingles are told apart by their words themselves, not by hashes.
    """
    numbers: dict[str, int] = {}
    cut = [[numbers.setdefault(word, len(numbers)) for word in WORD.findall(text.lower())] for text in texts]
    assert min(map(len, cut)) >= n_words, "texts shorter than a shingle"
    words = np.concatenate([np.asarray(one, np.int64) for one in cut])
    owner = np.repeat(np.arange(len(texts)), [len(one) for one in cut])
    runs = words
    for distance in range(1, n_words):
        _, runs = np.unique(runs[:-1] * len(numbers) + words[distance:], return_inverse=True)
    n_runs = len(runs)
    inside = owner[:n_runs] == owner[n_words - 1 :]
    held = np.unique(runs[inside] * len(texts) + owner[:n_runs][inside])  # sorted by shingle, then by text
    run, text = np.divmod(held, len(texts))
    sizes = np.bincount(text, minlength=len(texts))
    met = [np.empty(0, np.int64)]
    distance = 1
    while (same := run[distance:] == run[:-distance]).any():
        met.append(text[:-distance][same] * len(texts) + text[distance:][same])
        distance += 1
    pairs, shared = np.unique(np.concatenate(met), return_counts=True)
    first, second = np.divmod(pairs, len(texts))
    similarity = shared / (sizes[first] + sizes[second] - shared)
    alike = np.flatnonzero(similarity >= threshold)
    return {(int(first[i]), int(second[i])): float(similarity[i]) for i in alike}


def _known_words(chance: np.random.Generator) -> NDArray[np.str_]:
    """Different words of two to eight letters, in a random order."""
    n_drawn = 2 * N_KNOWN_WORDS  # some come twice
    letters = chance.choice(LETTERS, (n_drawn, 8))
    lengths = chance.integers(2, 9, n_drawn)
    drawn = ("".join(row[:length]) for row, length in zip(letters.tolist(), lengths.tolist(), strict=True))
    return np.array(list(dict.fromkeys(drawn))[:N_KNOWN_WORDS])


def _changed(
    words: NDArray[np.int64], similarity: float, n_words: int, chance: np.random.Generator
) -> NDArray[np.int64]:
    """A copy with words replaced here and there so that the similarity comes as near as it can."""
    n_shingles = len(words) - n_words + 1
    # x shingles replaced of n leave n - x common ones among n + x
    left = round(n_shingles * (1 - similarity) / (1 + similarity))
    changed = words.copy()
    if left < n_words:  # the last words are in fewer shingles
        changed[len(words) - left :] = chance.integers(N_KNOWN_WORDS // 2, N_KNOWN_WORDS, left)
        return changed
    n_places = left // n_words
    apart = n_shingles // n_places  # a word replaced costs the n shingles it is in
    for place in range(n_places):
        extra = left % n_words if place == 0 else 0
        start = place * apart + n_words - 1
        changed[start : start + 1 + extra] = chance.integers(N_KNOWN_WORDS // 2, N_KNOWN_WORDS, 1 + extra)
    return changed


def _prose(words: Sequence[str], chance: np.random.Generator) -> str:
    """Sentences of five to twenty words."""
    sentences, start = [], 0
    while start < len(words):
        length = int(chance.integers(5, 21))
        sentences.append(" ".join(words[start : start + length]).capitalize() + ".")
        start += length
    return " ".join(sentences)
