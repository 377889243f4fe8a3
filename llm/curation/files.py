"""What the readers of files share: finding them, parting them, what a document is told."""

from __future__ import annotations

import glob
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import polars as pl
from pydantic import Field

from llm.curation.characters import clean
from llm.curation.documents import Document, Streamed, batched, excerpt
from llm.curation.streams import (
    DECOMPRESSORS,
    Limits,
    Unreadable,
    as_utf8,
    blocks,
    chunks,
    is_compressed,
    wide_encoding,
)
from llm.files import digest
from llm.types import ConfigError

PART_BYTES = 1 << 25
FIELDS = {
    "id": "id",
    "domain_column": "domain",
    "licence_column": "licence",
    "provenance_column": "provenance",
}
"""What a row may say of its document, by the setting that names the column."""

Bytes = Annotated[int, Field(gt=0)]
Ratio = Annotated[float, Field(gt=1)]


def find(path: str, suffixes: Sequence[str]) -> list[Path]:
    """The files a path means: itself, those of a folder (any depth) by suffix, or those of a glob pattern.

    Folders in the folder that may not be read are among them: whoever reads them finds out, and tells of it.

    Raises:
        ConfigError: nothing is there, or it holds no such file. Key `path`.
    """
    if not path.strip():
        raise ConfigError("path", repr(path), "is empty: give a file, a folder or a pattern")
    here = Path(path).expanduser()
    if here.is_file():
        return [here]
    if here.is_dir():
        found, closed = _below(here, tuple(suffixes))
        if here in closed:
            raise ConfigError("path", path, "the folder may not be read")
        if not found:
            raise ConfigError("path", path, f"the folder holds no {', '.join(suffixes)} file")
        return sorted([*found, *closed])
    # a pattern may be absolute, which Path.glob refuses
    found = sorted(Path(one) for one in glob.glob(str(here), recursive=True) if Path(one).is_file())  # noqa: PTH207
    if not found:
        mend = "no file matches the pattern" if glob.has_magic(path) else "no such file or folder"
        raise ConfigError("path", path, mend)
    return found


def _below(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """Files of these suffixes at any depth, and folders that may not be read."""
    closed: list[Path] = []
    walked = os.walk(folder, onerror=lambda failure: closed.append(Path(failure.filename)))
    found = [Path(here, name) for here, _, names in walked for name in names]
    return [one for one in found if one.name.lower().endswith(suffixes)], closed


def fingerprint(paths: Sequence[Path], *settings: object) -> str:
    """A digest of names, sizes and times of change: reading gigabytes to find nothing new would be slow."""
    told = [(_printable(str(path.resolve())), *state_of(path)) for path in paths]
    return digest([settings, told])


def state_of(path: Path) -> tuple[int, int]:
    """Size and time of change; of a link that leads nowhere, which is recorded when it is read, none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def labels(paths: Sequence[Path]) -> list[str]:
    """Short names of files, unique among them: their places below their common folder."""
    if len(paths) == 1:
        return [_printable(paths[0].name)]
    common = paths[0].parent
    for one in paths:
        while not one.is_relative_to(common):
            common = common.parent
    return [_printable(one.relative_to(common).as_posix()) for one in paths]


def _printable(name: str) -> str:
    """A file's name as text: its bytes need not be any, and two names stay two."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Piece(NamedTuple):
    """A file, or a range of its bytes that begins and ends where records do.

    name: short and unique in the source. line, number: the first line (from 1) and record (from 0) in it.
    """

    path: Path
    name: str
    start: int = 0
    stop: int | None = None
    line: int = 1
    number: int = 0

    @property
    def source(self) -> str:
        """The file's own name."""
        return self.name.rpartition("/")[2]


class FileSource(Streamed):
    """A source whose documents lie in files. No bad file or record ends the reading: each is told of.

    Args:
        path: File, folder (any depth) or pattern. Names may end in .gz, .zst, .bz2 or .xz.
        domain: Domain of the documents, the unit of mixture weights.
        licence: SPDX identifier of the documents' licence, where it is known.
        max_document_bytes: What is larger is set aside with an excerpt, and never held in memory whole.
        max_decompressed_bytes: Where reading of a compressed file stops.
        max_expansion: Bytes a compressed file may give for each of its own, after the first 64 MiB.

    Raises:
        ConfigError: nothing at `path`.
    """

    suffixes: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        *,
        domain: str = "text",
        licence: str | None = None,
        max_document_bytes: Bytes = 20_000_000,
        max_decompressed_bytes: Bytes = 1_000_000_000_000,
        max_expansion: Ratio = 300.0,
    ) -> None:
        self.path, self.domain, self.licence = path, domain, licence
        self.max_document_bytes = max_document_bytes
        self.max_decompressed_bytes, self.max_expansion = max_decompressed_bytes, max_expansion
        self._paths = self._find()

    def _find(self) -> list[Path]:
        return find(self.path, [plain + more for plain in self.suffixes for more in ("", *DECOMPRESSORS)])

    @property
    def limits(self) -> Limits:
        """How far a compressed file may unfold."""
        return Limits(self.max_decompressed_bytes, self.max_expansion)

    def fingerprint(self) -> str:
        """Names, sizes and times of the files, and all settings but the path."""
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "path"}
        return fingerprint(self._paths, type(self).__name__, settings)

    def parts(self) -> Sequence[str]:
        """Small files in groups and large ones in ranges of about 32 MiB; a compressed file is never cut."""
        return list(self._parts)

    def read(self, part: str) -> Iterator[pl.DataFrame]:
        """Frames of the documents, and of what could not become one (`keep` false, with a reason)."""
        yield from batched(self._read(part))

    def _read(self, part: str) -> Iterator[Document | pl.DataFrame]:
        for piece in self._parts[part]:
            empty = True
            try:
                for found in self.contents(piece):
                    empty = False
                    yield found
                if empty and piece.start == 0:
                    yield self.unreadable(piece, "empty")
            except Unreadable as failure:
                yield self.unreadable(piece, failure.reason)

    @abstractmethod
    def contents(self, piece: Piece) -> Iterator[Document | pl.DataFrame]:
        """The documents in a file or in a range of it.

        Raises:
            Unreadable: the rest of it cannot be read.
        """

    def document(self, piece: Piece, place: object, text: str, reason: str | None = None) -> Document:
        """A sound document; `place` is the line or record it begins at, None for the whole file."""
        text, reason = clean(text, reason)
        name = piece.name if place is None else f"{piece.name}:{place}"
        return Document(name, text, piece.source, self.domain, self.licence, name, True, reason)

    def reject(
        self, piece: Piece, reason: str, raw: str | bytes, place: object = None, score: float | None = None
    ) -> Document:
        """What could not become a document."""
        name = piece.name if place is None else f"{piece.name}:{place}"
        text = excerpt(raw)
        return Document(name, text, piece.source, self.domain, self.licence, name, False, reason, score)

    def unreadable(self, piece: Piece, reason: str) -> Document:
        """What is said of a file as a whole; its id differs from those of documents that were read of it."""
        name = f"{piece.name}#{reason}"
        return Document(
            name, "", piece.source, self.domain, self.licence, piece.name, keep=False, reason=reason
        )

    def stream(self, piece: Piece) -> tuple[bool, Iterator[bytes]]:
        """The bytes of a file or range in UTF-8, if they are text at all; and whether that changed them."""
        source = blocks(piece.path, piece.start, piece.stop, self.limits)
        return as_utf8(source) if piece.start == 0 else (False, source)

    # ------------------------------------------------------------------------- parts

    @cached_property
    def _parts(self) -> dict[str, list[Piece]]:
        found: dict[str, list[Piece]] = {}
        group: list[Piece] = []
        room = PART_BYTES

        def close() -> None:
            if group:
                name = group[0].name if len(group) == 1 else f"{group[0].name}+{len(group) - 1}"
                found[name] = list(group)
                group.clear()

        for path, name in zip(self._paths, labels(self._paths), strict=True):
            size, _ = state_of(path)
            if size > room:
                close()
                room = PART_BYTES
            if size > PART_BYTES:
                try:
                    pieces = list(self.cut(Piece(path, name), size))
                except (OSError, Unreadable):  # the ledger is told when it is read
                    pieces = [Piece(path, name)]
                found |= {name if len(pieces) == 1 else f"{name}@{one.start}": [one] for one in pieces}
                continue
            group.append(Piece(path, name))
            room -= size
        close()
        return found

    def cut(self, piece: Piece, size: int) -> Iterator[Piece]:  # noqa: ARG002  (for those that can cut)
        """Ranges of a large file; the file itself where it cannot be cut."""
        yield piece


class Columns(FileSource):
    """A source of files whose documents are rows.

    Args:
        path: File, folder or pattern.
        text: Column of the text.
        id: Column of the document's name; the file and the row's number where it is null or missing.
        domain: Domain of the documents, where `domain_column` gives none.
        domain_column: Column of the domain.
        licence_column: Column of the licence (SPDX identifier); `licence` where it gives none.
        provenance_column: Column of where it comes from, such as `url`; else the file and line.
        settings: As those of `FileSource`.

    Raises:
        ConfigError: nothing at `path`; when read: no file has one of the columns.
    """

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
        max_decompressed_bytes: Bytes = 1_000_000_000_000,
        max_expansion: Ratio = 300.0,
    ) -> None:
        self.text, self.id, self.domain_column = text, id, domain_column
        self.licence_column, self.provenance_column = licence_column, provenance_column
        super().__init__(
            path,
            domain=domain,
            licence=licence,
            max_document_bytes=max_document_bytes,
            max_decompressed_bytes=max_decompressed_bytes,
            max_expansion=max_expansion,
        )

    @property
    def wanted(self) -> dict[str, str]:
        """The configured columns by the key that names them."""
        keys = ("text", "id", "domain_column", "licence_column", "provenance_column")
        return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}

    def parts(self) -> Sequence[str]:
        """As those of `FileSource`.

        Raises:
            ConfigError: no file has one of the columns. Key: the one that names it.
        """
        check_columns(self.checked, self.headers())
        return super().parts()

    @property
    def checked(self) -> dict[str, str]:
        """Those of `wanted` of which `headers` shows whether there are any."""
        return self.wanted

    def prepare(self, say: Callable[[str], object]) -> None:
        """Tells of columns that a quick look has not found, where that is no proof that there are none."""
        for key, column in self.wanted.items():
            if key not in self.checked:
                try:
                    check_columns({key: column}, self.headers())
                except ConfigError as mistake:
                    say(f"{mistake}; if it stands nowhere, all documents get the default")

    @abstractmethod
    def headers(self) -> Iterator[Sequence[str]]:
        """Names of columns, file by file or row by row, as far as a quick look shows."""

    def row(
        self, piece: Piece, place: object, row: Mapping[str, Any], raw: str | bytes, reason: str | None = None
    ) -> Document:
        """The document in a row, or the reject that says why there is none; `raw` is the row as it came."""
        text = row.get(self.text)
        if not isinstance(text, str):
            return self.reject(piece, "no_text", raw, place)
        if len(text) > self.max_document_bytes // 4:
            n_bytes = len(text.encode("utf-8", "replace"))
            if n_bytes > self.max_document_bytes:
                return self.reject(piece, "too_large", text, place, n_bytes)
        text, reason = clean(text, reason)
        name = f"{piece.name}:{place}"
        told = own_fields(row, self._fields)
        return Document(
            told.get("id", name),
            text,
            piece.source,
            told.get("domain", self.domain),
            told.get("licence", self.licence),
            told.get("provenance", name),
            reason=reason,
        )

    @cached_property
    def _fields(self) -> list[tuple[str, str]]:
        return fields_of(self.wanted)


def fields_of(wanted: Mapping[str, str]) -> list[tuple[str, str]]:
    """A document's fields that rows give, each with its column."""
    return [(FIELDS[key], column) for key, column in wanted.items() if key in FIELDS]


def own_fields(row: Mapping[str, Any], fields: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What a row says of its document, as text; what is null, missing or no plain value is left out."""
    told = {}
    for field, column in fields:
        value = row.get(column)
        if isinstance(value, str | int | float):
            told[field], _ = clean(value if isinstance(value, str) else str(value))
    return told


def check_columns(wanted: Mapping[str, str], headers: Iterator[Sequence[str]]) -> None:
    """Looks until every wanted column was seen.

    Raises:
        ConfigError: one is in none of the headers, and they do name columns. Key: the one that names it.
    """
    missing, seen = dict(wanted), dict[str, None]()
    for header in headers:
        missing = {key: column for key, column in missing.items() if column not in header}
        seen |= dict.fromkeys(header)
        if not missing:
            return
    for key, column in missing.items():
        if seen:
            raise ConfigError(
                key, column, f"no such column in any file; there are {', '.join(list(seen)[:50])}"
            )


def cut_at(piece: Piece, size: int, separator: bytes, count: Any) -> Iterator[Piece]:
    """Ranges of about 32 MiB of a plain file that end after separators, with their first line and record.

    `count` tells how many records a block of whole ones holds. The file is read once for that; without it no
    record after the first range could be told the number of its line.
    """
    with piece.path.open("rb") as file:
        if is_compressed(piece.path) or wide_encoding(file.read(512)):
            yield piece
            return
    start = at = 0
    line, number = piece.line, piece.number
    first = (line, number)
    for chunk in chunks(blocks(piece.path), separator, PART_BYTES):
        at += chunk.n_bytes
        line += chunk.n_lines
        number += count(chunk.data) if chunk.whole else 1
        if at - start >= PART_BYTES or at >= size:
            yield piece._replace(start=start, stop=at, line=first[0], number=first[1])
            start, first = at, (line, number)
    if start < at < size:  # it has shrunk meanwhile
        yield piece._replace(start=start, stop=at, line=first[0], number=first[1])
