"""The corpus as it is handed on: one parquet file a side, and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from llm import files
from llm.curation.base import Masking

OUTPUT_COLUMNS = ("id", "text", "source", "domain", "language", "licence", "provenance", "n_bytes")
ROW_GROUP = 8192
"""Rows in a row group: fixed, so that the bytes do not depend on how polars cuts its work."""


class Output:
    """Writes the results into a folder, each file whole or not at all.

    Args:
        directory: The run's.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def side(self, name: str, documents: pl.LazyFrame) -> dict[str, Any]:
        """Writes ``NAME.parquet``; a document with `copies` stands in it as often as that says.

        First come all documents once, then those that have a second copy, and so on; a copy has its number
        behind its id.

        Returns:
            Counts of documents and bytes, and both by domain, language and licence.
        """
        path = self.directory / f"{name}.parquet"
        with files.replacing(path) as temporary:
            _repeated(_ordered(documents)).sink_parquet(
                temporary, compression="zstd", statistics=False, row_group_size=ROW_GROUP, maintain_order=True
            )
        written = pl.scan_parquet(path, glob=False)
        n, size = written.select(pl.len(), pl.col("n_bytes").sum()).collect(engine="streaming").row(0)
        return {
            "documents": int(n),
            "bytes": int(size or 0),
            **{f"{kind}s": _by(written, kind) for kind in ("domain", "language", "licence")},
        }

    def ledger(self, entries: Sequence[pl.LazyFrame], masks: Sequence[Masking] = ()) -> int:
        """Writes ``ledger.parquet``, excerpts without what the masks hide; returns the sum of `change`."""
        path = self.directory / "ledger.parquet"
        excerpt = pl.col("excerpt").fill_null("")
        for one in masks:
            # elementwise, or polars would hold all excerpts at once
            excerpt = excerpt.map_batches(one.mask, return_dtype=pl.String, is_elementwise=True)
        shown = pl.concat(entries).with_columns(excerpt.alias("excerpt"))
        with files.replacing(path) as temporary:
            shown.sink_parquet(
                temporary, compression="zstd", statistics=False, row_group_size=ROW_GROUP, maintain_order=True
            )
        found = pl.scan_parquet(path, glob=False).select(pl.col("change").sum()).collect(engine="streaming")
        return int(found.item() or 0)

    def review(self, name: str, found: Sequence[pl.LazyFrame]) -> None:
        """Writes ``review/NAME.parquet``."""
        with files.replacing(self.directory / "review" / f"{name}.parquet") as temporary:
            pl.concat(found).sink_parquet(
                temporary, compression="zstd", statistics=False, maintain_order=True
            )

    def fingerprints(self) -> dict[str, str]:
        """sha256 of what has been written, by file."""
        names = ("train.parquet", "validation.parquet", "ledger.parquet")
        return {name: files.sha256_file(self.directory / name) for name in names}


def _ordered(documents: pl.LazyFrame) -> pl.LazyFrame:
    """The columns every reader of the corpus may count on first; a step's further columns come after them."""
    columns = documents.collect_schema().names()
    lacking = [pl.lit(None, pl.String).alias(c) for c in OUTPUT_COLUMNS[:-1] if c not in columns]
    sized = documents.with_columns(*lacking, pl.col("text").str.len_bytes().cast(pl.Int64).alias("n_bytes"))
    return sized.select(*OUTPUT_COLUMNS, *(c for c in columns if c not in OUTPUT_COLUMNS))


def _repeated(documents: pl.LazyFrame) -> pl.LazyFrame:
    if "copies" not in documents.collect_schema().names():
        return documents
    most = documents.select(pl.col("copies").max()).collect(engine="streaming").item() or 1
    mark = _copy_mark(documents) if most > 1 else ""
    parts = [documents.drop("copies")]
    for number in range(1, int(most)):
        more = documents.filter(pl.col("copies") > number).drop("copies")
        parts.append(more.with_columns(pl.concat_str("id", pl.lit(f"{mark}{number}")).alias("id")))
    return pl.concat(parts)


def _copy_mark(documents: pl.LazyFrame) -> str:
    """What stands between an id and the number of its copy: `#copy`, or so many # more that no id ends so."""
    marked = documents.select(pl.col("id").str.extract(r"(#+)copy\d+$").str.len_bytes().max())
    return "#" * (1 + (marked.collect(engine="streaming").item() or 0)) + "copy"


def _by(documents: pl.LazyFrame, column: str) -> dict[str, dict[str, int]]:
    sizes = (
        documents.group_by(pl.col(column).fill_null("unknown"))
        .agg(pl.len().alias("n"), pl.col("n_bytes").sum().alias("b"))
        .collect(engine="streaming")
        .sort(column)
    )
    return {key: {"documents": n, "bytes": b} for key, n, b in sizes.iter_rows()}
