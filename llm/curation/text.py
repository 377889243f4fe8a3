"""Reader of plain text files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import polars as pl

from llm.curation.characters import Decoder, is_binary
from llm.curation.documents import Document
from llm.curation.files import Bytes, FileSource, Piece, Ratio, cut_at
from llm.curation.streams import EXCERPT_BYTES, Unreadable, chunks


class TextFiles(FileSource):
    """Text files (.txt, .md, .text): a file, a folder or a glob pattern.

    Files in UTF-16, Windows-1252 and other encodings are decoded (`reencoded`), those with many control
    characters set aside as `not_text`. Further arguments as in `llm.curation.files.FileSource`.

    Args:
        path: File, folder or pattern.
        domain: Domain of the documents, the unit of mixture weights.
        per: `file`, or `paragraph` for one document a blank-line separated block.
    """

    suffixes = (".txt", ".md", ".text")

    def __init__(
        self,
        path: str,
        domain: str = "text",
        per: Literal["file", "paragraph"] = "file",
        *,
        licence: str | None = None,
        max_document_bytes: Bytes = 20_000_000,
        max_decompressed_bytes: Bytes = 1_000_000_000_000,
        max_expansion: Ratio = 300.0,
    ) -> None:
        self.per = per
        super().__init__(
            path,
            domain=domain,
            licence=licence,
            max_document_bytes=max_document_bytes,
            max_decompressed_bytes=max_decompressed_bytes,
            max_expansion=max_expansion,
        )

    def contents(self, piece: Piece) -> Iterator[Document | pl.DataFrame]:
        """The file as one document, or one for each paragraph (ids `file#0`, `file#1`, ...)."""
        recoded, source = self.stream(piece)
        reason = "reencoded" if recoded else None
        if self.per == "paragraph":
            yield from self._paragraphs(piece, source, reason)
            return
        raw, n_bytes, failure = gather(source, self.max_document_bytes)
        if is_binary(raw):
            yield self.reject(piece, "not_text", raw)
        elif n_bytes > self.max_document_bytes:
            yield self.reject(piece, "too_large", raw, score=n_bytes)
        elif raw and not raw.isspace():
            text, why = Decoder().decode(raw)
            yield self.document(piece, None, text, why or reason)
        if failure is not None:
            raise failure

    def _paragraphs(self, piece: Piece, source: Iterator[bytes], reason: str | None) -> Iterator[Document]:
        decoder, line, number = Decoder(), piece.line, piece.number
        for chunk in chunks(_unix(source), b"\n\n", self.max_document_bytes):
            if not chunk.whole:
                why = "not_text" if is_binary(chunk.data) else "too_large"
                yield self.reject(piece, why, chunk.data, line, chunk.n_bytes)
                number += 1
            else:
                at = line
                for block in chunk.data.split(b"\n\n"):
                    if block and not block.isspace():
                        yield self._paragraph(piece, block, number, at, decoder, reason)
                        number += 1
                    at += block.count(b"\n") + 2
            line += chunk.n_lines

    def _paragraph(
        self, piece: Piece, block: bytes, number: int, line: int, decoder: Decoder, reason: str | None
    ) -> Document:
        line += len(block) - len(block.lstrip(b"\n"))
        block = block.strip(b"\n")
        if is_binary(block):
            made = self.reject(piece, "not_text", block, line)
        elif len(block) > self.max_document_bytes:
            made = self.reject(piece, "too_large", block, line, len(block))
        else:
            text, why = decoder.decode(block)
            made = self.document(piece, line, text, why or reason)
        return made._replace(id=f"{piece.name}#{number}")

    def cut(self, piece: Piece, size: int) -> Iterator[Piece]:
        """Ranges of paragraphs that end after blank lines; a file of one document is not cut."""
        if self.per == "file":
            return iter([piece])
        with piece.path.open("rb") as file:
            ends = b"\r\n\r\n" if b"\r\n" in file.read(1 << 16) else b"\n\n"
        return cut_at(piece, size, ends, _n_paragraphs)


def gather(source: Iterable[bytes], max_bytes: int) -> tuple[bytes, int, Unreadable | None]:
    """A document's bytes (their beginning when they are too many), its size, and what cut it short."""
    raw, n_bytes = bytearray(), 0
    try:
        for block in source:
            n_bytes += len(block)
            if n_bytes <= max_bytes:
                raw += block
            elif len(raw) != EXCERPT_BYTES:
                raw = bytearray(bytes(raw + block)[:EXCERPT_BYTES])
    except Unreadable as failure:
        return bytes(raw), n_bytes, failure
    return bytes(raw), n_bytes, None


def _unix(source: Iterable[bytes]) -> Iterator[bytes]:
    """The stream with line ends of one byte; a pair may lie across two blocks."""
    held = b""
    for block in source:
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""
        yield block[: len(block) - len(held)].replace(b"\r\n", b"\n")
    yield held


def _n_paragraphs(data: bytes) -> int:
    blocks = data.replace(b"\r\n", b"\n").split(b"\n\n")
    return sum(1 for block in blocks if block and not block.isspace())
