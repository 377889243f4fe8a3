"""The search for near duplicates among numbered documents, band by band in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llm.curation.band_notes import Notes, Numbers
from llm.curation.clusters import Clusters, all_pairs, buckets, spans, stars
from llm.curation.shingles import Shingler
from llm.curation.verification import Compared, ShingleSets

SMALL_BUCKET = 16
"""In a bucket up to this size all pairs are compared; larger ones are compared along stars."""

N_STARS = 8
"""Stars tried in a large bucket. What is like none of their centres will meet its like in another band."""

MOST_SOURCES = 64
"""So many training documents of one bucket a held-out document is compared with."""

Relevant = Callable[[Numbers, Numbers], NDArray[np.bool_]]
"""Tells by the first and the last number of a bucket whether its pairs matter."""


@dataclass(frozen=True)
class Repeats:
    """Documents that repeat another: their numbers, those of the documents that stay, and the similarity."""

    gone: Numbers
    kept: Numbers
    score: NDArray[np.float64]


def find_clusters(notes: Notes, shingler: Shingler, n_bands: int, threshold: float) -> Repeats:
    """Clusters of documents linked by pairs of at least this similarity; the lowest number of each stays.

    Documents with equal shingles are taken as one from the start, and members of one cluster are not
    compared any more, so that 100,000 copies of a page cost about as many comparisons.
    """
    clusters, edges = Clusters(len(notes)), _Edges(len(notes))
    alone, originals, copies = collapse(notes)
    compared = Compared()

    def relevant(_: Numbers, last: Numbers) -> NDArray[np.bool_]:
        return last >= notes.n_earlier

    with ShingleSets(notes, meeting(notes, alone, n_bands, relevant), shingler) as sets:
        for band in range(n_bands):
            for first, second in _pairs(*band_buckets(notes, alone, band, n_bands, relevant), clusters):
                first, second = compared.new(first, second)
                score = sets.similar(first, second, threshold)
                alike = score >= threshold
                edges.add(first[alike], second[alike], score[alike])
                clusters.join(first[alike], second[alike])
            compared.next_band()
    clusters.join(originals, copies)
    everyone = np.arange(len(notes))
    kept = clusters.root(everyone)
    score = edges.attribute(kept, notes.n_earlier)
    stays = (kept[originals] == originals) | (originals < notes.n_earlier)
    kept[copies] = np.where(stays, originals, kept[originals])
    score[copies] = np.where(stays, 1.0, score[originals])
    gone = np.flatnonzero((kept != everyone) & (everyone >= notes.n_earlier))
    return Repeats(gone, kept[gone], score[gone])


def find_sources(notes: Notes, shingler: Shingler, n_bands: int, threshold: float) -> Repeats:
    """For each held-out document that nearly repeats training ones, the one it is most like.

    The notes have a column `in_training`, and are numbered so that training documents come first. Documents
    with equal shingles are taken as one, and no more than `MOST_SOURCES` training documents of a bucket are
    compared with a held-out one.
    """
    n_train = int(notes.column("in_training").sum())
    alone, originals, copies = collapse(notes)
    score, source = np.zeros(len(notes)), np.zeros(len(notes), np.int64)
    copied = (originals < n_train) & (copies >= n_train)
    score[copies[copied]], source[copies[copied]] = 1.0, originals[copied]
    compared = Compared()

    def relevant(first: Numbers, last: Numbers) -> NDArray[np.bool_]:
        return (first < n_train) & (last >= n_train)

    with ShingleSets(notes, meeting(notes, alone, n_bands, relevant), shingler) as sets:
        for band in range(n_bands):
            for train, held in _across(*band_buckets(notes, alone, band, n_bands, relevant), n_train):
                train, held = compared.new(train, held)
                alike = sets.similar(train, held, threshold)
                # no held-out document is twice in a batch
                better = alike > score[held]
                better |= (alike == score[held]) & (train < source[held])
                better &= alike >= threshold
                score[held[better]], source[held[better]] = alike[better], train[better]
            compared.next_band()
    again = ~copied & (copies >= n_train)
    score[copies[again]], source[copies[again]] = score[originals[again]], source[originals[again]]
    gone = np.flatnonzero(score)
    return Repeats(gone, source[gone], score[gone])


def collapse(notes: Notes) -> tuple[Numbers, Numbers, Numbers]:
    """Documents of different shingle sets, the first of each; then (original, copy) for all the others.

    Sets are equal when two independent hashes of them are, 128 bits together.
    """
    digest, band = notes.column("digest"), notes.column("band_0")
    order = np.lexsort((band, digest))
    same = (digest[order[1:]] == digest[order[:-1]]) & (band[order[1:]] == band[order[:-1]])
    new = np.ones(len(order), bool)
    new[1:] = ~same
    originals = order[new][np.cumsum(new) - 1]
    return np.sort(order[new]), originals[~new], order[~new]


def band_buckets(
    notes: Notes, alone: Numbers, band: int, n_bands: int, relevant: Relevant
) -> tuple[Numbers, Numbers]:
    """Numbers that share the band with others, bucket by bucket and rising in each, and their buckets."""
    members, bucket = buckets(notes.band(band, n_bands)[alone])
    members = alone[members]
    first, last = spans(bucket)
    matters = relevant(members[first], members[last])
    return members[matters], bucket[matters]


def meeting(notes: Notes, alone: Numbers, n_bands: int, relevant: Relevant) -> Numbers:
    """The documents that have to be compared with any other."""
    chosen = np.zeros(len(notes), bool)
    for band in range(n_bands):
        chosen[band_buckets(notes, alone, band, n_bands, relevant)[0]] = True
    return np.flatnonzero(chosen)


def described(notes: Notes, found: Repeats, reason: pl.Series) -> pl.DataFrame:
    """Decisions for `apply`: `shard, row, reason, score, match`, without what belongs to earlier data."""
    rows = notes.column("row").astype(np.uint32)
    originals, which = np.unique(found.kept, return_inverse=True)
    places = notes.places(originals, rows)
    named = notes.corpus.fetch(places, ["id"]) if len(originals) else places.with_columns(id=pl.lit(""))
    ids = places.join(named, on=["shard", "row"], how="left", maintain_order="left")["id"].cast(pl.String)
    return (
        notes.places(found.gone, rows)
        .with_columns(
            (pl.col("shard") - notes.n_shards).cast(pl.UInt32),
            reason.alias("reason"),
            pl.Series("score", found.score, pl.Float64),
            ids[which].alias("match"),
        )
        .sort("shard", "row")
    )


def annotated(documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """The documents with their verdicts: those that `decisions` name by `row` go."""
    keep = np.ones(documents.height, bool)
    keep[decisions["row"].to_numpy()] = False
    joined = documents.with_row_index("_row").join(
        decisions.select(pl.col("row").alias("_row"), "reason", "score", "match"),
        on="_row",
        how="left",
        maintain_order="left",
    )
    return joined.drop("_row").with_columns(pl.Series("keep", keep, pl.Boolean))


def _pairs(members: Numbers, bucket: Numbers, clusters: Clusters) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs of different clusters to be compared; those of one batch must be joined before the next."""
    first, last = spans(bucket)
    small = last - first < SMALL_BUCKET
    one, other = all_pairs(members[small], bucket[small], SMALL_BUCKET)
    apart = clusters.root(one) != clusters.root(other)
    yield one[apart], other[apart]
    yield from stars(members[~small], bucket[~small], clusters, N_STARS)


def _across(members: Numbers, bucket: Numbers, n_train: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Each held-out document of a bucket with the first training documents there."""
    first, _ = spans(bucket)
    held = np.flatnonzero(members >= n_train)
    for distance in range(MOST_SOURCES):
        places = first[held] + distance
        held, places = held[members[places] < n_train], places[members[places] < n_train]
        if not len(held):
            return
        yield members[places], members[held]


class _Edges:
    """Verified pairs, each with the lower number first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.parts: list[tuple[Numbers, Numbers, NDArray[np.float64]]] = []

    def add(self, first: Numbers, second: Numbers, score: NDArray[np.float64]) -> None:
        self.parts.append((first, second, score))

    def attribute(self, kept: Numbers, n_earlier: int) -> NDArray[np.float64]:
        """The similarity with the document that stays where that was compared, or else the highest of all.

        All earlier documents stay, so of a cluster with several each of the others gets its likest in `kept`.
        """
        best, direct = np.zeros(self.size), np.zeros(self.size)
        for first, second, score in self.parts:
            np.maximum.at(best, first, score)
            np.maximum.at(best, second, score)
        roots = kept.copy()
        for first, second, score in self.parts:
            straight = (first == roots[second]) | (first < n_earlier)
            order = np.flatnonzero(straight)[np.argsort(score[straight], kind="stable")]
            order = order[score[order] > direct[second[order]]]
            direct[second[order]], kept[second[order]] = score[order], first[order]
        return np.where(direct > 0, direct, best)
