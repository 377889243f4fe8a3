"""Gopher's rules against repetition inside one document.

Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix A.1.1,
table A1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from llm.curation import duplicate_lines, words
from llm.curation.rules import Rule, above, elsewhere, share, verdict

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

Share = Annotated[float, Field(ge=0, le=1)]
Numbers = NDArray[np.uint64]

TOP = range(2, 5)
DUPLICATE = range(5, 11)
_MEASURES = (
    *(f"_{name}" for name in duplicate_lines.MEASURES),
    *(f"_top_{n}_gram" for n in TOP),
    *(f"_duplicate_{n}_grams" for n in DUPLICATE),
)


class GopherRepetition:
    """Removes documents that repeat themselves; `reason` is the first rule broken, `score` the measure.

    All bounds are those of the paper. An n-gram is n words (or marks of punctuation) in a row. The most
    frequent one counts with the spaces inside it and only if it occurs twice; of duplicate ones, every
    occurrence behind the first counts, and no character twice.

    Args:
        max_duplicate_lines: 0.3 of lines repeat an earlier one.
        max_duplicate_line_chars: 0.2 of characters are in such lines.
        max_duplicate_paragraphs: 0.3 of paragraphs repeat an earlier one.
        max_duplicate_paragraph_chars: 0.2 of characters are in such paragraphs.
        max_top_ngram_chars: 0.2, 0.18, 0.16 of characters are in the most frequent 2-, 3-, 4-gram.
        max_duplicate_ngram_chars: 0.15, 0.14, 0.13, 0.12, 0.11, 0.1 of characters are in duplicate 5- to
            10-grams.
        except_domains: Domains not judged, such as `code`: the rules describe prose.
    """

    def __init__(
        self,
        *,
        max_duplicate_lines: Share = 0.3,
        max_duplicate_line_chars: Share = 0.2,
        max_duplicate_paragraphs: Share = 0.3,
        max_duplicate_paragraph_chars: Share = 0.2,
        max_top_ngram_chars: Annotated[Sequence[Share], Field(min_length=3, max_length=3)] = (
            0.2,
            0.18,
            0.16,
        ),
        max_duplicate_ngram_chars: Annotated[Sequence[Share], Field(min_length=6, max_length=6)] = (
            0.15,
            0.14,
            0.13,
            0.12,
            0.11,
            0.1,
        ),
        except_domains: Sequence[str] = (),
    ) -> None:
        self.bounds = (
            max_duplicate_lines,
            max_duplicate_line_chars,
            max_duplicate_paragraphs,
            max_duplicate_paragraph_chars,
            *max_top_ngram_chars,
            *max_duplicate_ngram_chars,
        )
        self.except_domains = tuple(except_domains)

    @property
    def attributes(self) -> Mapping[str, PolarsDataType]:
        """All that the rules look at; dropped after the step."""
        return dict.fromkeys(_MEASURES, pl.Float64)

    def tag_key(self) -> object:
        """No bound has a part in what is measured."""
        return ["gopher_repetition", 2]

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """Every measure of every text."""
        listed = texts.to_list()
        blocks = [_ngram_chars(block) for block in words.blocks(listed)]
        chars = np.concatenate([np.zeros((0, len(TOP) + len(DUPLICATE))), *blocks])
        whole = np.array([len(text) for text in listed], np.int64)
        columns = [*duplicate_lines.measure(listed).T, *(share(column, whole) for column in chars.T)]
        return pl.DataFrame(dict(zip(_MEASURES, columns, strict=True)), schema=dict(self.attributes))

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """Judges every document outside `except_domains`."""
        rules: list[Rule] = [
            above(measure.removeprefix("_"), measure, bound)
            for measure, bound in zip(_MEASURES, self.bounds, strict=True)
        ]
        return verdict(self, documents, rules, elsewhere(self.except_domains))


def _ngram_chars(block: words.Words) -> NDArray[np.float64]:
    """For each text, characters in its most frequent 2- to 4-grams and in its duplicate 5- to 10-grams.

    An n-gram can only occur twice where its first n - 1 words do. So after the pairs, which are sorted all,
    each round looks at what the one before left, and of ordinary prose that is soon next to nothing.
    """
    n_texts = block.first.size - 1
    found = np.zeros((n_texts, len(TOP) + len(DUPLICATE)))
    text_of = np.repeat(np.arange(n_texts), np.diff(block.first))
    lengths = block.ends - block.starts
    before = np.concatenate(([0], np.cumsum(lengths)))
    word = _hashes(block)
    # The same word in another text is another word. Numbers of texts stay clear of those of characters, which
    # `_hashes` mixes too: else character i in text j would be character j in text i.
    gram = _mixed(word ^ _mixed(text_of.astype(np.uint64) + np.uint64(1 << 40)))
    places = np.arange(gram.size)
    for n in range(2, DUPLICATE.stop):
        inside = places + n <= block.first[text_of[places] + 1]
        places, gram = places[inside], gram[inside]
        gram = _mixed(gram) ^ word[places + n - 1]
        places, gram, number = _repeated(places, gram)
        if not places.size:
            break
        chars = before[places + n] - before[places]
        column = found[:, n - 2]
        if n in TOP:
            _count_top(number, text_of[places], chars + n - 1, column)
        else:
            _count_duplicates(places, number, text_of[places], chars, n, column)
    return found


def _repeated(places: words.Places, gram: Numbers) -> tuple[words.Places, Numbers, words.Places]:
    """The n-grams that occur more than once, in the order of the text, each different one with a number."""
    order = np.argsort(gram)
    ordered = gram[order]
    opens = np.append(True, ordered[1:] != ordered[:-1])[: gram.size]
    alone = opens & np.append(opens[1:], True)[: gram.size]
    number = np.empty(gram.size, np.intp)
    number[order] = np.cumsum(opens) - 1
    several = np.empty(gram.size, np.bool_)
    several[order] = ~alone
    return places[several], gram[several], number[several]


def _count_top(
    number: words.Places, text: words.Places, chars: words.Places, column: NDArray[np.float64]
) -> None:
    """Characters of each text's most frequent n-gram; of several as frequent, the first counts."""
    count = np.bincount(number)
    first = np.zeros(count.size, np.int64)
    first[number[::-1]] = np.arange(number.size)[::-1]
    groups = np.flatnonzero(count)
    first, count = first[groups], count[groups]
    best = np.zeros(column.size, np.int64)
    np.maximum.at(best, text[first], (count << 32) | (0xFFFFFFFF - first))
    texts = np.flatnonzero(best)
    column[texts] = (best[texts] >> 32) * chars[0xFFFFFFFF - (best[texts] & 0xFFFFFFFF)]


def _count_duplicates(
    places: words.Places,
    number: words.Places,
    text: words.Places,
    chars: words.Places,
    n: int,
    column: NDArray[np.float64],
) -> None:
    """Characters of n-grams seen before, read from left to right; what was counted is not read again."""
    seen: set[int] = set()
    free = 0
    for place, gram, row, size in zip(
        places.tolist(), number.tolist(), text.tolist(), chars.tolist(), strict=True
    ):
        if place < free:
            continue
        if gram in seen:
            column[row] += size
            free = place + n
        else:
            seen.add(gram)


def _hashes(block: words.Words) -> Numbers:
    """A number for each token that depends on its characters alone.

    Token s..e gets the sum over its characters c of mix(c) * base^(e - place) modulo 2^64, as the
    difference of two prefix sums: `base` is odd, so a power of it has an inverse.
    """
    powers, inverse = _powers(1 << block.codes.size.bit_length())
    sums = np.zeros(block.codes.size + 1, np.uint64)
    np.cumsum((block.codes + np.uint64(1)) * powers[: block.codes.size], out=sums[1:])
    return _mixed((sums[block.ends] - sums[block.starts]) * inverse[block.starts])


@lru_cache(maxsize=1)
def _powers(size: int) -> tuple[Numbers, Numbers]:
    """The powers of an odd number from the first on, and what undoes a multiplication by each."""
    base = 0x9E3779B97F4A7C15
    inverse = pow(base, -1, 1 << 64)
    powers = np.cumprod(np.full(size, base, np.uint64), dtype=np.uint64)
    return powers, np.cumprod(np.full(size, inverse, np.uint64), dtype=np.uint64)


def _mixed(number: Numbers) -> Numbers:
    """Spreads the bits (the finaliser of splitmix64, Steele et al. 2014)."""
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))
