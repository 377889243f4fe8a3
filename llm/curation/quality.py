"""Gopher's rules of thumb for natural text.

Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix
A.1.1: quality filtering, and of the repetition rules (their table A1) those on lines and paragraphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from llm.curation import duplicate_lines, words
from llm.curation.rules import above, below, elsewhere, share, verdict
from llm.types import ConfigError

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

BULLETS = frozenset("-*•‣▪◦")
ELLIPSES = ("...", "…")
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class GopherQuality:
    """Removes documents outside the paper's bounds; `reason` is the rule, `score` what was measured.

    The first rule broken, in the order below, is the one named. Paper's thresholds beside each:

    Args:
        min_words: 50.
        max_words: 100,000.
        min_mean_word_length: 3 characters.
        max_mean_word_length: 10 characters.
        max_symbol_word_ratio: 0.1, for `#` and for ellipses each.
        max_bullet_lines: 0.9 of lines start with a bullet.
        max_ellipsis_lines: 0.3 of lines end with an ellipsis.
        min_alphabetic_words: 0.8 of words hold a letter, marks of punctuation counted as words, as datatrove
            does: much dialogue counts as few letters.
        min_stop_words: 2 different ones of the, be, to, of, and, that, have, with.
        max_duplicate_lines: 0.3 of lines repeat an earlier one.
        max_duplicate_line_chars: 0.2 of characters are in such lines.
        max_duplicate_paragraphs: 0.3 of paragraphs repeat an earlier one.
        max_duplicate_paragraph_chars: 0.2 of characters are in such paragraphs.
        except_domains: Domains not judged, such as `code`: the rules describe prose.
    """

    def __init__(
        self,
        *,
        min_words: Count = 50,
        max_words: Count = 100_000,
        min_mean_word_length: Annotated[float, Field(ge=0)] = 3.0,
        max_mean_word_length: Annotated[float, Field(ge=0)] = 10.0,
        max_symbol_word_ratio: Annotated[float, Field(ge=0)] = 0.1,
        max_bullet_lines: Share = 0.9,
        max_ellipsis_lines: Share = 0.3,
        min_alphabetic_words: Share = 0.8,
        min_stop_words: Annotated[int, Field(ge=0, le=8)] = 2,
        max_duplicate_lines: Share = 0.3,
        max_duplicate_line_chars: Share = 0.2,
        max_duplicate_paragraphs: Share = 0.3,
        max_duplicate_paragraph_chars: Share = 0.2,
        except_domains: Sequence[str] = (),
    ) -> None:
        self.check_arguments(min_words, max_words, min_mean_word_length, max_mean_word_length)
        self.min_words, self.max_words = min_words, max_words
        self.min_mean_word_length, self.max_mean_word_length = min_mean_word_length, max_mean_word_length
        self.max_symbol_word_ratio = max_symbol_word_ratio
        self.max_bullet_lines, self.max_ellipsis_lines = max_bullet_lines, max_ellipsis_lines
        self.min_alphabetic_words, self.min_stop_words = min_alphabetic_words, min_stop_words
        self.max_duplicate_lines, self.max_duplicate_line_chars = (
            max_duplicate_lines,
            max_duplicate_line_chars,
        )
        self.max_duplicate_paragraphs = max_duplicate_paragraphs
        self.max_duplicate_paragraph_chars = max_duplicate_paragraph_chars
        self.except_domains = tuple(except_domains)

    @staticmethod
    def check_arguments(
        min_words: int, max_words: int, min_mean_word_length: float, max_mean_word_length: float
    ) -> None:
        """A lower bound above its upper bound would remove everything.

        Raises:
            ConfigError: that is so. Key: the lower bound.
        """
        if min_words > max_words:
            raise ConfigError("min_words", min_words, f"is above max_words={max_words}")
        if min_mean_word_length > max_mean_word_length:
            mend = f"is above max_mean_word_length={max_mean_word_length}"
            raise ConfigError("min_mean_word_length", min_mean_word_length, mend)

    @property
    def attributes(self) -> Mapping[str, PolarsDataType]:
        """All that the rules look at; dropped after the step."""
        return dict.fromkeys(_ATTRIBUTES, pl.Float64)

    def tag_key(self) -> object:
        """No bound has a part in what is measured."""
        return ["gopher_quality", 2]

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """Every measure of every text."""
        listed = texts.to_list()
        n_words, n_tokens, n_alphabetic, n_chars = _count_words(listed)
        counted = texts.to_frame("text").select(_counts(pl.col("text")))
        hashes, ellipses, stops = (column.to_numpy() for column in counted)
        by_line = np.array([_lines(text) for text in listed]).reshape(-1, 3 + len(duplicate_lines.MEASURES))
        lines, bullets, open_ends, *repeated = by_line.T
        columns = [
            n_words,
            share(n_chars, n_words),
            share(hashes, n_tokens),
            share(ellipses, n_tokens),
            share(bullets, lines),
            share(open_ends, lines),
            share(n_alphabetic, n_tokens),
            stops,
            *repeated,
        ]
        return pl.DataFrame(dict(zip(_ATTRIBUTES, columns, strict=True)), schema=dict(self.attributes))

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """Judges every document outside `except_domains`."""
        symbols = self.max_symbol_word_ratio
        rules = [
            below("too_few_words", "_words", self.min_words),
            above("too_many_words", "_words", self.max_words),
            below("words_too_short", "_mean_word_length", self.min_mean_word_length),
            above("words_too_long", "_mean_word_length", self.max_mean_word_length),
            above("hash_signs", "_hash_signs", symbols),
            above("ellipses", "_ellipses", symbols),
            above("bullet_lines", "_bullet_lines", self.max_bullet_lines),
            above("ellipsis_lines", "_ellipsis_lines", self.max_ellipsis_lines),
            below("few_alphabetic_words", "_alphabetic_words", self.min_alphabetic_words),
            below("few_stop_words", "_stop_words", self.min_stop_words),
            above("duplicate_lines", "_duplicate_lines", self.max_duplicate_lines),
            above("duplicate_line_chars", "_duplicate_line_chars", self.max_duplicate_line_chars),
            above("duplicate_paragraphs", "_duplicate_paragraphs", self.max_duplicate_paragraphs),
            above(
                "duplicate_paragraph_chars",
                "_duplicate_paragraph_chars",
                self.max_duplicate_paragraph_chars,
            ),
        ]
        return verdict(self, documents, rules, elsewhere(self.except_domains))


_ATTRIBUTES = (
    "_words",
    "_mean_word_length",
    "_hash_signs",
    "_ellipses",
    "_bullet_lines",
    "_ellipsis_lines",
    "_alphabetic_words",
    "_stop_words",
    *(f"_{name}" for name in duplicate_lines.MEASURES),
)


def _count_words(texts: Sequence[str]) -> tuple[NDArray[np.int64], ...]:
    """Of each text: words, tokens (words and punctuation), words with a letter, characters in words."""
    found: list[list[NDArray[np.int64]]] = []
    for block in words.blocks(texts):
        is_word = block.holding(words.LETTER, words.CAPITAL, words.DIGIT)
        found.append(
            [
                block.per_text(is_word),
                np.diff(block.first),
                block.per_text(block.holding(words.LETTER, words.CAPITAL)),
                block.per_text((block.ends - block.starts) * is_word),
            ]
        )
    none = np.zeros(0, np.int64)
    return tuple(np.concatenate([none, *parts]) for parts in zip(*found, strict=True)) or (none,) * 4


def _lines(text: str) -> tuple[float, ...]:
    """Lines with something in them, bullets, ellipses at line ends; the measures of `duplicate_lines`."""
    lines = duplicate_lines.parts(text.split("\n"))
    bullets = sum([line[0] in BULLETS for line in lines])
    open_ends = sum([line.endswith(ELLIPSES) for line in lines])
    return len(lines), bullets, open_ends, *duplicate_lines.measure_lines(text, lines)


def _counts(text: pl.Expr) -> list[pl.Expr]:
    """`#`, ellipses, different stop words."""
    # the boundary of ASCII is the one that regular expressions find without looking back
    stops = (text.str.contains(rf"(?i)(?-u:\b){stop}(?-u:\b)").cast(pl.Int64) for stop in STOP_WORDS)
    return [
        text.str.count_matches("#", literal=True).alias("hashes"),
        text.str.count_matches(r"\.\.\.|…").alias("ellipses"),
        pl.sum_horizontal(stops).alias("stops"),
    ]
