"""Reader of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
import polars as pl

from llm.curation.characters import Decoder
from llm.curation.documents import Document
from llm.curation.files import Columns, Piece, cut_at, state_of
from llm.curation.streams import BLOCK_BYTES, Unreadable, chunks, is_compressed


class JsonLines(Columns):
    """One JSON object a line (.jsonl, .ndjson): a file, a folder or a glob pattern.

    Arguments as in `llm.curation.files.Columns`. A line that is no JSON is set aside as `broken_json`, one
    that is no object as `no_object`, one without a text as `no_text`, and one above `max_document_bytes` as
    `too_large`. Escaped lone surrogates and NUL are taken out, and bytes that are no UTF-8 decoded by
    detection, each with a reason.
    """

    suffixes = (".jsonl", ".ndjson")

    def contents(self, piece: Piece) -> Iterator[Document | pl.DataFrame]:
        """One document or reject for each line that is not blank."""
        recoded, source = self.stream(piece)
        parser, line = Parser(self.wanted.values()), piece.line
        for chunk in chunks(source, b"\n", self.max_document_bytes):
            if not chunk.whole:
                yield self.reject(piece, "too_large", chunk.data, line, chunk.n_bytes)
            else:
                for number, raw in enumerate(chunk.data.split(b"\n"), start=line):
                    if not raw or raw.isspace():
                        continue
                    if len(raw) > self.max_document_bytes:
                        yield self.reject(piece, "too_large", raw, number, len(raw))
                        continue
                    row, reason = parser.parse(raw)
                    if row is None:
                        yield self.reject(piece, str(reason), raw, number)
                    else:
                        yield self.row(piece, number, row, raw, reason or ("reencoded" if recoded else None))
            line += chunk.n_lines

    def headers(self) -> Iterator[Sequence[str]]:
        """Keys of the rows in the first megabyte of each file.

        Later rows may have others, so of large files only the text's is looked for.
        """
        for path in self._paths:
            try:
                # the second is the last line where no line end follows it
                first = list(
                    islice(chunks(self.stream(Piece(path, ""))[1], b"\n", self.max_document_bytes), 2)
                )
            except Unreadable:
                continue
            parser = Parser(())
            for raw in b"".join(chunk.data for chunk in first if chunk.whole).split(b"\n"):
                row, _ = parser.parse(raw)
                if row is not None:
                    yield list(row)

    @property
    def checked(self) -> dict[str, str]:
        """All columns where all of every file is looked at, else that of the text."""
        whole = not any(is_compressed(path) or state_of(path)[0] > BLOCK_BYTES for path in self._paths)
        return self.wanted if whole else {"text": self.text}

    def cut(self, piece: Piece, size: int) -> Iterator[Piece]:
        """Ranges that end after lines."""
        return cut_at(piece, size, b"\n", lambda _: 0)


class Parser:
    """One line to a row: by msgspec, and by the slower but milder `json` for what that refuses.

    What `json` reads too: ``NaN``, control characters in strings, lone surrogates, numbers out of range.

    Args:
        columns: Those whose texts are decoded by detection when the line is no UTF-8.
    """

    def __init__(self, columns: Any) -> None:
        self._columns = tuple(columns)
        self._decoder = Decoder()
        self._fast = msgspec.json.Decoder()

    def parse(self, raw: bytes) -> tuple[Mapping[str, Any] | None, str | None]:
        """The row, with a reason when its text was altered; or None with the reason why there is none."""
        try:
            row = self._fast.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self.parse_mildly(raw)
        return (row, None) if isinstance(row, dict) else (None, "no_object")

    def parse_mildly(self, raw: bytes) -> tuple[Mapping[str, Any] | None, str | None]:
        """As `parse`, without msgspec; both give the same where both give a row."""
        try:
            # a mark stands wherever files were put one behind the other
            text, sound = raw.decode("utf-8-sig"), True
        except UnicodeDecodeError:
            # JSON's own characters are ASCII, so a line has its structure before its encoding is known
            text, sound = raw.decode("utf-8-sig", "surrogateescape"), False
        try:
            row = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            return None, "broken_json"
        if not isinstance(row, dict):
            return None, "no_object"
        reason = None
        for column in () if sound else self._columns:
            if isinstance(value := row.get(column), str) and not value.isascii():
                row[column], why = self._decoder.decode(_bytes(value))
                reason = why if column == self._columns[0] else reason
        return row, reason


def _bytes(text: str) -> bytes:
    """The bytes of a text decoded with `surrogateescape`, other lone surrogates replaced."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        kept = "".join(
            c if not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" else "\ufffd" for c in text
        )
        return kept.encode("utf-8", "surrogateescape")
