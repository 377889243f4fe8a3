"""Reader of parquet files."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from llm.curation.characters import Decoder
from llm.curation.documents import EXCERPT_CHARS, FRAME_CHARS, SCHEMA, Document
from llm.curation.files import FIELDS, PART_BYTES, Bytes, Columns, Piece, find
from llm.curation.streams import Unreadable, blocks
from llm.types import ConfigError

FIRST_ROWS, ROWS_OF_BYTES = 16, 64
"""Few, for nothing tells what they weigh before they are read."""
BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises for damaged files; it panics over some pages, and that is no `Exception`."""


TEXTS = (pl.String, pl.Categorical, pl.Enum)
"""Types of a column of text; pandas writes repeated texts as categories."""


class Parquet(Columns):
    """Parquet files: a file, a folder or a glob pattern, read by polars in ranges of rows.

    Arguments as in `llm.curation.files.Columns`. Rows that cannot be read are told of as `corrupt`, those
    that follow each other together with their number as the score, and cost no pages but theirs. Texts that
    are no UTF-8 are decoded. A file without the column of the text is told of once, as `no_text`.
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
                after = at
                if "UTF-8" in rows.complaint:
                    after = yield from self._undecoded(piece, at, stop)
                if after == at:
                    after = rows.after_damage(at, stop)
                    yield self._lost(piece, at, after)
                at = after

    def _undecoded(self, piece: Piece, start: int, stop: int) -> Generator[Document, None, int]:
        """Rows of which polars refuses some because their text is no UTF-8; returns how far it came."""
        from pyarrow import ArrowException

        decoder, at = Decoder(), start
        try:
            for row in bytes_of_rows(piece.path, self.wanted.values(), start, stop):
                reason = None
                for column, value in row.items():
                    if isinstance(value, bytes):
                        row[column], why = decoder.decode(value)
                        reason = why if column == self.text else reason
                yield self.row(piece, at, row, "", reason)
                at += 1
        except (ArrowException, OSError):
            pass
        return at

    def _lost(self, piece: Piece, start: int, stop: int) -> Document:
        place = start if stop == start + 1 else f"{start}-{stop - 1}"
        return self.reject(piece, "corrupt", "", place, stop - start)

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
        self.complaint = ""  # of the rows that were asked for last and could not be read

    def take(self, start: int, n_rows: int) -> pl.DataFrame | None:
        """These rows; None if one of them cannot be read."""
        try:
            return self._scan.slice(start, n_rows).collect()
        except BROKEN as error:
            self.complaint = str(error)
            return None

    def after_damage(self, bad: int, stop: int) -> int:
        """The row behind those from `bad` on that cannot be read: in few tries, for a page goes whole.

        Between two tries that fail no row is tried, so a sound one among bad ones may be given up with them.
        """
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


def bytes_of_rows(path: Path, columns: Iterable[str], start: int, stop: int) -> Iterator[dict[str, Any]]:
    """These columns of these rows by pyarrow, which hands over texts as the bytes that they are.

    Raises:
        ArrowException, OSError: a row cannot be read; those before it have been given.
    """
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    names = [name for name in dict.fromkeys(columns) if name in file.schema_arrow.names]
    at = 0
    for group in range(file.num_row_groups):
        n_rows = file.metadata.row_group(group).num_rows
        if at + n_rows <= start:
            at += n_rows
            continue
        for batch in file.iter_batches(ROWS_OF_BYTES, row_groups=[group], columns=names):
            first, last = max(start, at), min(stop, at + batch.num_rows)
            part = batch.slice(first - at, max(0, last - first))
            values = [_as_bytes(part.column(name)).to_pylist() for name in names]
            yield from (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))
            at += batch.num_rows
            if at >= stop:
                return


def _as_bytes(array: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    binary = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    return array.cast(binary[array.type]) if array.type in binary else array


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
