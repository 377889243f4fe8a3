"""Bytes of files as streams: uncompressed on the way, bounded, and cut where records end."""

from __future__ import annotations

import bz2
import codecs
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from llm.types import ConfigError

BLOCK_BYTES = 1 << 20
FEED_BYTES = 1 << 10
"""Compressed bytes that a decompressor is given at a time: what it gives back for them must fit into memory.
A kilobyte becomes a megabyte of deflate at most, and some 30 of zstd. Of bzip2 it may be a gigabyte, so that
one and xz are asked for a block at a time."""
MAX_WINDOW_BYTES = 1 << 31
"""How far back zstd may point: as far as it goes, for public dumps are packed with `--long=31`. Such a file
needs as much memory."""
EXPANSION_GRACE_BYTES = 1 << 26
EXCERPT_BYTES = 4096


class Unreadable(Exception):  # noqa: N818  (what became of a file, not an error of ours)
    """The rest of a file cannot be read; `reason` says why, in the ledger's words."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Limits(NamedTuple):
    """How far a compressed file may unfold: bytes in all, and bytes for each byte on the disk."""

    max_bytes: int = 1_000_000_000_000
    max_expansion: float = 300.0


LIMITS = Limits()


class _Decompressor(Protocol):
    """What zlib, bz2, lzma and zstandard agree on."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _zstd() -> _Decompressor:
    try:
        import zstandard
    except ImportError as error:
        mend = "reading it needs zstandard: pip install zstandard"
        raise ConfigError("path", "a .zst file", mend) from error
    found: _Decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
    return found


DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    ".gz": lambda: zlib.decompressobj(31),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
    ".zst": _zstd,
}


def is_compressed(path: Path) -> bool:
    """Whether the name says so."""
    return path.suffix.lower() in DECOMPRESSORS


def blocks(path: Path, start: int = 0, stop: int | None = None, limits: Limits = LIMITS) -> Iterator[bytes]:
    """A file's content in blocks of about a megabyte, uncompressed; `start` and `stop` cut plain files.

    Raises:
        Unreadable: after what could be read: `truncated`, `corrupt`, `decompression_limit`, `unreadable`.
    """
    try:
        with path.open("rb", buffering=BLOCK_BYTES) as file:
            if is_compressed(path):
                yield from _joined(
                    _bounded(_expanded(file, DECOMPRESSORS[path.suffix.lower()]), file, limits)
                )
                return
            file.seek(start)
            left = float("inf") if stop is None else stop - start
            while left > 0 and (block := file.read(int(min(BLOCK_BYTES, left)))):
                left -= len(block)
                yield block
    except OSError as error:
        raise Unreadable("unreadable") from error


def _expanded(file: BinaryIO, make: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """All members of a compressed file, one after the other."""
    decompressor: _Decompressor | None = None
    try:
        while rest := file.read(FEED_BYTES):
            while rest:
                if decompressor is None:
                    rest = rest.lstrip(b"\0")  # padding, as tape archivers leave it
                    decompressor = make() if rest else None
                if decompressor is not None:
                    yield from _pieces(decompressor, rest)
                    rest = b""
                    if decompressor.eof:
                        rest, decompressor = decompressor.unused_data, None
    except (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise Unreadable("corrupt") from error
    except Exception as error:
        # zstandard's error has no base of its own, and naming it would import the module for every file
        if type(error).__name__ != "ZstdError":
            raise
        raise Unreadable("corrupt") from error
    if decompressor is not None:
        raise Unreadable("truncated")


def _pieces(decompressor: _Decompressor, data: bytes) -> Iterator[bytes]:
    if not isinstance(decompressor, bz2.BZ2Decompressor | lzma.LZMADecompressor):
        yield decompressor.decompress(data)
        return
    yield decompressor.decompress(data, BLOCK_BYTES)
    while not decompressor.eof and not decompressor.needs_input:
        yield decompressor.decompress(b"", BLOCK_BYTES)


def _bounded(pieces: Iterable[bytes], file: BinaryIO, limits: Limits) -> Iterator[bytes]:
    made = 0
    for piece in pieces:
        made += len(piece)
        too_dense = made > EXPANSION_GRACE_BYTES and made > limits.max_expansion * file.tell()
        if too_dense or made > limits.max_bytes:
            raise Unreadable("decompression_limit")
        yield piece


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks; those before an error are handed on before it is raised."""
    held: list[bytes] = []
    n_held, failure = 0, None
    try:
        for piece in pieces:
            held.append(piece)
            n_held += len(piece)
            if n_held >= BLOCK_BYTES:
                yield b"".join(held)
                held, n_held = [], 0
    except Unreadable as error:
        failure = error
    if n_held:
        yield b"".join(held)
    if failure is not None:
        raise failure


# ----------------------------------------------------------------------------- text


BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32 when the first bytes say so: by their mark, or by NULs in every second place."""
    for mark, encoding in BOMS:
        if head.startswith(mark):
            return encoding
    head = head[: len(head[:512]) // 2 * 2]
    if len(head) < 8 or b"\0" not in head:
        return None
    even, odd = (head[first::2].count(0) / (len(head) / 2) for first in (0, 1))
    if min(even, odd) < 0.05 and max(even, odd) > 0.7:
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


def as_utf8(source: Iterator[bytes]) -> tuple[bool, Iterator[bytes]]:
    """The stream without a byte order mark, UTF-16 and UTF-32 as UTF-8; and whether that changed it."""
    failure, head = None, b""
    with suppress(StopIteration):
        try:
            head = next(source)
        except Unreadable as error:
            failure = error

    def rest() -> Iterator[bytes]:
        if failure is not None:
            raise failure
        yield head.removeprefix(codecs.BOM_UTF8)
        yield from source

    encoding = wide_encoding(head)
    if encoding is None:
        return False, rest()

    def recoded() -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        first = True
        for block in rest():
            text = decoder.decode(block)
            yield (text.removeprefix("\ufeff") if first else text).encode("utf-8", "replace")
            first = False
        yield decoder.decode(b"", True).encode("utf-8", "replace")

    return True, recoded()


class Chunk(NamedTuple):
    """Whole records in one piece, or one record that is too large: then `data` is only its beginning.

    n_bytes, n_lines: size and line ends of all of it, separators included.
    """

    data: bytes
    n_bytes: int
    n_lines: int
    whole: bool = True


def chunks(source: Iterable[bytes], separator: bytes, max_bytes: int) -> Iterator[Chunk]:
    """Cuts a stream after separators, some records a piece, and never holds a record above `max_bytes`."""
    held, seen = bytearray(), 0
    skipped: Chunk | None = None
    for block in source:
        end = block.rfind(separator) if skipped is None else -1
        if end >= 0:
            # what nearly every block is like: copied once
            end += len(separator)
            data = b"".join((held, memoryview(block)[:end]))
            yield Chunk(data, len(data), data.count(b"\n"))
            held = bytearray(memoryview(block)[end:])
            seen = len(held)
            continue
        held += block
        if skipped is not None:
            end = held.find(separator)
            if end < 0:
                # a separator of two bytes may lie across two blocks
                keep = len(separator) - 1
                gone = len(held) - keep
                lines = held.count(b"\n", 0, gone)
                skipped = Chunk(skipped.data, skipped.n_bytes + gone, skipped.n_lines + lines, False)
                del held[:gone]
                continue
            end += len(separator)
            lines = held.count(b"\n", 0, end)
            yield Chunk(skipped.data, skipped.n_bytes + end, skipped.n_lines + lines, False)
            skipped, seen = None, 0
            del held[:end]
        end = held.rfind(separator, max(0, seen - len(separator) + 1))
        if end >= 0:
            data = bytes(held[: end + len(separator)])
            yield Chunk(data, len(data), data.count(b"\n"))
            del held[: len(data)]
        elif len(held) > max_bytes:
            skipped = Chunk(bytes(held[:EXCERPT_BYTES]), 0, 0, False)
        seen = len(held)
    if skipped is not None:
        yield Chunk(skipped.data, skipped.n_bytes + len(held), skipped.n_lines + held.count(b"\n"), False)
    elif held:
        yield Chunk(bytes(held), len(held), held.count(b"\n"))
