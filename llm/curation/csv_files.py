"""Reader of tables in text: comma- or tab-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import polars as pl

from llm.curation.characters import Decoder
from llm.curation.documents import Document
from llm.curation.files import Bytes, Columns, Piece, Ratio
from llm.curation.streams import Unreadable, chunks
from llm.types import ConfigError

FIELD_CHARS = 131_072
"""Python's own limit of a field, which is not lowered."""


class CsvFiles(Columns):
    """Tables (.csv, .tsv): a file, a folder or a glob pattern. Quoted fields may hold line ends.

    A row with more or fewer fields than the header is set aside as `ragged_row`: which of its fields is the
    text cannot be told. So are a field above `max_document_bytes` (`too_large`) and the rest of a file after
    a quote that nothing closes (`broken_csv`, or `too_large` if it is that). Of a file whose header is set
    aside nothing is read. Further arguments as in `llm.curation.files.Columns`.

    Args:
        path: File, folder or pattern.
        text: Column of the text.
        delimiter: One character; a tab for .tsv and a comma else when null.
        header: Names of the columns, for files whose first row is not their names.

    Raises:
        ConfigError: the delimiter is not one character, or nothing at `path`.
    """

    suffixes = (".csv", ".tsv")

    def __init__(
        self,
        path: str,
        text: str = "text",
        id: str | None = None,
        domain: str = "text",
        domain_column: str | None = None,
        *,
        delimiter: str | None = None,
        header: Sequence[str] | None = None,
        licence: str | None = None,
        licence_column: str | None = None,
        provenance_column: str | None = None,
        max_document_bytes: Bytes = 20_000_000,
        max_decompressed_bytes: Bytes = 1_000_000_000_000,
        max_expansion: Ratio = 300.0,
    ) -> None:
        self.check_arguments(delimiter)
        self.delimiter, self.header = delimiter, None if header is None else list(header)
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
            max_decompressed_bytes=max_decompressed_bytes,
            max_expansion=max_expansion,
        )

    @staticmethod
    def check_arguments(delimiter: str | None = None) -> None:
        """The delimiter parts fields.

        Raises:
            ConfigError: it is more or less than one character, a quote or a line's end. Key `delimiter`.
        """
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise ConfigError("delimiter", delimiter, "must be one character, such as ; or |")

    def contents(self, piece: Piece) -> Iterator[Document | pl.DataFrame]:
        """One document or reject for each row that is not blank; its place is the row's first line."""
        lines = _Lines(*self.stream(piece), self.max_document_bytes)
        header = self.header
        for place, fields in self._rows(piece, lines):
            reason = lines.reason()  # whatever becomes of the row, the next one has its own
            for number, raw, n_bytes in lines.taken():
                yield self.reject(piece, "too_large", raw, number, n_bytes)
                if header is None:
                    raise Unreadable("broken_csv")
            if isinstance(fields, Document):
                yield fields
                if header is None:
                    raise Unreadable("broken_csv")
            elif header is None:
                header = fields
            elif len(fields) != len(header):
                yield self.reject(piece, "ragged_row", ",".join(fields), place)
            else:
                row = dict(zip(header, fields, strict=True))
                yield self.row(piece, place, row, ",".join(fields), reason)
        for number, raw, n_bytes in lines.taken():
            yield self.reject(piece, "too_large", raw, number, n_bytes)

    def _rows(self, piece: Piece, lines: _Lines) -> Iterator[tuple[int, list[str] | Document]]:
        name = piece.path.name.lower()
        delimiter = self.delimiter or ("\t" if ".tsv" in name else ",")
        reader = csv.reader(lines, delimiter=delimiter)
        while True:
            place = lines.line
            # one number for all readers of a process, so it is set for each row
            csv.field_size_limit(max(FIELD_CHARS, self.max_document_bytes))
            try:
                fields = next(reader, None)
            except csv.Error as error:
                reason = "too_large" if "limit" in str(error) else "broken_csv"
                yield place, self.reject(piece, reason, lines.last, place)
                continue
            if fields is None:
                return
            if lines.ended:  # it was looking for the end of a quoted field
                yield place, self.reject(piece, "broken_csv", ",".join(fields), place)
            elif fields:
                yield place, fields

    def headers(self) -> Iterator[Sequence[str]]:
        """The first row of each file."""
        if self.header is not None:
            yield self.header
            return
        for path in self._paths:
            piece = Piece(path, "")
            try:
                lines = _Lines(*self.stream(piece), self.max_document_bytes)
                first = next((row for _, row in self._rows(piece, lines)), None)
            except Unreadable:
                continue
            if isinstance(first, list) and not lines.taken():
                yield first


class _Lines:
    """The lines of a stream as text, for `csv.reader`, with what was found wrong on the way."""

    def __init__(self, recoded: bool, source: Iterator[bytes], max_bytes: int) -> None:
        self.line, self.last, self.ended = 1, "", False
        self._recoded, self._decoder = recoded, Decoder()
        self._reason: str | None = None
        self._too_large: list[tuple[int, bytes, int]] = []
        self._lines = self._read(source, max_bytes)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            self.last = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        return self.last

    def _read(self, source: Iterator[bytes], max_bytes: int) -> Iterator[str]:
        for chunk in chunks(source, b"\n", max_bytes):
            if not chunk.whole:
                self._too_large.append((self.line, chunk.data, chunk.n_bytes))
                self.line += chunk.n_lines
                continue
            # lines end in a line feed only: a lone carriage return is part of a field
            for raw in io.BytesIO(chunk.data):
                text, reason = self._decoder.decode(raw)
                self._reason = self._reason or reason
                self.line += 1
                yield text

    def reason(self) -> str | None:
        """Why lines since the last call are not as they were."""
        found, self._reason = self._reason or ("reencoded" if self._recoded else None), None
        return found

    def taken(self) -> list[tuple[int, bytes, int]]:
        """Lines left out since the last call, for their size: number, beginning, bytes."""
        found, self._too_large = self._too_large, []
        return found
