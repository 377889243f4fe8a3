"""Examples in three parts that share no text: to learn from, to choose a threshold on, to measure on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl


@dataclass
class Part:
    """Lines with their labels (numbers)."""

    lines: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True)
class Split:
    """The parts. repeated: lines left out because they repeat another. contradicted: those left out because
    the same line stands there with another label.
    """

    train: Part
    development: Part
    test: Part
    repeated: int
    contradicted: int


def split(
    lines: pl.Series,
    labels: Sequence[int],
    training_only: Sequence[bool],
    *,
    development: float,
    test: float,
    seed: int,
) -> Split:
    """Each label is divided alike (stratified); what a line's place depends on is its words and the seed.

    Lines are the same when their words are, whatever the punctuation and the digits: a message that was
    passed on would otherwise be learned from and measured on.

    Args:
        lines: Normalised texts; empty ones are left out.
        labels: Their labels.
        training_only: Which of them are never measured on.
        development: Share of the others to choose a threshold on.
        test: Share of the others to measure on.
        seed: Of the division.
    """
    words = lines.str.to_lowercase().str.replace_all(r"[^\p{L}\p{M}]+", " ").str.strip_chars()
    frame = pl.DataFrame(
        {"line": lines, "label": pl.Series(labels, dtype=pl.Int64), "only": training_only, "words": words}
    ).with_row_index("place")
    frame = frame.filter(pl.col("line") != "").with_columns(
        pl.when(pl.col("words") == "").then("line").otherwise("words").alias("words")
    )
    whole = frame.height
    frame = frame.filter(pl.col("label").n_unique().over("words") == 1)
    contradicted = whole - frame.height
    # a line that is also measured on goes there: the first of each, those to measure on first
    frame = frame.sort("only", "place").unique("words", keep="first", maintain_order=True)
    order = [hashlib.blake2b(f"{seed}\x1f{w}".encode(), digest_size=8).digest() for w in frame["words"]]
    frame = frame.with_columns(pl.Series("order", order)).sort("order", "place")
    position = pl.int_range(pl.len()).over("label", "only") / pl.len().over("label", "only")
    part = (
        pl.when(pl.col("only"))
        .then(pl.lit("train"))
        .when(position < test)
        .then(pl.lit("test"))
        .when(position < test + development)
        .then(pl.lit("development"))
        .otherwise(pl.lit("train"))
    )
    frame = frame.with_columns(part.alias("part"))
    parts = {
        name: Part(*(found[column].to_list() for column in ("line", "label")))
        for name in ("train", "development", "test")
        for found in [frame.filter(pl.col("part") == name)]
    }
    return Split(**parts, repeated=whole - contradicted - frame.height, contradicted=contradicted)
