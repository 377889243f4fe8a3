"""Gopher's rules of thumb for natural text.

Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix
A.1.1: quality filtering, and of the repetition rules (their table A1) those on lines and paragraphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.types import ConfigError

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
        min_alphabetic_words: 0.8 of words hold a letter.
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

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """Judges every document outside `except_domains`."""
        rules = self._rules()
        measured = documents.with_columns(
            pl.col("text").str.extract_all(r"\S+").alias("_words"),
            _parts(r"\n").alias("_lines"),
            _parts(r"\n\s*\n").alias("_paragraphs"),
        ).with_columns(value.cast(pl.Float64).alias(f"_{name}") for name, value, _ in rules)
        judged = ~pl.col("domain").is_in(list(self.except_domains))
        reason = pl.coalesce(
            pl.when(judged & broken(pl.col(f"_{name}"))).then(pl.lit(name)) for name, _, broken in rules
        )
        score = pl.coalesce(
            pl.when(pl.col("reason") == name).then(pl.col(f"_{name}")) for name, _, _ in rules
        )
        own = ["_words", "_lines", "_paragraphs", *(f"_{name}" for name, _, _ in rules)]
        return (
            measured.with_columns(reason.alias("reason"))
            .with_columns(
                pl.col("reason").is_null().alias("keep"),
                score.alias("score"),
                pl.lit(None, pl.String).alias("match"),
            )
            .drop(own)
        )

    def _rules(self) -> list[tuple[str, pl.Expr, Callable[[pl.Expr], pl.Expr]]]:
        """Name, what is measured, and when the measure is out of bounds."""
        words, lines, paragraphs = pl.col("_words"), pl.col("_lines"), pl.col("_paragraphs")
        n_words, element = words.list.len(), pl.element()
        text = pl.col("text")
        stops = sum(
            (text.str.contains(rf"(?i)\b{stop}\b").cast(pl.Int64) for stop in STOP_WORDS), start=pl.lit(0)
        )
        mean_length = words.list.eval(element.str.len_chars()).list.mean().fill_null(0.0)
        return [
            ("too_few_words", n_words, lambda m: m < self.min_words),
            ("too_many_words", n_words, lambda m: m > self.max_words),
            ("words_too_short", mean_length, lambda m: m < self.min_mean_word_length),
            ("words_too_long", mean_length, lambda m: m > self.max_mean_word_length),
            (
                "hash_signs",
                _ratio(text.str.count_matches("#"), n_words),
                lambda m: m > self.max_symbol_word_ratio,
            ),
            (
                "ellipses",
                _ratio(text.str.count_matches(r"\.\.\.|…"), n_words),
                lambda m: m > self.max_symbol_word_ratio,
            ),
            ("bullet_lines", _share(lines, r"^\s*[-*•‣▪◦]"), lambda m: m > self.max_bullet_lines),
            ("ellipsis_lines", _share(lines, r"(\.\.\.|…)\s*$"), lambda m: m > self.max_ellipsis_lines),
            ("few_alphabetic_words", _share(words, r"\p{L}"), lambda m: m < self.min_alphabetic_words),
            ("few_stop_words", stops, lambda m: m < self.min_stop_words),
            ("duplicate_lines", _repeated(lines), lambda m: m > self.max_duplicate_lines),
            ("duplicate_line_chars", _repeated_chars(lines), lambda m: m > self.max_duplicate_line_chars),
            ("duplicate_paragraphs", _repeated(paragraphs), lambda m: m > self.max_duplicate_paragraphs),
            (
                "duplicate_paragraph_chars",
                _repeated_chars(paragraphs),
                lambda m: m > self.max_duplicate_paragraph_chars,
            ),
        ]


def _parts(separator: str) -> pl.Expr:
    """Non-blank parts of the text, trimmed."""
    # polars splits on literals only, so the pattern first becomes a character no text holds
    marked = pl.col("text").str.replace_all(separator, "\x1e").str.split("\x1e")
    return marked.list.eval(pl.element().str.strip_chars().filter(pl.element().str.strip_chars() != ""))


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole).otherwise(0.0)


def _share(parts: pl.Expr, pattern: str) -> pl.Expr:
    return parts.list.eval(pl.element().str.contains(pattern)).list.mean().fill_null(0.0)


def _repeated(parts: pl.Expr) -> pl.Expr:
    return _ratio(parts.list.len() - parts.list.n_unique(), parts.list.len())


def _repeated_chars(parts: pl.Expr) -> pl.Expr:
    total = parts.list.eval(pl.element().str.len_chars()).list.sum()
    unique = parts.list.unique().list.eval(pl.element().str.len_chars()).list.sum()
    return _ratio(total - unique, total)
