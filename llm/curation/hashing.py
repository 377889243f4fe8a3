"""Texts as numbers: normal forms, digests that never change, and a corpus of digests taken part by part."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llm.curation.base import Corpus

ROWS_AT_ONCE = 4_000_000
"""Notes that `partitions` holds at a time: some 300 MB with what is computed from them."""

_SPACES = bytes(byte if byte >= 128 or chr(byte).isalnum() else 32 for byte in range(256))
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)


def normal_forms(texts: pl.Series, *, mask_digits: bool = False) -> Iterator[bytes]:
    """The words of each text as UTF-8: letters, marks, digits, in lower case and NFC, one space between.

    A text without words stands for itself.

    Args:
        texts: Strings.
        mask_digits: Every ASCII digit becomes 0, as in CCNet.
    """
    # letters beyond ASCII need the Unicode tables; the rest is quicker byte by byte
    lowered = texts.str.to_lowercase().str.replace_all(r"[^\x00-\x7F\p{L}\p{M}\p{N}]+", " ")
    for text, lower in zip(texts, lowered, strict=True):
        composed = lower if lower.isascii() else unicodedata.normalize("NFC", lower)
        words = b" ".join(composed.encode().translate(_SPACES).split())
        yield (words.translate(_DIGITS) if mask_digits else words) or text.encode()


def digests(texts: Iterable[bytes], n_words: int = 1) -> pl.DataFrame:
    """BLAKE2b of each text as `n_words` numbers of 64 bits, columns `hash`, `hash_1` and so on.

    One number is enough to tell some hundred million lines apart (a collision among 10^8 has a chance of
    0.03%), two for anything.
    """
    joined = b"".join([blake2b(text, digest_size=8 * n_words).digest() for text in texts])
    numbers = np.frombuffer(joined, dtype="<u8").reshape(-1, n_words).astype(np.uint64)
    names = ["hash", *(f"hash_{i}" for i in range(1, n_words))]
    return pl.DataFrame({name: numbers[:, i] for i, name in enumerate(names)})


def partitions(corpus: Corpus, column: str = "hash", rows: int | None = None) -> Iterator[pl.DataFrame]:
    """The corpus's notes in parts by the remainder of `column`: equal values share one, in corpus order.

    Args:
        corpus: Its surveys hold `column` (UInt64); `shard` is put in front of their columns.
        column: What must stay together.
        rows: About how many rows a part may have; `ROWS_AT_ONCE` when None.
    """
    rows = rows or ROWS_AT_ONCE
    n_parts = max(1, math.ceil(height(corpus.surveys) / rows))

    def notes() -> Iterator[pl.DataFrame]:
        for number, path in enumerate(corpus.surveys):
            yield pl.read_parquet(path, glob=False).select(pl.lit(number, pl.UInt32).alias("shard"), pl.all())
            corpus.advance(1)

    yield from parted(notes(), pl.col(column) % pl.lit(n_parts, pl.UInt64), n_parts, corpus.scratch, rows)


def height(paths: Iterable[Path]) -> int:
    """Rows of all these parquet files."""
    return sum(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item() for path in paths)


def parted(
    frames: Iterable[pl.DataFrame], part: pl.Expr, n_parts: int, scratch: Path, rows: int
) -> Iterator[pl.DataFrame]:
    """The rows of all frames in their order, part by part; parts without rows are left out.

    Several parts are laid down in a file each while the frames are read, once.

    Args:
        frames: Of one schema.
        part: The number of a row's part, below `n_parts`.
        n_parts: How many there may be.
        scratch: Folder for the files, which are gone afterwards.
        rows: About how many rows may be in memory at a time.
    """
    if n_parts == 1:
        found = list(frames)
        if found:
            yield pl.concat(found)
        return
    with TemporaryDirectory(dir=scratch) as folder:
        paths = [Path(folder) / str(number) for number in range(n_parts)]
        for some in _together(frames, rows):
            parts = some.with_columns(part.alias("_part")).partition_by(
                "_part", as_dict=True, include_key=False, maintain_order=True
            )
            for (number,), rest in parts.items():
                _append(paths[int(number)], rest)
        for path in filter(Path.is_file, paths):
            yield pl.concat(_appended(path))
            path.unlink()


def _together(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """As many frames as have so many rows in one."""
    held: list[pl.DataFrame] = []
    n_held = 0
    for frame in frames:
        held.append(frame)
        n_held += frame.height
        if n_held >= rows:
            yield pl.concat(held)
            held, n_held = [], 0
    if held:
        yield pl.concat(held)


def _append(path: Path, frame: pl.DataFrame) -> None:
    """Puts an Arrow stream at the end of a file, its length in 8 bytes before it."""
    stream = BytesIO()
    frame.write_ipc_stream(stream, compression="lz4")
    with path.open("ab") as file:
        file.write(stream.tell().to_bytes(8, "little"))
        file.write(stream.getbuffer())


def _appended(path: Path) -> Iterator[pl.DataFrame]:
    with path.open("rb") as file:
        while size := file.read(8):
            yield pl.read_ipc_stream(BytesIO(file.read(int.from_bytes(size, "little"))))


def first_equal(values: pl.Series) -> NDArray[np.int64]:
    """For each number, the place of the first one that equals it; its own if there is none before it."""
    order = values.arg_sort().to_numpy().astype(np.int64)
    ordered = values.to_numpy()[order]
    begins = np.flatnonzero(np.r_[len(ordered) > 0, ordered[1:] != ordered[:-1]])
    firsts = np.minimum.reduceat(order, begins) if len(begins) else order
    places = np.empty_like(order)
    places[order] = np.repeat(firsts, np.diff(np.r_[begins, len(order)]))
    return places


def repeats(values: pl.Series) -> pl.Series:
    """True where an equal number stands before."""
    return pl.Series(first_equal(values) != np.arange(len(values)))


def name_kept(corpus: Corpus, pairs: pl.DataFrame) -> pl.DataFrame:
    """Decisions (`shard`, `row`, ...) with `match`, the id of the document at `kept_shard`, `kept_row`."""
    kept = ["kept_shard", "kept_row"]
    if not pairs.height:
        return pairs.drop(kept).with_columns(pl.lit(None, pl.String).alias("match"))
    places = pairs.select(pl.col("kept_shard").alias("shard"), pl.col("kept_row").alias("row"))
    ids = corpus.fetch(places, ["id"]).select(pl.col("shard", "row").name.prefix("kept_"), match="id")
    return pairs.join(ids, on=kept, how="left").drop(kept).sort("shard", "row")
