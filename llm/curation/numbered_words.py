"""Texts as numbers: the words of many texts in one array, for n-grams by array arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# Scripts that write no spaces between words: there every character is a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_UNSPACED}]|[\p{{L}}\p{{N}}&&[^{_UNSPACED}]]+"
# ' ` and the quotation marks, the modifier letter and the accent written for them
_APOSTROPHES = list("'`\u2018\u2019\u02bc\u00b4")


def words(texts: pl.Series) -> pl.Series:
    """Lists of words: lower case, without accents, apostrophes or punctuation (``Don't!`` is ``dont``)."""
    lower = texts.fill_null("").str.to_lowercase().str.replace_many(_APOSTROPHES, [""] * len(_APOSTROPHES))
    foreign = (lower.str.len_bytes() != lower.str.len_chars()).arg_true()
    if len(foreign):
        # only these: normalising costs more than the rest, and ASCII has nothing to normalise
        decomposed = lower.gather(foreign).str.normalize("NFKD").str.replace_all(r"\p{M}+", "")
        lower = lower.scatter(foreign, decomposed)
    return lower.str.extract_all(_WORD)


@dataclass(frozen=True)
class Numbered:
    """The words of many texts in a row; text `i` is ``ids[starts[i]:starts[i + 1]]``, 0 any unknown word."""

    ids: Ints
    starts: Ints

    @property
    def lengths(self) -> Ints:
        """Words in each text."""
        return np.diff(self.starts)

    def texts(self) -> Ints:
        """The text of every word."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)

    def grams(self, offsets: tuple[int, ...], base: int) -> tuple[Ints, Ints]:
        """Places where known words of one text stand at these offsets, and the n-grams there as numbers."""
        width = offsets[-1] + 1
        n = max(0, len(self.ids) - width + 1)
        ends = np.repeat(self.starts[1:], self.lengths)[:n]
        whole = np.arange(width, width + n) <= ends
        codes = np.zeros(n, np.int64)
        for offset in offsets:
            ids = self.ids[offset : offset + n]
            codes = codes * base + ids
            whole &= ids > 0
        places = np.flatnonzero(whole)
        return places, codes[places]

    def runs(self, n: int) -> tuple[Ints, Ints]:
        """Places where `n` known words of one text begin, and a hash of those words."""
        count = max(0, len(self.ids) - n + 1)
        mixed = (self.ids.astype(np.uint64) ^ np.uint64(0x5851F42D4C957F2D)) * np.uint64(0x2545F4914F6CDD1D)
        mixed ^= mixed >> np.uint64(31)
        codes = np.zeros(count, np.uint64)
        for offset in range(n):
            codes = codes * np.uint64(0xD6E8FEB86659FD93) + mixed[offset : offset + count]
        unknown = np.concatenate([[0], np.cumsum(self.ids == 0)])
        ends = np.repeat(self.starts[1:], self.lengths)[:count]
        whole = (unknown[n:][:count] == unknown[:count]) & (np.arange(n, n + count) <= ends)
        places = np.flatnonzero(whole)
        return places, (codes[places] >> np.uint64(1)).astype(np.int64)


class Vocabulary:
    """Numbers from 1 for the words of some texts, in the order of the words."""

    def __init__(self, lists: pl.Series) -> None:
        found = lists.filter(lists.list.len() > 0).explode().unique().sort()
        self._known = pl.DataFrame({"word": found.cast(pl.String)}).with_row_index("id", offset=1)

    def __len__(self) -> int:
        return self._known.height + 1

    def number(self, lists: pl.Series) -> Numbered:
        """The numbers of the words in these lists."""
        starts = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)])
        flat = lists.filter(lists.list.len() > 0).explode().cast(pl.String).rename("word")
        joined = flat.to_frame().join(self._known, on="word", how="left", maintain_order="left")
        return Numbered(joined["id"].fill_null(0).to_numpy().astype(np.int64), starts.astype(np.int64))


class Lookup:
    """Sorted numbers, found in a large array of others."""

    def __init__(self, codes: Ints) -> None:
        self.codes = codes
        self._shift = np.uint64(64 - max(16, int(np.ceil(np.log2(16 * max(1, len(codes)))))))
        # one look into a table of bits spares fifteen of sixteen binary searches
        self._table = np.zeros(1 << (64 - int(self._shift)), bool)
        self._table[self._slots(codes)] = True

    def _slots(self, codes: Ints) -> Ints:
        mixed = codes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (mixed >> self._shift).astype(np.int64)

    def find(self, codes: Ints) -> tuple[Ints, Ints]:
        """Which of `codes` are there, and where."""
        likely = np.flatnonzero(self._table[self._slots(codes)])
        at = np.searchsorted(self.codes, codes[likely])
        at[at == len(self.codes)] = 0
        there = self.codes[at] == codes[likely] if len(self.codes) else np.zeros(len(at), bool)
        return likely[there], at[there]
