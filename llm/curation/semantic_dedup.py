"""Removes documents that mean the same as another one, as an embedder sees it.

Abbas et al. 2023, "SemDeDup: Data-efficient learning at web-scale through semantic deduplication": cluster
the embeddings by k-means, compare within clusters only, keep of what is too similar the document furthest
from the centroid. The paper takes 11,000 clusters for C4 and sets the threshold by how much shall be left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from llm.curation.base import Corpus
from llm.curation.hashing import name_kept, partitions
from llm.curation.kmeans import assign, exact, k_means, lengths_of, quantised

AT_ONCE_BYTES = 64 << 20
"""What k-means sees of the vectors, and what is compared at once. Memory is some eight times that."""

PAIRS = {
    "shard": pl.UInt32,
    "row": pl.UInt32,
    "score": pl.Float64,
    "kept_shard": pl.UInt32,
    "kept_row": pl.UInt32,
}


class Embedder(Protocol):
    """Texts to vectors. It must survive pickling; an optional ``prepare(say)`` loads what it needs.

    One that reads files has also ``fingerprint()``, a digest that changes with them.
    """

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row a text, [N, D]; their lengths do not matter, a row of zeros is never compared."""
        ...


class SemanticDedup:
    """Keeps one of the documents whose vectors point the same way; `score` is the cosine.

    Vectors are rounded to 8 bits, so a document takes D bytes of notes, and dot products are exact sums of
    integers: the same on every machine, with any number of threads.

    A cluster with more than 16 million / D documents (32,768 of 512 dimensions) is cut, in the order of the
    corpus, into pieces of that size, and documents of two pieces are never compared: more `n_clusters` keep
    clusters whole, unless very many documents are all alike.

    Args:
        embedder: Texts to vectors.
        threshold: Cosine from which on a document repeats another.
        n_clusters: Clusters; null takes one for each thousand documents, at most the root of their number.
        keep: Which of the similar documents stays: `furthest` from the centroid (the paper), `nearest` to it,
            or the `first` of the corpus.
        n_iterations: Rounds of k-means, over a sample of 64 MB.
        seed: For the sample and the first centroids.
        except_domains: Domains left alone.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        threshold: Annotated[float, Field(gt=0, le=1)] = 0.95,
        n_clusters: Annotated[int, Field(gt=0)] | None = None,
        keep: Literal["furthest", "nearest", "first"] = "furthest",
        n_iterations: Annotated[int, Field(gt=0)] = 20,
        seed: int = 0,
        except_domains: Sequence[str] = (),
    ) -> None:
        self.embedder, self.threshold, self.n_clusters, self.keep = embedder, threshold, n_clusters, keep
        self.n_iterations, self.seed, self.except_domains = n_iterations, seed, tuple(except_domains)

    def prepare(self, say: Callable[[str], object]) -> None:
        """Lets the embedder load what it needs.

        Raises:
            ConfigError: it cannot.
        """
        if hasattr(self.embedder, "prepare"):
            self.embedder.prepare(say)

    def fingerprint(self) -> str:
        """A digest that changes with the files that the embedder reads, if it reads any."""
        return str(self.embedder.fingerprint()) if hasattr(self.embedder, "fingerprint") else ""

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """`vector`: 8-bit numbers as bytes."""
        judged = documents.with_row_index("row").filter(
            ~pl.col("domain").is_in(list(self.except_domains)) & (pl.col("text") != "")
        )
        texts = judged["text"].to_list()
        vectors = quantised(self.embedder.embed(texts)) if texts else np.zeros((0, 0), np.int8)
        told = vectors.any(1)
        notes = judged.select(pl.col("row").cast(pl.UInt32)).with_columns(
            pl.Series("vector", [vector.tobytes() for vector in vectors], pl.Binary)
        )
        return notes.filter(pl.Series(told, dtype=pl.Boolean))

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """`match`: the id of the document that stays, and `score`."""
        n_vectors = sum(
            pl.scan_parquet(path, glob=False).select(pl.len()).collect().item() for path in corpus.surveys
        )
        found = [pl.DataFrame(schema=PAIRS)]
        if n_vectors:
            clustered, centroids = self._cluster(corpus, n_vectors)
            n_dims = centroids.shape[1]
            together = max(1, AT_ONCE_BYTES // n_dims)
            for notes in partitions(clustered, "part", together):
                for part in notes.partition_by("part", maintain_order=True):
                    found.append(self._compare(part, centroids))
        return name_kept(corpus, pl.concat(found))

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """`reason` is `semantic_duplicate`."""
        rows = pl.int_range(documents.height, dtype=pl.UInt32, eager=True).alias("row").to_frame()
        told = rows.join(decisions, on="row", how="left", maintain_order="left")
        return documents.with_columns(
            told["match"].is_null().alias("keep"),
            pl.when(told["match"].is_not_null()).then(pl.lit("semantic_duplicate")).alias("reason"),
            told["score"],
            told["match"],
        )

    def _cluster(self, corpus: Corpus, n_vectors: int) -> tuple[Corpus, NDArray[np.int8]]:
        """The notes with `cluster` and `part`, a piece of a cluster small enough to compare at once."""
        n_dims = next(len(notes["vector"][0]) for notes in _notes(corpus) if notes.height)
        n_clusters = self.n_clusters or min(math.ceil(n_vectors / 1000), math.isqrt(n_vectors))
        rng = np.random.default_rng(self.seed)
        n_sample = min(n_vectors, max(n_clusters, AT_ONCE_BYTES // n_dims))
        chosen = np.sort(rng.choice(n_vectors, n_sample, replace=False))
        sample, seen = [], 0
        for notes in _notes(corpus):
            here = chosen[(chosen >= seen) & (chosen < seen + notes.height)] - seen
            sample.append(_vectors(notes["vector"].gather(here), n_dims))
            seen += notes.height
        centroids = k_means(np.concatenate(sample), n_clusters, self.n_iterations, rng)
        return Corpus(
            corpus.shards, list(_assigned(corpus, centroids)), corpus.scratch, corpus.advance
        ), centroids

    def _compare(self, notes: pl.DataFrame, centroids: NDArray[np.int8]) -> pl.DataFrame:
        """The documents of one part that repeat another, with the one that stays."""
        vectors = exact(_vectors(notes["vector"], centroids.shape[1]))
        lengths = lengths_of(vectors)
        order = np.arange(len(vectors))
        if self.keep != "first":
            towards = vectors @ centroids[int(notes["cluster"][0])] / lengths
            order = np.argsort(towards if self.keep == "furthest" else -towards, kind="stable")
        vectors, lengths = vectors[order], lengths[order]
        stays, cosine = np.arange(len(vectors)), np.zeros(len(vectors))
        step = max(1, AT_ONCE_BYTES // (16 * len(vectors)))
        for start in range(0, len(vectors), step):
            end = min(len(vectors), start + step)
            similar = (vectors[start:end] @ vectors[:end].T).astype(np.float64)
            similar /= lengths[start:end, None] * lengths[:end]
            similar[np.arange(end) >= np.arange(start, end)[:, None]] = -1  # only with those before
            best = similar.argmax(1)
            cosine[start:end] = similar[np.arange(end - start), best]
            for place in np.flatnonzero(cosine[start:end] >= self.threshold):
                stays[start + place] = stays[best[place]]  # what it repeats may itself repeat another
        gone = np.flatnonzero(stays != np.arange(len(stays)))
        kept = notes[order[stays[gone]]].select(pl.col("shard", "row").name.prefix("kept_"))
        scores = pl.Series("score", cosine[gone], pl.Float64)
        return notes[order[gone]].select("shard", "row").with_columns(scores).hstack(kept)


def _assigned(corpus: Corpus, centroids: NDArray[np.int8]) -> Iterator[Path]:
    """Files of the notes with `cluster` and `part`: a cluster, or a piece of one that is too large."""
    n_clusters, n_dims = centroids.shape
    at_once = max(1, AT_ONCE_BYTES // (4 * n_dims))
    members = np.zeros(n_clusters, np.int64)
    for number, notes in enumerate(_notes(corpus)):
        nearest = assign(_vectors(notes["vector"], n_dims), centroids)
        frame = notes.with_columns(pl.Series("cluster", nearest, pl.UInt64))
        rank = frame.select(pl.int_range(pl.len()).over("cluster").alias("rank"))["rank"].to_numpy()
        piece = (members[nearest] + rank) // at_once
        members += np.bincount(nearest, minlength=n_clusters)
        path = corpus.scratch / f"clustered-{number:06}"
        part = pl.Series("part", nearest + piece * n_clusters, pl.UInt64)
        frame.with_columns(part).write_parquet(path)
        yield path


def _notes(corpus: Corpus) -> Iterator[pl.DataFrame]:
    for path in corpus.surveys:
        yield pl.read_parquet(path, glob=False)


def _vectors(column: pl.Series, n_dims: int) -> NDArray[np.int8]:
    return np.frombuffer(b"".join(column.to_list()), np.int8).reshape(-1, n_dims)
