"""Web pages to their main text, and the reader of HTML files.

Barbaresi 2021, "Trafilatura: A Web Scraping Library and Command-Line Tool for Text Discovery and Extraction".
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterator
from html import unescape
from typing import Annotated, NamedTuple

import polars as pl
from pydantic import Field

from llm.curation.characters import Decoder, clean, is_binary
from llm.curation.documents import Document, require
from llm.curation.files import Bytes, FileSource, Piece, Ratio
from llm.curation.text import gather

MAX_DEPTH = 256
"""libxml2, by which trafilatura reads a page, cuts it off where as many elements lie in one another."""

CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]+)", re.IGNORECASE)
XML_ENCODING = re.compile(rb"^\s*<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w:.-]+)", re.IGNORECASE)
LICENCE_LINK = re.compile(
    # bounded, and never beyond the next tag, so that it takes no longer the more of them there are
    r"<(?:a|link)\b(?=[^<>]{0,500}\brel\s*=\s*[\"']?[^<>\"']{0,100}\blicen[sc]e\b)"
    r"[^<>]{0,500}\bhref\s*=\s*[\"']?"
    r"(?:https?:)?//creativecommons\.org/(licenses/([a-z-]+)/([\d.]+)|publicdomain/(zero|mark)/1\.0)",
    re.IGNORECASE,
)


class Extraction(NamedTuple):
    """The main text of a page. With `keep` false there is none; `reason` also names a repair."""

    text: str
    keep: bool = True
    reason: str | None = None


class Extractor:
    """Main text by trafilatura, and all visible text where that gives up.

    No clock decides: the same page gives the same text on every machine. Pages are bounded by their number of
    tags instead, on which the time depends.

    Args:
        max_tags: Pages with more are not given to trafilatura.
    """

    def __init__(self, max_tags: int) -> None:
        self.max_tags = max_tags

    def extract(self, page: str) -> Extraction:
        """The main text; `extraction_fallback` is the reason where it is all visible text instead."""
        page, reason = clean(page)
        if page.count("<") > self.max_tags:
            return self._visible(page)
        import trafilatura  # half a second that only those pay who read pages

        # it speaks of every page without text, as the ledger does
        logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
        try:
            found = trafilatura.extract(page, include_comments=False, output_format="txt")
        except Exception:  # whatever a page does to it, the next one may be sound
            return self._visible(page)
        if not found:
            return self._visible(page, only_deep=True)
        # it says nothing of what stands behind the deep place
        return self._visible(page) if _cut_off(page) else Extraction(*_sound(found, reason))

    def _visible(self, page: str, *, only_deep: bool = False) -> Extraction:
        text, depth = visible(page)
        if not text or (only_deep and depth < MAX_DEPTH):
            return Extraction("", False, "no_main_text")
        return Extraction(*_sound(text, "extraction_fallback"))


def _cut_off(page: str) -> bool:
    """Whether trafilatura has not seen all of the page."""
    if page.count("<") < MAX_DEPTH:
        return False
    import trafilatura

    tree = trafilatura.load_html(page)
    return tree is not None and bool(tree.xpath("/*" * MAX_DEPTH))


def _sound(text: str, reason: str | None) -> tuple[str, bool, str | None]:
    text, reason = clean(text, reason)
    return text, True, reason


HIDDEN = frozenset({"script", "style", "noscript", "template", "title", "svg", "iframe", "object"})
INLINE = frozenset(re.findall(r"\w+", """
    a abbr b bdi bdo cite code data dfn em font i kbd mark q s samp small span strong sub sup time tt u var
    wbr"""))  # fmt: skip
# these need no end tag, so counting them would make every long list deep
OPEN = frozenset(re.findall(r"\w+", """
    area base br col embed hr img input link meta param source track wbr p li dd dt tr td th option tbody
    thead tfoot"""))  # fmt: skip
# more digits than python makes a number of; no character has more than seven
ABSURD = re.compile(r"&#[0-9]{1000,};?")
TAG = re.compile(r"<(?P<end>/?)(?P<name>[a-zA-Z][\w:-]*)[^<>]*>?|(?P<comment><!--)|<[!?/][^<>]*>?|<")


def visible(page: str) -> tuple[str, int]:
    """What a browser would show, a line for each block; and how deep the elements lie.

    It reads once from front to back, whatever the page holds; a parser that builds a tree does not.
    """
    parts: list[str] = []
    at = depth = max_depth = 0
    while found := TAG.search(page, at):
        parts.append(_shown(page[at : found.start()]))
        at = found.end()
        name = (found["name"] or "").lower()
        if found["comment"]:
            at = _after(page, "-->", at)
        elif not name:
            parts.append("<" if found[0] == "<" else "")
        elif name in HIDDEN and not found["end"]:
            closing = re.compile(f"</{name}", re.IGNORECASE).search(page, at)
            at = closing.start() if closing else len(page)
        else:
            if name not in OPEN:
                depth = max(0, depth - 1) if found["end"] else depth + 1
                max_depth = max(max_depth, depth)
            parts.append("" if name in INLINE else "\n")
    parts.append(_shown(page[at:]))
    lines = (re.sub(" +", " ", line).strip() for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line), max_depth


def _shown(data: str) -> str:
    return re.sub(r"\s+", " ", unescape(ABSURD.sub("\ufffd", data)))


def _after(page: str, mark: str, at: int) -> int:
    end = page.find(mark, at)
    return len(page) if end < 0 else end + len(mark)


def decoded(raw: bytes, charset: str | None = None) -> tuple[str, str | None]:
    """A page as text: UTF-8 if it is that, else as it or its server says, else by detection.

    Args:
        raw: The page.
        charset: What the HTTP header says.
    """
    try:
        plain = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        plain = None
    said = XML_ENCODING.search(raw[:200]) or CHARSET.search(raw[:4096])
    for name in (charset, said[1].decode("ascii", "replace") if said else None):
        encoding = _codec(name) if name else None
        # ISO 2022 is written in ASCII, so it would pass for UTF-8
        if encoding is None or (plain is not None and not encoding.startswith("iso2022")):
            continue
        try:
            return raw.decode(encoding), None
        except (UnicodeDecodeError, ValueError):
            continue
    return (plain, None) if plain is not None else Decoder().decode(raw)


def _codec(name: str) -> str | None:
    """Python's name of an encoding; pages that say Latin-1 mean Windows-1252, those that say UTF lie."""
    try:
        found = codecs.lookup(name.strip())
    except (LookupError, ValueError):
        return None
    if not getattr(found, "_is_text_encoding", True) or found.name.startswith("utf"):
        return None
    return "cp1252" if found.name in ("iso8859-1", "ascii") else found.name


def licence_of(page: str) -> str | None:
    """The Creative Commons licence a page says it has (``rel="license"``), as SPDX names it."""
    found = LICENCE_LINK.search(page)
    if not found:
        return None
    if found[4]:
        return "CC0-1.0" if found[4].lower() == "zero" else None
    return f"CC-{found[2].upper()}-{found[3]}"


class HtmlFiles(FileSource):
    """HTML files (.html, .htm, .xhtml), one document each: the main text.

    A page without main text is set aside as `no_main_text`. Its licence is what it declares by a Creative
    Commons link, else `licence`. Further arguments as in `llm.curation.files.FileSource`.

    Args:
        path: File, folder or pattern.
        domain: Domain of the documents.
        max_document_bytes: Larger pages are set aside.
        max_tags: Pages with more tags than that give all visible text instead of the main text.
    """

    suffixes = (".html", ".htm", ".xhtml")

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
        require("trafilatura", "curation", "path", path)
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
        """The page's main text."""
        recoded, source = self.stream(piece)
        raw, n_bytes, failure = gather(source, self.max_document_bytes)
        if failure is not None:
            raise failure  # half a page has no main text
        if n_bytes > self.max_document_bytes:
            yield self.reject(piece, "too_large", raw, score=n_bytes)
        elif is_binary(raw):
            yield self.reject(piece, "not_text", raw)
        elif raw and not raw.isspace():
            page, why = decoded(raw)
            found = Extractor(self.max_tags).extract(page)
            if not found.keep:
                yield self.reject(piece, str(found.reason), page)
                return
            reason = why or found.reason or ("reencoded" if recoded else None)
            made = self.document(piece, None, found.text, reason)
            yield made._replace(licence=licence_of(page) or self.licence)
