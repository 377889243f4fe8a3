"""Exact Jaccard similarity of candidate pairs; the candidates' shingle sets lie in one scratch file."""

from __future__ import annotations

import os
from itertools import pairwise
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from llm.curation.band_notes import Notes, Numbers
from llm.curation.shingles import Hashes, Shingler, batches


def jaccard_of_sets(first: Hashes, second: Hashes) -> float:
    """Jaccard similarity of two sorted arrays without repetitions; 0 for two empty ones."""
    both = np.concatenate((first, second))
    both.sort(kind="stable")  # merges the two runs
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared) if len(both) else 0.0


class Compared:
    """Pairs compared in earlier bands, so that none is compared twice; 8 bytes a pair."""

    def __init__(self, most: int = 1 << 22) -> None:
        self.most = most
        self._known, self._added = np.empty(0, np.uint64), [np.empty(0, np.uint64)]

    def new(self, first: Numbers, second: Numbers) -> tuple[Numbers, Numbers]:
        """The pairs that no earlier band asked for."""
        keys = first.astype(np.uint64) << np.uint64(32) | second.astype(np.uint64)
        if len(self._known):
            found = self._known[np.searchsorted(self._known, keys).clip(max=len(self._known) - 1)]
            first, second, keys = (side[found != keys] for side in (first, second, keys))
        self._added.append(keys)
        return first, second

    def next_band(self) -> None:
        """What was asked for since the last call belongs to an earlier band now."""
        parts = [self._known, *self._added]
        # to forget the older ones costs time, and nothing else
        self._known = np.sort(np.concatenate(parts if sum(map(len, parts)) <= self.most else self._added))
        self._added = [self._known[:0]]


class ShingleSets:
    """Shingle sets of chosen documents, each text read and cut once, whatever their number.

    Memory: 8 bytes for each document of the corpus. Disk: 8 bytes for each shingle of a chosen document.

    Args:
        notes: The corpus, numbered.
        chosen: Numbers of the documents to be compared.
        shingler: What the notes were made with.
    """

    def __init__(self, notes: Notes, chosen: Numbers, shingler: Shingler) -> None:
        self.sizes = notes.column("n_shingles")
        self.starts = np.full(len(notes), -1, np.int64)
        path = notes.corpus.scratch / "shingles"
        rows = notes.column("row").astype(np.uint32)
        shards = notes.shard(chosen)
        by_shard = np.argsort(shards, kind="stable")
        bounds = np.searchsorted(shards[by_shard], np.arange(len(notes.corpus.shards) + 1))
        written = 0
        with path.open("wb") as file:
            for start, end in pairwise(bounds.tolist()):
                members = chosen[by_shard[start:end]]
                members = members[np.argsort(rows[members])]  # in the order in which they are fetched
                texts = notes.corpus.fetch(notes.places(members, rows), ["text"]) if len(members) else None
                for part in batches(texts["text"].to_list()) if texts is not None else ():
                    sets = shingler(part).distinct()
                    here, members = members[: len(part)], members[len(part) :]
                    self.starts[here] = written + sets.ends - sets.counts
                    written += len(sets.hashes)
                    sets.hashes.tofile(file)
                notes.corpus.advance(1)
        self._file = os.open(path, os.O_RDONLY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def read(self, number: int) -> Hashes:
        """The sorted shingles of one chosen document."""
        n_bytes = 8 * int(self.sizes[number])
        return np.frombuffer(os.pread(self._file, n_bytes, 8 * int(self.starts[number])), np.uint64)

    def similar(self, first: Numbers, second: Numbers, threshold: float) -> NDArray[np.float64]:
        """Jaccard similarity of each pair; 0 where the sizes alone show that it is below `threshold`."""
        small = np.minimum(self.sizes[first], self.sizes[second])
        large = np.maximum(self.sizes[first], self.sizes[second])
        found = np.zeros(len(first))
        possible = np.flatnonzero(small >= threshold * large)
        # pairs with the same first document follow each other, and its set is read once
        possible = possible[np.argsort(first[possible], kind="stable")]
        held, own = -1, np.empty(0, np.uint64)
        for place, one, other in zip(
            possible.tolist(), first[possible].tolist(), second[possible].tolist(), strict=True
        ):
            if one != held:
                held, own = one, self.read(one)
            found[place] = jaccard_of_sets(own, self.read(other))
        return found
