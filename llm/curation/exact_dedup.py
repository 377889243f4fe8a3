"""Removes documents that say the same as another one, letter for letter after normalisation."""

from __future__ import annotations

from typing import Literal

import polars as pl

from llm.curation.base import Corpus
from llm.curation.hashing import digests, name_kept, normal_forms
from llm.types import ConfigError

Keep = Literal["first", "longest", "best"]


class ExactDedup:
    """Keeps one of the documents whose words are equal; case, punctuation and spacing do not count.

    Words are letters with their marks and digits, in Unicode's composed form (NFC): a letter and its accent
    written as one character or as two are equal, two vowel signs are not. A document is known by 128 bits of
    BLAKE2b, so the step holds 32 bytes a document, whatever the length of the texts.

    Args:
        normalise: False compares the texts as they are.
        keep: Which of the equal documents stays: the `first` of the corpus, the `longest` text, or the `best`
            by the column `by`. The first of those that tie.
        by: A numeric column that an earlier step adds, such as a classifier's score; larger is better, null
            is worst.

    Raises:
        ConfigError: `keep=best` without `by`, or `by` without it; a document lacks the column.
    """

    def __init__(self, normalise: bool = True, keep: Keep = "first", by: str | None = None) -> None:
        self.check_arguments(keep=keep, by=by)
        self.normalise, self.keep, self.by = normalise, keep, by

    @staticmethod
    def check_arguments(*, keep: Keep = "first", by: str | None = None) -> None:
        """`by` belongs to `keep=best`.

        Raises:
            ConfigError: one is given without the other. Key: `by`.
        """
        if keep == "best" and by is None:
            raise ConfigError("by", "null", "keep=best needs a column to compare, e.g. by=quality_score")
        if keep != "best" and by is not None:
            raise ConfigError("by", by, f"is not used by keep={keep}; set keep=best or by=null")

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """The digest of each document, and what decides which stays."""
        texts = documents["text"]
        forms = normal_forms(texts) if self.normalise else (text.encode() for text in texts)
        rows = pl.Series("row", range(documents.height), pl.UInt32)
        return pl.DataFrame([rows, *digests(forms, 2), self._worth(documents)])

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """`match`: the id of the document that stays."""
        notes = corpus.scan().collect()
        # few documents are repeated, so all that follows is small
        repeated = notes.filter(pl.col("hash").is_duplicated())
        same = ["hash", "hash_1"]
        ranked = repeated.sort("worth", "shard", "row", descending=[True, False, False])
        stays = ranked.select(pl.col("shard", "row").first().over(same).name.prefix("kept_"))
        pairs = ranked.hstack(stays).filter(
            (pl.col("shard") != pl.col("kept_shard")) | (pl.col("row") != pl.col("kept_row"))
        )
        return name_kept(corpus, pairs.select("shard", "row", "kept_shard", "kept_row"))

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """`reason` is `exact_duplicate`."""
        match: list[str | None] = [None] * documents.height
        for row, kept in decisions.select("row", "match").iter_rows():
            match[row] = kept
        return documents.with_columns(pl.Series("match", match, pl.String)).with_columns(
            pl.col("match").is_null().alias("keep"),
            pl.when(pl.col("match").is_not_null()).then(pl.lit("exact_duplicate")).alias("reason"),
            pl.lit(None, pl.Float64).alias("score"),
        )

    def _worth(self, documents: pl.DataFrame) -> pl.Series:
        """Larger stays."""
        if self.keep == "first":
            return pl.repeat(0.0, documents.height, dtype=pl.Float64, eager=True).alias("worth")
        if self.keep == "longest":
            return documents["text"].str.len_chars().cast(pl.Float64).alias("worth")
        assert self.by is not None
        if self.by not in documents.columns:
            mend = f"the documents have no such column; there are: {', '.join(documents.columns)}"
            raise ConfigError("by", self.by, mend)
        if not documents.schema[self.by].is_numeric():
            raise ConfigError("by", self.by, "is not a numeric column")
        worth = pl.col(self.by).cast(pl.Float64).fill_nan(None).fill_null(float("-inf"))
        return documents.select(worth.alias("worth"))["worth"]
