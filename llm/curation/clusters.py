"""Buckets of documents that share a band, and the clusters that verified pairs grow into."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llm.curation.band_notes import Numbers
from llm.curation.shingles import Hashes


class Clusters:
    """Connected components; each is known by its lowest number (union-find, 4 bytes a document)."""

    def __init__(self, size: int) -> None:
        self._parent = np.arange(size, dtype=np.uint32)

    def root(self, numbers: Numbers) -> Numbers:
        """The lowest number that each of these hangs together with."""
        found = self._parent[numbers]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                break
            found = above
        self._parent[numbers] = found
        return found.astype(np.int64)

    def join(self, first: Numbers, second: Numbers) -> None:
        """Makes each pair's two clusters one."""
        while len(first):
            one, other = self.root(first), self.root(second)
            apart = one != other
            first, second = first[apart], second[apart]
            low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            # where several pairs set the parent of one root, the lowest wins and the others are joined next
            np.minimum.at(self._parent, high, low.astype(np.uint32))


def buckets(hashes: Hashes) -> tuple[Numbers, Numbers]:
    """Places whose hash is not alone, bucket by bucket and rising in each, and the number of their bucket."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    same = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(hashes), bool)
    shared[1:] |= same
    shared[:-1] |= same
    new = np.ones(len(hashes), bool)
    new[1:] = ~same
    return order[shared], np.cumsum(new[shared])


def all_pairs(members: Numbers, bucket: Numbers, largest: int) -> tuple[Numbers, Numbers]:
    """All pairs of each bucket; none has more than `largest` members."""
    found: list[tuple[Numbers, Numbers]] = [(members[:0], members[:0])]
    for distance in range(1, largest):
        same = bucket[distance:] == bucket[:-distance]
        if not same.any():
            break
        found.append((members[:-distance][same], members[distance:][same]))
    first, second = (np.concatenate(side) for side in zip(*found, strict=True))
    return first, second


def stars(
    members: Numbers, bucket: Numbers, clusters: Clusters, n_rounds: int
) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs of the first of each bucket with the others; then again among those that it was not joined with.

    The pairs that turn out similar must be joined before the next are asked for. So a bucket of m documents
    costs at most m pairs a round, and one of copies costs one round.
    """
    for _ in range(n_rounds):
        if not len(members):
            return
        centre = members[spans(bucket)[0]]
        apart = clusters.root(members) != clusters.root(centre)
        yield centre[apart], members[apart]
        left = clusters.root(members) != clusters.root(centre)
        members, bucket = members[left], bucket[left]


def spans(bucket: Numbers) -> tuple[Numbers, Numbers]:
    """For each member the places of the first and of the last member of its bucket."""
    new = np.ones(len(bucket), bool)
    new[1:] = bucket[1:] != bucket[:-1]
    starts = np.flatnonzero(new)
    lasts = np.append(starts[1:], len(bucket)) - 1
    which = np.cumsum(new) - 1
    return starts[which], lasts[which]
