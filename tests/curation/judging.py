"""Texts judged by a step, for the tests of the rules of thumb."""

from __future__ import annotations

from typing import Any

import polars as pl

from llm.curation.base import DOCUMENT_COLUMNS, judge

STOPS = "the and "


def judged(step: Any, texts: list[str], domain: str = "text", ids: list[str] | None = None) -> pl.DataFrame:
    frame = pl.DataFrame({"id": ids or [f"d{i}" for i in range(len(texts))], "text": texts})
    frame = frame.with_columns(
        pl.lit("s").alias("source"),
        pl.lit(domain).alias("domain"),
        pl.lit(None, pl.String).alias("licence"),
        pl.lit(None, pl.String).alias("provenance"),
    ).select(DOCUMENT_COLUMNS)
    return judge(step, frame)


def reasons(step: Any, *texts: str, domain: str = "text", ids: list[str] | None = None) -> list[str | None]:
    return judged(step, list(texts), domain, ids)["reason"].to_list()


def measures(step: Any, text: str) -> dict[str, float]:
    """What a tagger measures of one text, by name without the underscore."""
    row = step.tag(pl.Series([text])).row(0, named=True)
    return {name.removeprefix("_"): value for name, value in row.items()}
