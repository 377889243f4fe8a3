"""The runner of steps: removes what they reject and writes down every removed document with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from llm.curation.base import VERDICT_COLUMNS

EXCERPT_CHARS = 120

LEDGER_SCHEMA = {
    "id": pl.String,
    "source": pl.String,
    "domain": pl.String,
    "step": pl.String,
    "reason": pl.String,
    "score": pl.Float64,
    "match": pl.String,
    "excerpt": pl.String,
    "n_bytes": pl.Int64,
    "change": pl.Int64,
}
"""`change` is -1 for a removed document and +k for k further copies of a repeated one, so that
documents read + sum of `change` = documents written."""


@dataclass
class Ledger:
    """What happened to the corpus so far, step by step."""

    frames: list[pl.DataFrame] = field(default_factory=list)
    funnel: list[dict[str, Any]] = field(default_factory=list)

    def apply(
        self, name: str, frame: pl.DataFrame, annotate: Callable[[pl.LazyFrame], pl.LazyFrame]
    ) -> pl.DataFrame:
        """The rows a step keeps; the others go to the ledger."""
        judged = annotate(frame.lazy()).collect()
        self._check(name, frame, judged)
        copies = pl.col("copies") if "copies" in judged.columns else pl.col("keep").cast(pl.Int64)
        judged = judged.with_columns(copies.alias("_copies"))
        changed = judged.filter(pl.col("_copies") != 1).select(
            "id",
            "source",
            "domain",
            pl.lit(name).alias("step"),
            "reason",
            pl.col("score").cast(pl.Float64),
            "match",
            pl.col("text").str.slice(0, EXCERPT_CHARS).str.replace_all(r"\s+", " ").alias("excerpt"),
            pl.col("text").str.len_bytes().cast(pl.Int64).alias("n_bytes"),
            (pl.col("_copies") - 1).alias("change"),
        )
        kept = _repeated(judged.filter(pl.col("keep")))
        kept = kept.drop(*VERDICT_COLUMNS, "copies", "_copies", strict=False)
        self.frames.append(changed.cast(LEDGER_SCHEMA))  # type: ignore[arg-type]
        self._count(name, frame, kept, changed)
        return kept

    def frame(self) -> pl.DataFrame:
        """All entries, in the order of the steps."""
        return pl.concat([pl.DataFrame(schema=LEDGER_SCHEMA), *self.frames])

    def lines(self) -> list[str]:
        """The funnel for people, a line a step."""
        found = []
        for step in self.funnel:
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in step["reasons"].items())
            found.append(
                f"{step['step']}: {step['documents_in']:,} -> {step['documents_out']:,} documents, "
                f"{step['bytes_in']:,} -> {step['bytes_out']:,} bytes" + (f" ({reasons})" if reasons else "")
            )
        return found

    def _check(self, name: str, before: pl.DataFrame, judged: pl.DataFrame) -> None:
        """A step that loses rows or forgets a reason is a bug of the step, not of the user."""
        missing = [column for column in VERDICT_COLUMNS if column not in judged.columns]
        assert not missing, f"step {name} does not annotate {', '.join(missing)}"
        assert judged["id"].equals(before["id"]), f"step {name} adds, drops or reorders documents"
        assert judged["keep"].null_count() == 0, f"step {name} leaves keep undecided"
        unexplained = judged.filter(~pl.col("keep") & pl.col("reason").is_null()).height
        assert not unexplained, f"step {name} removes {unexplained} documents without a reason"

    def _count(self, name: str, before: pl.DataFrame, kept: pl.DataFrame, changed: pl.DataFrame) -> None:
        reasons = changed.group_by("reason").len().sort("len", "reason", descending=[True, False])
        self.funnel.append(
            {
                "step": name,
                "documents_in": before.height,
                "documents_out": kept.height,
                "bytes_in": text_bytes(before),
                "bytes_out": text_bytes(kept),
                "reasons": {str(reason): int(n) for reason, n in reasons.iter_rows()},
            }
        )


def _repeated(kept: pl.DataFrame) -> pl.DataFrame:
    """Each row as often as its `_copies` says; copies get the number of the copy behind their id."""
    if not kept.height or kept["_copies"].max() == 1:
        return kept
    numbered = (
        kept.with_row_index("_row")
        .with_columns(pl.int_ranges(0, pl.col("_copies")).alias("_copy"))
        .explode("_copy")
        .sort("_copy", "_row")
    )
    name = (
        pl.when(pl.col("_copy") > 0)
        .then(pl.concat_str("id", pl.lit("#copy"), "_copy"))
        .otherwise(pl.col("id"))
    )
    return numbered.with_columns(name.alias("id")).drop("_row", "_copy")


def text_bytes(frame: pl.DataFrame) -> int:
    """UTF-8 bytes of all texts."""
    return int(frame["text"].str.len_bytes().sum())
