"""Reader of Web archives, such as those of Common Crawl."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from llm.curation.characters import Decoder, is_binary
from llm.curation.documents import Document, excerpt, require
from llm.curation.files import Bytes, FileSource, Piece, Ratio
from llm.curation.html import Extractor, decoded, licence_of
from llm.curation.streams import Unreadable, blocks

PAGES = ("text/html", "application/xhtml+xml")


class WarcFiles(FileSource):
    """WARC files (.warc, .wet): the main text of the HTML pages that a server answered with status 200.

    The document's id is the record's, its provenance the URL, its licence what the page declares, else
    `licence`. Other answers are set aside: `http_status` (the score is the status), `not_html`, `revisit`.
    Text that a crawler has extracted already (``conversion`` records of WET files) is taken as it is.
    Further arguments as in `llm.curation.html.HtmlFiles`.
    """

    suffixes = (".warc", ".wet")

    def __init__(
        self,
        path: str,
        domain: str = "web",
        *,
        max_tags: Annotated[int, Field(gt=0)] = 50_000,
        licence: str | None = None,
        max_document_bytes: Bytes = 5_000_000,
        max_decompressed_bytes: Bytes = 1_000_000_000_000,
        max_expansion: Ratio = 300.0,
    ) -> None:
        for module in ("warcio", "trafilatura"):
            require(module, "curation", "path", path)
        self.max_tags = max_tags
        super().__init__(
            path,
            domain=domain,
            licence=licence,
            max_document_bytes=max_document_bytes,
            max_decompressed_bytes=max_decompressed_bytes,
            max_expansion=max_expansion,
        )

    def contents(self, piece: Piece) -> Iterator[Document | pl.DataFrame]:
        """One document or reject for each answer in the archive."""
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
        from warcio.statusandheaders import StatusAndHeadersParserException

        extractor = Extractor(self.max_tags)
        raw = _Raw(blocks(piece.path, limits=self.limits))
        number = -1
        try:
            for number, record in enumerate(ArchiveIterator(io.BufferedReader(raw, 1 << 16))):
                if record.rec_type in ("response", "resource", "revisit", "conversion"):
                    try:
                        made = self._record(piece, number, record, extractor)
                    except Exception:  # whatever is in it, the next one may be sound
                        made = self.reject(piece, "broken_record", "", number)
                    headers = record.rec_headers
                    name = headers.get_header("WARC-Record-ID")
                    url = headers.get_header("WARC-Target-URI")
                    yield made._replace(
                        id=excerpt(name.strip("<> ")) if name else made.id,
                        provenance=excerpt(url.strip("<> ")) if url else made.provenance,
                    )
        except (ArchiveLoadFailed, StatusAndHeadersParserException, ValueError, EOFError) as error:
            raise raw.failure or Unreadable("not_warc" if number < 0 else "corrupt") from error
        if raw.failure is not None:
            raise raw.failure

    def _record(self, piece: Piece, number: int, record: Any, extractor: Extractor) -> Document:
        kind, charset = _content_type(record)
        if record.rec_type == "revisit":
            return self.reject(piece, "revisit", "", number)
        if record.rec_type == "response":
            status = record.http_headers.get_statuscode() if record.http_headers else ""
            if status != "200":
                score = int(status) if status.isascii() and status.isdigit() else None
                return self.reject(piece, "http_status", "", number, score)
        if record.rec_type != "conversion" and kind not in PAGES:
            return self.reject(piece, "not_html", kind, number)
        try:
            raw = record.content_stream().read(self.max_document_bytes + 1)
            cut_short = len(raw) <= self.max_document_bytes and record.raw_stream.limit
            if cut_short and not record.raw_stream.read(1):
                return self.reject(piece, "truncated", raw, number)
        except Exception:  # a transfer or content encoding that is broken: several libraries' errors
            return self.reject(piece, "broken_record", "", number)
        if len(raw) > self.max_document_bytes:
            return self.reject(piece, "too_large", raw, number, record.length)
        if not raw or raw.isspace():
            return self.reject(piece, "empty", "", number)
        if is_binary(raw):
            return self.reject(piece, "not_text", raw, number)
        if record.rec_type == "conversion":
            return self.document(piece, number, *Decoder().decode(raw))
        page, why = decoded(raw, charset)
        found = extractor.extract(page)
        if not found.keep:
            return self.reject(piece, str(found.reason), page, number)
        made = self.document(piece, number, found.text, why or found.reason)
        return made._replace(licence=licence_of(page) or self.licence)


def _content_type(record: Any) -> tuple[str, str | None]:
    """Media type and charset, in small letters."""
    headers = record.http_headers if record.rec_type == "response" else record.rec_headers
    value = (headers.get_header("Content-Type") if headers else None) or ""
    kind, _, rest = value.lower().partition(";")
    charset = rest.partition("charset=")[2].partition(";")[0].strip("\"' ")
    return kind.strip(), charset or None


class _Raw(io.RawIOBase):
    """A stream of blocks as the file that a library wants to read from.

    failure: why it ended early; raised here, it would cost the bytes that came before it.
    """

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source, self._held = source, memoryview(b"")
        self.failure: Unreadable | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            try:
                block = next(self._source, None)
            except Unreadable as failure:
                self.failure, block = failure, None
            if block is None:
                return 0
            self._held = memoryview(block)
        n_bytes = min(len(buffer), len(self._held))
        buffer[:n_bytes] = self._held[:n_bytes]
        self._held = self._held[n_bytes:]
        return n_bytes
