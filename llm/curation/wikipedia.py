"""Reader of Wikipedia's XML dumps, and of those of every other MediaWiki."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote
from xml.etree.ElementTree import ParseError, XMLParser

import polars as pl

from llm.curation.documents import Document, require
from llm.curation.files import Bytes, FileSource, Piece, Ratio
from llm.curation.streams import Unreadable
from llm.curation.wikitext import plain_text

EXCERPT_CHARS = 4096


class WikipediaDump(FileSource):
    """Dumps ``*-pages-articles*.xml`` (also .bz2 .gz .zst .xz), one document an article, as plain text.

    Pages that redirect and those outside the article namespace are set aside as `redirect` and `namespace`.
    Ids are the wiki's name and the page's number, provenance is its URL. A dump in several files is read by
    as many processes; one file by one.

    Args:
        path: File, folder or pattern.
        domain: Domain of the documents.
        licence: That of Wikipedia since June 2023; another wiki's may be another.
        with_title: Whether the text begins with the title and a blank line.
        max_document_bytes: Pages whose markup is larger are set aside, and never held whole.
        max_decompressed_bytes: As in `llm.curation.files.FileSource`.
        max_expansion: As there.
    """

    suffixes = (".xml",)

    def __init__(
        self,
        path: str,
        domain: str = "wikipedia",
        *,
        licence: str | None = "CC-BY-SA-4.0",
        with_title: bool = True,
        max_document_bytes: Bytes = 20_000_000,
        max_decompressed_bytes: Bytes = 1_000_000_000_000,
        max_expansion: Ratio = 300.0,
    ) -> None:
        require("mwparserfromhell", "curation", "path", path)
        self.with_title = with_title
        super().__init__(
            path,
            domain=domain,
            licence=licence,
            max_document_bytes=max_document_bytes,
            max_decompressed_bytes=max_decompressed_bytes,
            max_expansion=max_expansion,
        )

    def contents(self, piece: Piece) -> Iterator[Document | pl.DataFrame]:
        """One document or reject for each page."""
        _, source = self.stream(piece)
        pages = _Pages(self.max_document_bytes)
        parser = XMLParser(target=pages)
        try:
            for block in source:
                parser.feed(block)
                yield from self._finished(piece, pages)
            parser.close()
        except ParseError as error:
            yield from self._finished(piece, pages)
            raise Unreadable("broken_xml") from error
        yield from self._finished(piece, pages)

    def _finished(self, piece: Piece, pages: _Pages) -> Iterator[Document]:
        for page in pages.taken():
            yield self._page(piece, pages, page)

    def _page(self, piece: Piece, wiki: _Pages, page: dict[str, str]) -> Document:
        title, number, text = page.get("title", ""), page.get("id", ""), page.get("text", "")
        if "redirect" in page:
            made = self.reject(piece, "redirect", text, number)
        elif page.get("ns", "0") != "0":
            made = self.reject(piece, "namespace", text, number)
        elif "size" in page:
            made = self.reject(piece, "too_large", text, number, float(page["size"]))
        else:
            plain = plain_text(text, wiki.dropped)
            if plain is None:
                made = self.reject(piece, "broken_wikitext", text, number)
            elif not plain:
                made = self.reject(piece, "empty", text, number)
            else:
                made = self.document(piece, number, f"{title}\n\n{plain}" if self.with_title else plain)
        name = f"{wiki.name or piece.name}:{number}"
        url = f"{wiki.base}{quote(title.replace(' ', '_'), safe='/:(),!;@')}" if wiki.base else name
        return made._replace(id=name, provenance=url)


class _Pages:
    """What an XML parser says of a dump, as pages; of one that is too large, only the beginning is kept."""

    def __init__(self, max_bytes: int) -> None:
        self.name = self.base = ""
        self.dropped = {"file", "image", "category"}
        self._max_bytes = max_bytes
        self._page: dict[str, str] | None = None
        self._finished: list[dict[str, str]] = []
        self._tag, self._namespace, self._inside = "", "", 0
        self._text: list[str] = []
        self._size = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._tag = tag = tag.rpartition("}")[2]
        self._text, self._size = [], 0
        if tag == "page":
            self._page = {}
        elif tag == "namespace":
            self._namespace = attributes.get("key", "")
        elif tag == "redirect" and self._page is not None:
            self._page["redirect"] = attributes.get("title", "")
        if tag in ("revision", "contributor"):
            self._inside += 1

    def data(self, data: str) -> None:
        # characters, of which a byte makes one at most
        if self._size <= self._max_bytes:
            self._text.append(data)
        self._size += len(data)

    def end(self, tag: str) -> None:
        tag = tag.rpartition("}")[2]
        if tag in ("revision", "contributor"):
            self._inside -= 1
        elif tag == "page" and self._page is not None:
            self._finished.append(self._page)
            self._page = None
        elif tag == self._tag:
            self._field(tag)
        self._tag, self._text = "", []

    def _field(self, tag: str) -> None:
        text = "".join(self._text)
        if self._page is None:
            if tag == "dbname":
                self.name = text
            elif tag == "base":
                self.base = text.rpartition("/")[0] + "/"
            elif tag == "namespace" and self._namespace in ("6", "14"):
                self.dropped.add(text.lower())
        elif tag == "text":
            size = len(text.encode("utf-8", "replace")) if self._size <= self._max_bytes else self._size
            if size > self._max_bytes:
                self._page["size"], text = str(size), text[:EXCERPT_CHARS]
            self._page["text"] = text
        elif tag in ("title", "ns") or (tag == "id" and not self._inside):
            self._page[tag] = text

    def close(self) -> None:
        """The end of the dump."""

    def taken(self) -> list[dict[str, str]]:
        """Pages that have ended since the last call."""
        found, self._finished = self._finished, []
        return found
