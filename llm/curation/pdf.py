"""Reader of PDF files."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import polars as pl

from llm.curation.documents import Document, require
from llm.curation.files import Bytes, FileSource, Piece
from llm.curation.streams import blocks
from llm.curation.text import gather


class PdfFiles(FileSource):
    """PDF files, one document each: the text of its pages, as pypdf finds it, blank lines between them.

    Set aside are files that ask for a password (`encrypted`), that are damaged (`broken_pdf`), and those
    without text, such as scans (`no_text`). A page that cannot be read is left out, and `lost_pages` says so.

    Args:
        path: File, folder or pattern.
        domain: Domain of the documents.
        licence: As in `llm.curation.files.FileSource`.
        max_document_bytes: Bound of the file, and of its text.
    """

    suffixes = (".pdf",)

    def __init__(
        self,
        path: str,
        domain: str = "pdf",
        *,
        licence: str | None = None,
        max_document_bytes: Bytes = 20_000_000,
    ) -> None:
        require("pypdf", "curation", "path", path)
        super().__init__(path, domain=domain, licence=licence, max_document_bytes=max_document_bytes)

    def contents(self, piece: Piece) -> Iterator[Document | pl.DataFrame]:
        """The file's text."""
        raw, n_bytes, failure = gather(blocks(piece.path, limits=self.limits), self.max_document_bytes)
        if failure is not None:
            raise failure
        if n_bytes > self.max_document_bytes:
            yield self.reject(piece, "too_large", "", score=n_bytes)
        elif raw:
            yield self._document(piece, raw)

    def _document(self, piece: Piece, raw: bytes) -> Document:
        pypdf = _pypdf()
        try:
            reader = pypdf.PdfReader(io.BytesIO(raw))
            if reader.is_encrypted and not reader.decrypt(""):
                return self.reject(piece, "encrypted", "")
            n_pages = len(reader.pages)
        except Exception as error:  # a damaged file may raise anything
            encrypted = isinstance(error, pypdf.errors.DependencyError | pypdf.errors.FileNotDecryptedError)
            return self.reject(piece, "encrypted" if encrypted else "broken_pdf", "")
        pages: list[str] = []
        n_bytes = n_lost = 0
        for number in range(n_pages):
            try:
                text = reader.pages[number].extract_text().strip()
            except Exception:
                n_lost += 1
                continue
            n_bytes += len(text.encode("utf-8", "replace"))
            if n_bytes > self.max_document_bytes:
                return self.reject(piece, "too_large", pages[0] if pages else text, score=n_bytes)
            pages += [text] if text else []
        if not pages:
            return self.reject(piece, "broken_pdf" if n_lost else "no_text", "")
        return self.document(piece, None, "\n\n".join(pages), "lost_pages" if n_lost else None)


def _pypdf() -> Any:
    import pypdf
    import pypdf.errors

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells of each oddity that it has mended
    return pypdf
