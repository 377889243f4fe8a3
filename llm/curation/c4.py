"""C4's rules: of a web page only the lines stay that look like sentences.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (T5),
section 2.2, with what only their published code says: policies, citations, long words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from llm.curation import words
from llm.curation.rules import elsewhere

POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)

Count = Annotated[int, Field(ge=0)]

_BREAKS = r"\r\n|[\r\x0b\x0c\x1c-\x1e\x{85}\x{2028}\x{2029}]"
_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"


class C4Quality:
    """Drops lines that are no sentences, and documents with too little left; alters `text`.

    A line goes (`lines_removed`) when it has a word that is too long, does not end in `. ? ! " '` or ends in
    an ellipsis, has too few words, or mentions javascript or a policy. A document goes when a line that
    stayed so far holds "lorem ipsum" (`lorem_ipsum`) or a curly bracket (`curly_bracket`), or when too few
    sentences stay (`too_few_sentences`). `score`: of an altered document the share of lines removed, of one
    with too few sentences their number.

    The defaults are those of the paper and its code; datatrove has them the other way round, 5 sentences and
    3 words. The rule on bad words is not among them.

    Args:
        min_words_per_line: 5.
        min_sentences: 3; with 0 something must stay.
        max_word_length: 1,000 characters.
        remove_citations: Takes `[1]`, `[edit]` and `[citation needed]` out of lines.
        terminal_punctuation: False keeps lines whatever they end in.
        javascript: False keeps lines that mention it.
        policies: False keeps lines that mention cookies and terms of use.
        curly_bracket: False keeps documents with one.
        lorem_ipsum: False keeps documents with it.
        except_domains: Domains not judged, such as `code`.
    """

    def __init__(
        self,
        *,
        min_words_per_line: Count = 5,
        min_sentences: Count = 3,
        max_word_length: Annotated[int, Field(gt=0)] = 1000,
        remove_citations: bool = True,
        terminal_punctuation: bool = True,
        javascript: bool = True,
        policies: bool = True,
        curly_bracket: bool = True,
        lorem_ipsum: bool = True,
        except_domains: Sequence[str] = (),
    ) -> None:
        self.min_words_per_line, self.min_sentences = min_words_per_line, min_sentences
        self.max_word_length, self.remove_citations = max_word_length, remove_citations
        self.terminal_punctuation, self.javascript, self.policies = terminal_punctuation, javascript, policies
        self.curly_bracket, self.lorem_ipsum = curly_bracket, lorem_ipsum
        self.except_domains = tuple(except_domains)

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """Judges every document outside `except_domains`."""
        frame = documents.collect()
        judged = frame.select(elsewhere(self.except_domains)).to_series()
        found = self._judge_lines(frame["text"])
        sentences = _sentences(found, self.min_sentences)
        text = found["left"].list.join("\n").str.strip_chars()
        few = (sentences < self.min_sentences) | (text == "")
        changed = pl.col("_text") != pl.col("text")
        reason = (
            pl.when(~judged)
            .then(None)
            .when(found["fatal"].is_not_null())
            .then(found["fatal"])
            .when(few)
            .then(pl.lit("too_few_sentences"))
            .when(changed & (found["removed"] > 0))
            .then(pl.lit("lines_removed"))
            .when(changed)
            .then(pl.lit("lines_trimmed"))
        )
        keep = ~judged | (found["fatal"].is_null() & ~few)
        score = (
            pl.when(pl.col("reason") == "too_few_sentences")
            .then(sentences)
            .when(pl.col("reason") == "lines_removed")
            .then(found["removed"] / found["lines"])
        )
        return (
            frame.lazy()
            .with_columns(text.alias("_text"), keep.alias("keep"))
            .with_columns(reason.alias("reason"))
            .with_columns(
                pl.when(judged & pl.col("keep")).then("_text").otherwise("text").alias("text"),
                score.cast(pl.Float64).alias("score"),
                pl.lit(None, pl.String).alias("match"),
            )
            .drop("_text")
        )

    def _judge_lines(self, texts: pl.Series) -> pl.DataFrame:
        """A row a text: `lines`, how many were `removed`, those `left`, and the `fatal` rule, if any."""
        split = pl.col("text").str.replace_all(_BREAKS, "\n").str.split("\n")
        lines = (
            texts.to_frame("text")
            .with_row_index("row")
            .select("row", split.alias("line"))
            .explode("line")
            .with_columns(pl.col("line").str.strip_chars())
        )
        line = pl.col("line")
        n_words = line.str.count_matches(r"\S+")
        long_word = line.str.len_bytes() > self.max_word_length
        long_word &= line.str.contains(rf"\S{{{self.max_word_length + 1}}}")
        lines = lines.with_columns(((n_words >= self.min_words_per_line) & ~long_word).alias("kept"))
        if self.remove_citations:
            lines = lines.with_columns(line.str.replace_all(_CITATION, ""))
        kept = pl.col("kept")
        if self.terminal_punctuation:
            kept &= line.str.contains("[.?!\"']$") & ~line.str.ends_with("...")
        lorem = kept & line.str.contains("(?i)lorem ipsum") & self.lorem_ipsum
        if self.javascript:
            kept &= ~line.str.contains("(?i)javascript")
        curly = kept & line.str.contains("{", literal=True) & self.curly_bracket
        if self.policies:
            kept &= ~line.str.contains("(?i)" + "|".join(POLICIES))
        fatal = pl.when(lorem).then(pl.lit("lorem_ipsum")).when(curly).then(pl.lit("curly_bracket"))
        return (
            lines.with_columns(kept.alias("kept"), fatal.alias("fatal"))
            .group_by("row", maintain_order=True)
            .agg(
                pl.len().alias("lines"),
                (~pl.col("kept")).sum().alias("removed"),
                line.filter("kept").alias("left"),
                pl.col("fatal").drop_nulls().first(),
            )
        )


def _sentences(found: pl.DataFrame, enough: int) -> pl.Series:
    """How many sentences the lines have; of those with `enough` lines, only that they are enough."""
    few = found.select("row", "left").filter(pl.col("left").list.len() < enough).explode("left").drop_nulls()
    counts = [_line_sentences(block) for block in words.blocks(few["left"].to_list())]
    counted = few.select(
        "row", pl.Series("sentences", np.concatenate([np.zeros(0, np.int64), *counts]), pl.Int64)
    )
    sums = counted.group_by("row").agg(pl.col("sentences").sum())
    joined = found.select("row", pl.col("left").list.len().cast(pl.Int64).alias("lines")).join(
        sums, on="row", how="left", maintain_order="left"
    )
    return joined.select(pl.coalesce("sentences", "lines")).to_series()


def _line_sentences(block: words.Words) -> NDArray[np.int64]:
    """Sentences of each line: one, and one for each word with an end of a sentence before it."""
    is_word = block.holding(words.LETTER, words.CAPITAL, words.DIGIT, words.SYMBOL)
    ends = (block.ends - block.starts == 1) & np.isin(block.codes[block.starts], _ENDS)
    ended = np.concatenate(([0], np.cumsum(ends)))
    places = np.flatnonzero(is_word)
    before = np.concatenate(([0], places))[: places.size]
    line_first = block.first[np.searchsorted(block.first, places, side="right") - 1]
    opens = np.zeros(is_word.size, np.bool_)
    opens[places] = ended[places] > ended[np.maximum(before, line_first)]
    return block.per_text(opens) + 1


_ENDS = np.array([ord(mark) for mark in ".!?。！？｡।॥؟۔։።၊။"], np.uint32)  # noqa: RUF001
