"""FineWeb's own rules, found by comparing the statistics of good and bad web text.

Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale", section 3.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
import polars as pl
from pydantic import Field

from llm.curation import words
from llm.curation.rules import above, below, elsewhere, share, verdict

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

Share = Annotated[float, Field(ge=0, le=1)]

_MEASURES = ("_punctuated_lines", "_short_lines", "_repeated_line_chars", "_line_breaks")


class FineWebQuality:
    """Removes web pages that read like lists; `reason` is the first rule broken, `score` the measure.

    Lines with nothing but spaces do not count. The defaults are those of the code that made FineWeb; where
    the paper says something else, it stands beside.

    Args:
        min_punctuated_lines: 0.12 of lines end in a mark that ends a sentence (any script's).
        max_short_lines: 0.67 of lines are short.
        short_line_chars: 30, the length of a short line.
        max_repeated_line_chars: 0.01 of characters are in lines that repeat an earlier one; paper 0.1.
        max_line_breaks: 0.3 line breaks a word (or mark of punctuation); not in the paper.
        except_domains: Domains not judged, such as `code`.
    """

    def __init__(
        self,
        *,
        min_punctuated_lines: Share = 0.12,
        max_short_lines: Share = 0.67,
        short_line_chars: Annotated[int, Field(ge=0)] = 30,
        max_repeated_line_chars: Share = 0.01,
        max_line_breaks: Annotated[float, Field(ge=0)] = 0.3,
        except_domains: Sequence[str] = (),
    ) -> None:
        self.min_punctuated_lines, self.max_short_lines = min_punctuated_lines, max_short_lines
        self.short_line_chars, self.max_line_breaks = short_line_chars, max_line_breaks
        self.max_repeated_line_chars = max_repeated_line_chars
        self.except_domains = tuple(except_domains)

    @property
    def attributes(self) -> Mapping[str, PolarsDataType]:
        """All that the rules look at; dropped after the step."""
        return dict.fromkeys(_MEASURES, pl.Float64)

    def tag_key(self) -> object:
        """What a short line is; the other bounds have no part in what is measured."""
        return ["fineweb", 1, self.short_line_chars]

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """Every measure of every text."""
        listed = texts.to_list()
        n_lines, n_short, n_repeated, n_chars = (
            np.array([self._lines(text) for text in listed], np.int64).reshape(-1, 4).T
        )
        counts = texts.to_frame("text").select(
            pl.col("text").str.count_matches(r"(?m)\p{Sentence_Terminal}$").alias("punctuated"),
            pl.col("text").str.count_matches("\n", literal=True).alias("breaks"),
        )
        tokens = [np.diff(block.first) for block in words.blocks(listed)]
        n_tokens = np.concatenate([np.zeros(0, np.int64), *tokens])
        columns = (
            share(counts["punctuated"].to_numpy(), n_lines),
            share(n_short, n_lines),
            share(n_repeated, n_chars),
            share(counts["breaks"].to_numpy(), n_tokens),
        )
        return pl.DataFrame(dict(zip(_MEASURES, columns, strict=True)), schema=dict(self.attributes))

    def _lines(self, text: str) -> tuple[int, int, int, int]:
        """Lines, short ones, characters in repeated ones, and characters without line breaks."""
        parts = text.split("\n")
        lines = [line for line in parts if line and not line.isspace()]
        unique = set(lines)
        repeated = 0 if len(unique) == len(lines) else sum(map(len, lines)) - sum(map(len, unique))
        short = sum(len(line) <= self.short_line_chars for line in lines)
        return len(lines), short, repeated, len(text) - len(parts) + 1

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """Judges every document outside `except_domains`."""
        rules = [
            below("few_punctuated_lines", "_punctuated_lines", self.min_punctuated_lines),
            above("short_lines", "_short_lines", self.max_short_lines),
            above("repeated_line_chars", "_repeated_line_chars", self.max_repeated_line_chars),
            above("line_breaks", "_line_breaks", self.max_line_breaks),
        ]
        return verdict(self, documents, rules, elsewhere(self.except_domains))
