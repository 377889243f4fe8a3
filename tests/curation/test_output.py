"""What is handed on is written in pieces, however much of it there is."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from llm.curation.ledger import LEDGER_SCHEMA
from llm.curation.output import Output

ROWS, N_FRAMES = 20_000, 30


class Stars:
    """Hides all, and notes how many excerpts it was given at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def mask(self, texts: pl.Series) -> pl.Series:
        self.sizes.append(len(texts))
        return pl.Series(texts.name, ["***"] * len(texts), pl.String)


def test_excerpts_are_masked_a_batch_at_a_time(tmp_path: Path):
    numbers = pl.Series("change", [-1] * ROWS, pl.Int64).to_frame()
    secret = pl.concat_str(pl.lit("secret "), pl.int_range(pl.len()))
    others = [pl.lit(None, kind).alias(name) for name, kind in LEDGER_SCHEMA.items() if name != "change"]
    entry = numbers.with_columns(others).with_columns(secret.alias("excerpt")).select(list(LEDGER_SCHEMA))
    entries = [entry.lazy() for _ in range(N_FRAMES)]
    stars = Stars()
    assert Output(tmp_path).ledger(entries, [stars]) == -ROWS * N_FRAMES
    assert sum(stars.sizes) == ROWS * N_FRAMES
    assert max(stars.sizes) < ROWS * N_FRAMES / 2
    assert pl.read_parquet(tmp_path / "ledger.parquet")["excerpt"].unique().to_list() == ["***"]
