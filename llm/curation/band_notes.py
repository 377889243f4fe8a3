"""What comparing steps note of each document, and the notes of a whole corpus read column by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llm.curation.base import Corpus
from llm.curation.minhash import MinHash
from llm.curation.shingles import Hashes, Shingler, batches, mix
from llm.types import ConfigError

BANDS_BYTES = 1 << 26
"""So much of the bands is read, and held, at a time: opening files costs more than reading them."""

MAX_DOCUMENTS = 1 << 32
"""More have no number of 32 bits."""

Numbers = NDArray[np.int64]


def take_notes(texts: pl.Series, shingler: Shingler, minhash: MinHash) -> pl.DataFrame:
    """Notes on the texts that have shingles.

    Columns `row`, `n_shingles` (distinct ones), `digest` (of their set) and `band_0`, `band_1`, ...
    """
    sizes, digests, bands = [np.empty(0, np.int64)], [np.empty(0, np.uint64)], [_no_bands(minhash)]
    for part in batches(texts.to_list()):
        found = shingler(part)
        distinct = found.distinct()
        sizes.append(distinct.counts)
        some = distinct.counts > 0
        starts = (distinct.ends - distinct.counts)[some]
        summed = np.zeros(len(part), np.uint64)
        if len(starts):
            # the sum does not depend on the order, and mixing first keeps it from cancelling out
            summed[some] = np.add.reduceat(mix(~distinct.hashes), starts)
        digests.append(summed)
        bands.append(minhash.bands(found.having_some()))
    n_shingles = np.concatenate(sizes)
    rows = np.flatnonzero(n_shingles)
    columns = {
        "row": rows.astype(np.uint32),
        "n_shingles": n_shingles[rows].astype(np.uint32),
        "digest": np.concatenate(digests)[rows],
    }
    hashes = np.concatenate(bands, axis=1)
    return pl.DataFrame(columns | {f"band_{number}": band for number, band in enumerate(hashes)})


def _no_bands(minhash: MinHash) -> Hashes:
    return np.empty((minhash.n_bands, 0), np.uint64)


@dataclass(frozen=True)
class Notes:
    """Notes on a corpus whose documents are numbered, first those that go before others.

    Of two documents that repeat each other the one of lower number stays. A column takes 4 or 8 bytes a
    document, and no more than a few of them are in memory at once.

    corpus: the shards and the surveys. order: for each number its place among all notes. bounds: the place
    where each shard's notes end. n_shards: so many shards in front are
    earlier data.
    """

    corpus: Corpus
    order: NDArray[np.uint32]
    bounds: Numbers
    n_shards: int = 0
    _bands: dict[int, Hashes] = field(default_factory=dict)

    @property
    def n_earlier(self) -> int:
        """The numbers below this one belong to earlier data."""
        return int(self.bounds[self.n_shards - 1]) if self.n_shards else 0

    @classmethod
    def of(cls, corpus: Corpus, n_shards: int = 0, priority: str | None = None) -> Notes:
        """Numbers the documents.

        Args:
            corpus: With the surveys.
            n_shards: So many shards in front are earlier data and go before all others.
            priority: Column of the later surveys by which their documents come, the highest first; equal ones
                and all without it in the order of the corpus.

        Raises:
            ConfigError: there are more than `MAX_DOCUMENTS`. Key `curation.sources`.
        """
        bounds = np.cumsum([0, *(_height(corpus, number) for number in range(len(corpus.surveys)))])
        if bounds[-1] > MAX_DOCUMENTS:
            mend = (
                f"at most {MAX_DOCUMENTS:,} are compared, with those of indexes; curate the sources in parts"
            )
            raise ConfigError("curation.sources", f"{bounds[-1]:,} documents", mend)
        order = np.arange(bounds[-1], dtype=np.uint32)
        first = int(bounds[n_shards])
        if priority is not None and first < bounds[-1]:
            values = _column(corpus, range(n_shards, len(corpus.surveys)), priority)
            order[first:] = first + np.argsort(-values.astype(np.float64), kind="stable")
        return cls(corpus, order, bounds[1:], n_shards)

    def __len__(self) -> int:
        return len(self.order)

    def column(self, name: str) -> NDArray[Any]:
        """The notes of this name, by number."""
        return _column(self.corpus, range(len(self.corpus.surveys)), name)[self.order]

    def band(self, number: int, n_bands: int) -> Hashes:
        """The hashes of one band, by number; the next ones are read with it while they are small."""
        if number not in self._bands:
            self._bands.clear()
            some = range(number, min(n_bands, number + max(1, BANDS_BYTES // (8 * len(self) + 1))))
            names = [f"band_{one}" for one in some]
            frames = [pl.read_parquet(one, columns=names, glob=False) for one in self.corpus.surveys]
            for one, name in zip(some, names, strict=True):
                self._bands[one] = np.concatenate([frame[name].to_numpy() for frame in frames])[self.order]
        return self._bands[number]

    def shard(self, numbers: Numbers) -> Numbers:
        """The shards that these documents lie in."""
        return np.searchsorted(self.bounds, self.order[numbers], side="right")

    def places(self, numbers: Numbers, rows: NDArray[np.uint32]) -> pl.DataFrame:
        """`shard` and `row` of these documents; `rows` is the column of all."""
        shards = self.shard(numbers).astype(np.uint32)
        return pl.DataFrame({"shard": shards, "row": rows[numbers].astype(np.uint32)})


def _height(corpus: Corpus, number: int) -> int:
    return int(pl.scan_parquet(corpus.surveys[number], glob=False).select(pl.len()).collect().item())


def _column(corpus: Corpus, surveys: Sequence[int], name: str) -> NDArray[Any]:
    found = [pl.read_parquet(corpus.surveys[one], columns=[name], glob=False)[name] for one in surveys]
    return np.concatenate([one.to_numpy() for one in found]) if found else np.empty(0, np.uint64)
