"""Removes passages that the corpus holds already, wherever they begin and end.

Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better", section 4.1 (ExactSubstr: 50
tokens, found with a suffix array). A suffix array of the whole corpus needs several times its size in
memory. Here repeats are found by hashes of windows instead, sampled by winnowing (Schleimer, Wilkerson and
Aiken 2003), which misses none and holds a part of them at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from llm.curation import hashing
from llm.curation.base import Corpus
from llm.curation.hashing import first_equal, height, parted, partitions
from llm.curation.pieces import with_texts
from llm.curation.windows import MAX_LENGTH, MIN_LENGTH, batches, spans, windows

SPAN_COLUMNS = {
    "row": pl.UInt32,
    "start": pl.UInt32,
    "count": pl.UInt16,
    "anchor": pl.UInt64,
    "span": pl.UInt64,
}
BATCHES_TOGETHER = 64
"""Batches whose windows are held before they are written: 2 million windows, 32 MB."""

Flags = NDArray[np.bool_]

CUT_COLUMNS = dict.fromkeys(("shard", "row", "start", "end"), pl.UInt32)


class SubstringDedup:
    """Cuts every passage of `min_bytes` or more that stands earlier in the corpus; the first one stays.

    A byte goes if it lies in `min_bytes` bytes (UTF-8, letter for letter) that also begin earlier, in another
    document or in the same one without overlap. All such bytes go and no others, up to collisions of 64-bit
    hashes; a character cut through by the edge of a passage stays whole. What is left on both sides is joined
    as it is.

    Notes are about a quarter of the text at 200 bytes, on disk, and lie there twice while `decide` works. It
    reads texts again where the edges of repeats lie.

    Args:
        min_bytes: Length of a passage. 50 tokens are some 200 bytes of English.
        min_left: A document that keeps a smaller share of its characters is removed.
        except_domains: Domains left alone, such as `code`.
    """

    def __init__(
        self,
        *,
        min_bytes: Annotated[int, Field(ge=MIN_LENGTH, le=MAX_LENGTH)] = 200,
        min_left: Annotated[float, Field(ge=0, le=1)] = 0.2,
        except_domains: Sequence[str] = (),
    ) -> None:
        self.min_bytes, self.min_left, self.except_domains = min_bytes, min_left, tuple(except_domains)

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """The spans of windows that share an anchor, see `llm.curation.windows`."""
        stretches = (
            (row, 0, text.encode())
            for row, (text, domain) in enumerate(documents.select("text", "domain").iter_rows())
            if domain not in self.except_domains
        )
        found = [spans(batch, self.min_bytes) for batch in batches(stretches, self.min_bytes)]
        return pl.concat([pl.DataFrame(schema=SPAN_COLUMNS), *found])

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """Passages to cut: `start` and `end` in bytes of a document's text, apart from each other."""
        for number, notes in enumerate(partitions(corpus, "anchor")):
            whole, unclear = self._sort_out(notes)
            whole.write_parquet(corpus.scratch / f"cuts-spans-{number:06}")
            unclear.write_parquet(corpus.scratch / f"unclear-{number:06}")
        looked_at = list(self._look_at(corpus))
        owners = pl.Series([shard for shard, _ in looked_at], dtype=pl.UInt32)
        files = Corpus(corpus.shards, [path for _, path in looked_at], corpus.scratch)
        for number, notes in enumerate(partitions(files, "window")):
            notes = notes.with_columns(owners.gather(notes["shard"]).alias("shard"))
            _, repeated = self._repeats(notes, first_equal(notes["window"]))
            cuts = notes.filter(repeated).with_columns(end=pl.col("start") + self.min_bytes)
            merged(cuts).write_parquet(corpus.scratch / f"cuts-windows-{number:06}")
        parts = [merged(cuts) for _, cuts in _by_shard(corpus, "cuts-*")]
        return pl.concat([pl.DataFrame(schema=CUT_COLUMNS), *parts])

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """`reason` is `repeated_passages`, or `mostly_repeated_passages` where the document goes."""
        cuts: dict[int, list[tuple[int, int]]] = {}
        for row, start, end in decisions.sort("row", "start").select("row", "start", "end").iter_rows():
            cuts.setdefault(row, []).append((start, end))
        texts = documents["text"]
        changed = {row: cut(texts[row], passages) for row, passages in cuts.items()}
        return with_texts(documents, changed, reason="repeated_passages", min_left=self.min_left)

    def _sort_out(self, notes: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """What is surely repeated as a whole, and runs of windows that must be compared one by one.

        Spans of one anchor that differ share some windows or none. It is enough to compare the first of each
        kind, for a window of the others stands in the first as well.
        """
        same_anchor, same_span = first_equal(notes["anchor"]), first_equal(notes["span"])
        again, whole = self._repeats(notes, same_span)
        overlapping = again & ~whole  # it repeats the first of its kind only where it lies itself
        kinds = np.bincount(same_anchor[~again], minlength=notes.height)
        look = ~again & (kinds[same_anchor] > 1)
        look[same_span[overlapping]] = True
        look |= overlapping
        behind = pl.col("start") + pl.col("count").cast(pl.UInt32)  # the last window's start
        cuts = notes.filter(whole).with_columns(end=behind - 1 + self.min_bytes)
        return merged(cuts), merged(notes.filter(look).with_columns(end=behind))

    def _repeats(self, notes: pl.DataFrame, first: NDArray[np.int64]) -> tuple[Flags, Flags]:
        """Rows that repeat their `first`, and those of them that do so without overlapping it."""
        again = first != np.arange(len(first))
        shard, row, start = (notes[name].to_numpy().astype(np.int64) for name in ("shard", "row", "start"))
        elsewhere = (shard != shard[first]) | (row != row[first])
        return again, again & (elsewhere | (start >= start[first] + self.min_bytes))

    def _look_at(self, corpus: Corpus) -> Iterator[tuple[int, Path]]:
        """Files with the windows of each shard's unclear runs."""
        for shard, runs in _by_shard(corpus, "unclear-*"):
            stretches = self._stretches(corpus.shards[shard], merged(runs))
            parts = batches(stretches, self.min_bytes)
            found = (windows(batch, self.min_bytes) for batch in parts)
            for number in count():
                together = list(islice(found, BATCHES_TOGETHER))
                if not together:
                    break
                target = corpus.scratch / f"windows-{shard:06}-{number:06}"
                pl.concat(together).write_parquet(target)
                yield shard, target

    def _stretches(self, path: Path, runs: pl.DataFrame) -> Iterator[tuple[int, int, bytes]]:
        """The bytes under runs of windows that begin at `start` and before `end`."""
        texts = pl.read_parquet(path, columns=["text"], glob=False)["text"]
        held, data = -1, b""
        for row, start, end in runs.select("row", "start", "end").iter_rows():
            if row != held:
                held, data = row, texts[row].encode()
            yield row, start, data[start : end - 1 + self.min_bytes]


def merged(cuts: pl.DataFrame) -> pl.DataFrame:
    """The same passages as few as can be: those that touch or overlap are one."""
    ordered = cuts.select(list(CUT_COLUMNS)).sort("shard", "row", "start")
    document = pl.struct("shard", "row").rle_id().cast(pl.Int64) * (1 << 33)
    # with documents far apart on one line, a passage begins anew where it lies behind all before it
    reach = (document + pl.col("end")).cum_max().shift(1, fill_value=-1)
    return (
        ordered.group_by((document + pl.col("start") > reach).cum_sum().alias("passage"), maintain_order=True)
        .agg(pl.col("shard", "row", "start").first(), pl.col("end").max())
        .select(list(CUT_COLUMNS))
    )


def cut(text: str, passages: Sequence[tuple[int, int]]) -> str:
    """The text without these bytes, in order and apart; whole characters go or stay."""
    data = np.frombuffer(text.encode(), np.uint8)
    begins = np.append(np.flatnonzero((data & 0xC0) != 0x80), len(data))  # of characters
    left, at = [], 0
    for start, end in passages:
        first, last = np.searchsorted(begins, start), np.searchsorted(begins, end, "right") - 1
        left.append(text[at:first])
        at = max(int(first), int(last))
    return "".join([*left, text[at:]])


def _by_shard(corpus: Corpus, pattern: str) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of each shard that has some, from all files of a kind, each of which is read once."""
    paths, n_shards, rows = sorted(corpus.scratch.glob(pattern)), len(corpus.shards), hashing.ROWS_AT_ONCE
    n_parts = min(max(1, n_shards), math.ceil(height(paths) / rows) or 1)
    part = pl.col("shard").cast(pl.UInt64) * n_parts // n_shards
    frames = (pl.read_parquet(path, glob=False) for path in paths)
    for some in parted(frames, part, n_parts, corpus.scratch, rows):
        for (shard,), found in sorted(some.partition_by("shard", as_dict=True).items()):
            yield int(shard), found
