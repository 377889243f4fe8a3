"""Removes documents that say the same as an earlier one, letter for letter after normalisation."""

from __future__ import annotations

import polars as pl


class ExactDedup:
    """Keeps the first of the documents whose words are equal; case, punctuation and spacing do not count.

    Args:
        normalise: False compares the texts as they are.
    """

    def __init__(self, normalise: bool = True) -> None:
        self.normalise = normalise

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """`match` is the id of the document that stays."""
        text = pl.col("text")
        if self.normalise:
            words = text.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()
            # nothing but punctuation left: compare such texts as they are
            text = pl.when(words == "").then(text).otherwise(words)
        first = pl.col("id").first().over("_normal")
        duplicate = pl.col("id") != pl.col("_first")
        return (
            documents.with_columns(text.alias("_normal"))
            .with_columns(first.alias("_first"))
            .with_columns(
                (~duplicate).alias("keep"),
                pl.when(duplicate).then(pl.lit("exact_duplicate")).alias("reason"),
                pl.lit(None, pl.Float64).alias("score"),
                pl.when(duplicate).then(pl.col("_first")).alias("match"),
            )
            .drop("_normal", "_first")
        )
