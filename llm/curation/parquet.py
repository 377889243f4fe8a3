"""Reader of parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import polars as pl

from llm.curation.documents import EXCERPT_CHARS, FRAME_CHARS, SCHEMA, Document
from llm.curation.files import FIELDS, PART_BYTES, Bytes, Columns, Piece, find
from llm.curation.streams import Unreadable, blocks
from llm.types import ConfigError

FIRST_ROWS = 16
"""Few, for nothing tells what they weigh before they are read."""
BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises for damaged files; it panics over some pages, and that is no `Exception`."""


TEXTS = (pl.String, pl.Categorical, pl.Enum)
"""Types of a column of text; pandas writes repeated texts as categories."""


class Parquet(Columns):
    """Parquet files: a file, a folder or a glob pattern, read by polars in ranges of rows.

    Arguments as in `llm.curation.files.Columns`. Rows that cannot be read, such as one that is not UTF-8, are
    told of as `corrupt`, those that follow each other together with their number as the score, and cost no
    others. A file without the column of the text is told of once, as `no_text`.
    """

    suffixes = (".parquet",)

    def __init__(
        self,
        path: str,
        text: str = "text",
        id: str | None = None,
        domain: str = "text",
        domain_column: str | None = None,
        *,
        licence: str | None = None,
        licence_column: str | None = None,
        provenance_column: str | None = None,
        max_document_bytes: Bytes = 20_000_000,
    ) -> None:
        super().__init__(
            path,
            text,
            id,
            domain,
            domain_column,
            licence=licence,
            licence_column=licence_column,
            provenance_column=provenance_column,
            max_document_bytes=max_document_bytes,
        )

    def _find(self) -> list[Path]:
        return find(self.path, self.suffixes)

    def parts(self) -> Sequence[str]:
        """Files, and ranges of rows of large ones.

        Raises:
            ConfigError: no file has one of the columns, or the text's is not one of text.
        """
        found = super().parts()
        kinds = [schema[self.text] for schema in self._schemas() if self.text in schema]
        if kinds and not any(kind in TEXTS for kind in kinds):
            raise ConfigError("text", self.text, f"is not a column of text but of {kinds[0]}")
        return found

    def headers(self) -> Iterator[Sequence[str]]:
        """Columns of each file that is whole."""
        return (list(schema) for schema in self._schemas())

    def _schemas(self) -> Iterator[dict[str, pl.DataType]]:
        for path in self._paths:
            try:
                yield dict(pl.read_parquet_schema(path))
            except BROKEN:
                continue

    def cut(self, piece: Piece, size: int) -> Iterator[Piece]:
        """Equal ranges of rows; here `start` and `stop` count rows."""
        try:
            n_rows = pl.scan_parquet(piece.path, glob=False).select(pl.len()).collect().item()
        except BROKEN:
            yield piece
            return
        n_parts = min(-(-size // PART_BYTES), max(1, n_rows))
        edges = [n_rows * number // n_parts for number in range(n_parts + 1)]
        for start, stop in pairwise(edges):
            yield piece._replace(start=start, stop=stop)

    def contents(self, piece: Piece) -> Iterator[Document | pl.DataFrame]:
        """Frames of rows; their places count from 0."""
        if next(blocks(piece.path, stop=1), None) is None:
            return
        try:
            scan = pl.scan_parquet(piece.path, glob=False)
            schema = scan.collect_schema()
            stop = piece.stop
            if stop is None:
                stop = int(scan.select(pl.len()).collect().item())
            if stop and schema.get(self.text) not in TEXTS:
                yield self.unreadable(piece, "no_text")
                return
        except BROKEN as error:
            raise Unreadable("corrupt") from error
        rows = _Rows(scan.select(self._columns(schema)))
        at, n_rows = piece.start, FIRST_ROWS
        while at < stop:
            n_rows = min(n_rows, stop - at)
            taken = rows.take(at, n_rows)
            if taken is not None:
                yield self._frame(piece, taken, at)
                at += n_rows
                # as many rows as fill a frame, were they like these
                size = int(taken["text"].str.len_bytes().sum() or 0)
                n_rows = max(1, min(4 * n_rows, n_rows * FRAME_CHARS // max(1, size)))
            elif n_rows > 1:
                n_rows //= 2
            else:
                after = rows.after_damage(at, stop)
                place = at if after == at + 1 else f"{at}-{after - 1}"
                yield self.reject(piece, "corrupt", "", place, after - at)
                at = after

    def _columns(self, schema: pl.Schema) -> list[pl.Expr]:
        """The text, and what rows say of themselves where it can be written as one."""
        found = [pl.col(self.text).cast(pl.String).alias("text")]
        for key, column in self.wanted.items():
            if key != "text" and column in schema and not schema[column].is_nested():
                found.append(pl.col(column).cast(pl.String, strict=False).alias(FIELDS[key]))
        return found

    def _frame(self, piece: Piece, taken: pl.DataFrame, at: int) -> pl.DataFrame:
        """Documents and rejects, as `Columns.row` makes them."""
        text, size = pl.col("text"), pl.col("text").str.len_bytes()
        place = pl.concat_str(pl.lit(f"{piece.name}:"), pl.int_range(pl.len()) + at)
        defaults = {"id": place, "provenance": place, "domain": pl.lit(self.domain)}
        defaults["licence"] = pl.lit(self.licence, pl.String)
        named = [
            pl.coalesce(pl.col(name).str.replace_all("\0", "", literal=True), default).alias(name)
            if name in taken.columns
            else default.alias(name)
            for name, default in defaults.items()
        ]
        too_large, nul = size > self.max_document_bytes, text.str.contains("\0", literal=True)
        if taken.select((text.is_null() | too_large | nul).any()).item():
            told = _judged(taken.with_columns(named), too_large, nul)
            # a reject is found by its place, for its id may be what is wrong with it
            told = told.with_columns(pl.when("keep").then("id").otherwise(place).alias("id"))
        else:  # what nearly every frame is like: the texts stay where they are
            told = taken.with_columns(*named, pl.lit(True).alias("keep"))
        absent = [name for name in SCHEMA if name not in (*told.columns, "source")]
        rest = [pl.lit(None, SCHEMA[name]).alias(name) for name in absent]
        return told.with_columns(pl.lit(piece.source).alias("source"), *rest).select(list(SCHEMA))


class _Rows:
    """Rows by their numbers, where some may be beyond reading."""

    def __init__(self, scan: pl.LazyFrame) -> None:
        self._scan = scan

    def take(self, start: int, n_rows: int) -> pl.DataFrame | None:
        """These rows; None if one of them cannot be read."""
        try:
            return self._scan.slice(start, n_rows).collect()
        except BROKEN:
            return None

    def after_damage(self, bad: int, stop: int) -> int:
        """The row behind those from `bad` on that cannot be read: in few tries, for a page goes whole."""
        distance = 1
        while bad + distance < stop and self.take(bad + distance, 1) is None:
            bad, distance = bad + distance, 2 * distance
        good = min(bad + distance, stop)
        while good - bad > 1:
            middle = (bad + good) // 2
            if self.take(middle, 1) is None:
                bad = middle
            else:
                good = middle
        return good


def _judged(taken: pl.DataFrame, too_large: pl.Expr, nul: pl.Expr) -> pl.DataFrame:
    """The rows with `keep`, `reason` and `score`, and texts as these say."""
    text = pl.col("text")
    reason = pl.when(text.is_null()).then(pl.lit("no_text")).when(too_large).then(pl.lit("too_large"))
    held = pl.when(too_large).then(text.str.slice(0, EXCERPT_CHARS)).otherwise(text).fill_null("")
    return taken.with_columns(
        held.str.replace_all("\0", "", literal=True).alias("text"),
        (text.is_not_null() & ~too_large).alias("keep"),
        reason.when(nul).then(pl.lit("nul_bytes")).alias("reason"),
        pl.when(too_large).then(text.str.len_bytes()).cast(pl.Float64).alias("score"),
    )
