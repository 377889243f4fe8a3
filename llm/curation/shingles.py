"""Shingles of whole batches of texts as 64-bit hashes, the same on every machine and in every version.

A span (a word, a run of words, a run of characters) is a polynomial in its values modulo 2^64, so that one
running sum over a batch gives the hash of every span in it (Karp and Rabin 1987, "Efficient randomized
pattern-matching algorithms"); a mixer then spreads the bits.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]
Unit = Literal["word", "character"]

BATCH_CHARS = 1 << 17
"""A batch's arrays stay in the processor's second-level cache."""

BASE = 0x9E6C63D0876A9A47
INVERSE = pow(BASE, -1, 1 << 64)

OUTSIDE, IN_WORD, OWN_WORD = 0, 1, 2

UNSPACED = (
    (0x0E00, 0x10A0),  # Thai, Lao, Tibetan, Burmese
    (0x1780, 0x1800),  # Khmer
    (0x3005, 0x3008),
    (0x3041, 0x3130),  # kana, Bopomofo
    (0x31A0, 0x3200),
    (0x3400, 0xA000),  # Han
    (0xF900, 0xFB00),
    (0xFF66, 0xFFA0),
    (0x20000, 0x32000),
)
"""Scripts written without spaces: there each character counts as a word."""


@dataclass(frozen=True)
class Shingles:
    """Hashes of texts, one text after the other; `ends` tells where each text's end."""

    hashes: Hashes
    ends: Places

    @property
    def counts(self) -> Places:
        """How many each text has."""
        return np.diff(self.ends, prepend=0)

    def having_some(self) -> Shingles:
        """The same without the texts that have none."""
        return Shingles(self.hashes, self.ends[self.counts > 0])

    def split(self) -> list[Hashes]:
        """The hashes of each text."""
        return np.split(self.hashes, self.ends[:-1]) if len(self.ends) else []

    def distinct(self) -> Shingles:
        """Each text's hashes sorted and without repetition: the set that Jaccard similarity compares."""
        hashes = self.hashes.copy()
        starts = self.ends - self.counts
        for start, end in zip(starts.tolist(), self.ends.tolist(), strict=True):
            hashes[start:end].sort()
        new = np.ones(len(hashes), bool)
        np.not_equal(hashes[1:], hashes[:-1], out=new[1:])
        new[starts[starts < len(hashes)]] = True
        return Shingles(hashes[new], np.concatenate(([0], np.cumsum(new)))[self.ends])


class Shingler:
    """Turns texts into shingles; case, punctuation and spacing do not count.

    A word is a run of letters, digits, marks and underscores; in scripts written without spaces (Han, kana,
    Thai ...) each character is one. A text shorter than a shingle is one shingle, one without words none.

    Args:
        unit: `word`, or `character` with one space between the runs.
        length: Units in a shingle.
    """

    def __init__(self, unit: Unit, length: int) -> None:
        self.unit, self.length = unit, length

    def __call__(self, texts: Sequence[str]) -> Shingles:
        """The shingles of a batch, with repetitions, in the order of the text."""
        # a separator in front and behind every text: no word goes on from one to the next
        lowered = [text.lower() for text in texts]
        joined = "\n".join(("", *lowered, ""))
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
        bounds = np.cumsum([1, *(len(text) + 1 for text in lowered)])
        kinds = _kinds(codes)
        units, starts = _words(codes, kinds) if self.unit == "word" else _characters(codes, kinds)
        first = np.searchsorted(starts, bounds)
        lengths = np.diff(first)
        if self.unit == "character":
            lengths = lengths - (lengths > 0)  # without the space behind the last run
        counts = np.where(lengths > 0, np.maximum(lengths - self.length + 1, 1), 0)
        ends = np.cumsum(counts)
        starts = ends - counts
        begin = np.arange(counts.sum()) + np.repeat(first[:-1] - starts, counts)
        hashes = _windows(units, self.length, begin)
        short = (lengths > 0) & (lengths < self.length)
        if short.any():
            hashes[starts[short]] = _spans(units, first[:-1][short], (first[:-1] + lengths)[short])
        return Shingles(hashes, ends)


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive texts, about `BATCH_CHARS` together."""
    start = total = 0
    for place, text in enumerate(texts):
        total += len(text)
        if total >= BATCH_CHARS:
            yield texts[start : place + 1]
            start, total = place + 1, 0
    if start < len(texts):
        yield texts[start:]


def mix(values: Hashes) -> Hashes:
    """Spreads every bit over all (the finaliser of SplitMix64, Steele et al. 2014); changes `values`."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


@lru_cache(maxsize=1)
def character_kinds() -> NDArray[np.uint8]:
    """For every code point: outside of words, in a word, or a word of its own."""
    kinds = np.zeros(0x110000, np.uint8)
    # beyond the first two planes there are letters of Han only
    for code in range(0x20000):
        category = unicodedata.category(chr(code))
        if category[0] in "LN" or category in ("Mn", "Mc"):
            kinds[code] = IN_WORD
    kinds[0xFE00:0xFE10] = OUTSIDE  # selectors of emoji variants
    kinds[ord("_")] = IN_WORD
    for start, end in UNSPACED:
        part = kinds[start:end]
        part[(part == IN_WORD) | (start >= 0x20000)] = OWN_WORD
    return kinds


def _kinds(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """The kind of each character."""
    table = character_kinds()
    kinds = np.frombuffer(bytearray(codes.astype(np.uint8)).translate(table[:256].tobytes()), np.uint8)
    # the translation of single bytes is the faster by far, and most of most texts is ASCII
    others = np.flatnonzero(codes > 0x7F)
    kinds[others] = table[codes[others]]
    return kinds


def _words(codes: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> tuple[Hashes, Places]:
    """Hashes of all words and where they start."""
    inside, own = kinds == IN_WORD, kinds == OWN_WORD
    turns = inside[1:] != inside[:-1]
    if not own.any():
        edges = np.flatnonzero(turns) + 1
        starts, ends = edges[::2], edges[1::2]
    else:
        starts = np.flatnonzero(own[1:] | (turns & inside[1:])) + 1
        ends = np.flatnonzero(own[:-1] | (turns & inside[:-1])) + 1
    return _spans(codes, starts, ends), starts


def _characters(codes: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> tuple[Hashes, Places]:
    """Characters of words, one space after each run, and where they stand."""
    inside = kinds != OUTSIDE
    kept = inside.copy()
    kept[1:] |= inside[:-1]
    places = np.flatnonzero(kept)
    return np.where(inside, codes, ord(" "))[places].astype(np.uint64), places


def _windows(values: NDArray[np.unsignedinteger], length: int, starts: Places) -> Hashes:
    """Hashes of the spans of this length from `starts` on; of those that go beyond the end, anything.

    As `_spans`, and quicker: all windows side by side need no looking up.
    """
    if len(values) < length:
        return np.zeros(len(starts), np.uint64)
    sums, inverses = _sums(values)
    found = sums[length:] - sums[:-length]
    found *= inverses[: len(found)]
    return mix(found).take(starts, mode="clip")


def _spans(values: NDArray[np.unsignedinteger], starts: Places, ends: Places) -> Hashes:
    """Hashes of the spans from `starts` up to `ends` (not with it)."""
    sums, inverses = _sums(values)
    found = sums[ends]
    found -= sums[starts]
    found *= inverses.take(starts)  # as if each span stood at place 0
    return mix(found)


def _sums(values: NDArray[np.unsignedinteger]) -> tuple[Hashes, Hashes]:
    """The polynomial in all values before each place, and what brings one that starts there to place 0."""
    powers, inverses = _powers(len(values))
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * powers, out=sums[1:])
    return sums, inverses


def _powers(size: int) -> tuple[Hashes, Hashes]:
    """`BASE` and its inverse to the powers 0, 1, ... up to `size`."""
    powers, inverses = _usual_powers()
    if size > len(powers):
        powers, inverses = _new_powers(size)
    return powers[:size], inverses[:size]


@lru_cache(maxsize=1)
def _usual_powers() -> tuple[Hashes, Hashes]:
    return _new_powers(2 * BATCH_CHARS)


def _new_powers(size: int) -> tuple[Hashes, Hashes]:
    powers, inverses = np.full(size, BASE, np.uint64), np.full(size, INVERSE, np.uint64)
    powers[0] = inverses[0] = 1
    return np.cumprod(powers), np.cumprod(inverses)
