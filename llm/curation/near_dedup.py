"""Removes documents that nearly repeat another one of the corpus, or of earlier data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from llm.curation import near_index
from llm.curation.band_notes import Notes, take_notes
from llm.curation.base import Corpus
from llm.curation.minhash import MinHash
from llm.curation.near_search import Repeats, annotated, described, find_clusters
from llm.curation.shingles import Shingler, Unit
from llm.files import digest
from llm.types import ConfigError

Count = Annotated[int, Field(ge=1)]


class NearDedup:
    """Keeps one document of each cluster of near duplicates.

    MinHash bands propose pairs (Broder 1997); only pairs whose Jaccard similarity, computed exactly on all
    their shingles, reaches the threshold count. So no document goes because of a chance hit, as happens
    where bands alone decide. Documents linked by such pairs, also through others, are one cluster, as in
    FineWeb (Penedo et al. 2024) and the corpora before it: where A is like B and B like C, only one of the
    three stays, even if A and C differ by more. The ledger then gives C's similarity with B.

    The defaults miss 2 in 1,000 pairs of similarity 0.8, and 2 in 10,000 of those spread over [0.8, 1].
    FineWeb's 14 bands of 8 miss 77 and 10 in 1,000. A lower threshold needs more bands or fewer rows; see
    `llm.curation.minhash.expected_recall`.

    Args:
        threshold: Similarity from which two documents are near duplicates.
        unit: What shingles are made of: `word`, or `character` for scripts and texts without clear words.
        length: Units in a shingle. FineWeb takes 5 words.
        n_bands: Bands.
        n_rows: Hashes in a band.
        keep: Which one stays: the `longest` in bytes, the `best` by `column`, or the `first` in the order of
            the corpus; among equals the first.
        column: Numbers that earlier steps or the source gave, the higher the better; for `keep=best`.
        seed: Chooses the hash functions.
        index: Folders that `save_index` wrote: documents that nearly repeat theirs are removed.
        save_index: Folder for an index of the documents that stay. It holds their compressed texts and
            8 bytes a band and document, and replaces an earlier one of the same settings.
    """

    def __init__(
        self,
        threshold: Annotated[float, Field(gt=0, le=1)] = 0.8,
        unit: Unit = "word",
        length: Count = 5,
        n_bands: Count = 16,
        n_rows: Count = 5,
        keep: Literal["longest", "best", "first"] = "longest",
        column: str | None = None,
        seed: Annotated[int, Field(ge=0)] = 0,
        index: str | Sequence[str] | None = None,
        save_index: str | None = None,
    ) -> None:
        self.check_arguments(keep, column, index, save_index)
        self.threshold, self.keep, self.column = threshold, keep, column
        self.shingler, self.minhash = Shingler(unit, length), MinHash(n_bands, n_rows, seed)
        self.index = _listed(index)
        self.save_index = None if save_index is None else str(Path(save_index).expanduser())

    @staticmethod
    def check_arguments(
        keep: str = "longest",
        column: str | None = None,
        index: str | Sequence[str] | None = None,
        save_index: str | None = None,
    ) -> None:
        """`best` and `column` need each other, and an index is not overwritten by the step that reads it.

        Raises:
            ConfigError: that is not so. Key `column` or `save_index`.
        """
        if (keep == "best") != (column is not None):
            mend = "keep=best needs the column to compare by" if column is None else "is for keep=best only"
            raise ConfigError("column", column, mend)
        read = {Path(path).resolve() for path in _listed(index)}
        if save_index is not None and Path(save_index).expanduser().resolve() in read:
            mend = "is read as `index`; save to another folder and read both later: index: [old, new]"
            raise ConfigError("save_index", save_index, mend)

    @property
    def settings(self) -> dict[str, Any]:
        """What two indexes must share to be compared."""
        return {
            "unit": self.shingler.unit,
            "length": self.shingler.length,
            "n_bands": self.minhash.n_bands,
            "n_rows": self.minhash.n_rows,
            "seed": self.minhash.seed,
        }

    def prepare(self, say: Callable[[str], object]) -> None:
        """Looks at the indexes before any work is done.

        Raises:
            ConfigError: one is missing, broken or of other settings. Key `index` or `save_index`.
        """
        for path in self.index:
            say(f"near_dedup: {near_index.check(path, self.settings)['n_documents']:,} documents in {path}")
        if self.save_index is not None:
            near_index.check_target(self.save_index, self.settings)
            if Path(self.save_index).exists():
                say(f"near_dedup: the index in {self.save_index} will be replaced by that of this corpus")

    def fingerprint(self) -> str:
        """A digest that changes with the indexes that are read."""
        return digest([near_index.check(path, self.settings) for path in self.index])

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """Band hashes and, as `priority`, what the choice among near duplicates goes by.

        Raises:
            ConfigError: the documents have no such column of numbers. Key `column`.
        """
        notes = take_notes(documents["text"], self.shingler, self.minhash)
        if self.keep == "first":
            return notes
        if self.keep == "longest":
            priority = documents["text"].str.len_bytes().cast(pl.Float64)
        else:
            priority = self._values(documents).cast(pl.Float64).fill_nan(None).fill_null(-np.inf)
        return notes.with_columns(priority[notes["row"]].alias("priority"))

    def _values(self, documents: pl.DataFrame) -> pl.Series:
        found = documents[self.column] if self.column in documents.columns else None
        if found is None or not (found.dtype.is_numeric() or found.dtype in (pl.Boolean, pl.Null)):
            numbers = [name for name, kind in documents.schema.items() if kind.is_numeric()]
            mend = f"no such column of numbers; there are: {', '.join(numbers) or 'none'}"
            raise ConfigError("column", self.column, mend)
        return found

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """`shard, row, reason, score, match` of the documents that go."""
        earlier = [part for path in self.index for part in near_index.parts(path, self.settings)]
        whole = Corpus(
            [*(part.documents for part in earlier), *corpus.shards],
            [*(part.notes for part in earlier), *corpus.surveys],
            corpus.scratch,
            corpus.advance,
        )
        notes = Notes.of(whole, len(earlier), None if self.keep == "first" else "priority")
        found = find_clusters(notes, self.shingler, self.minhash.n_bands, self.threshold)
        decisions = _decisions(notes, found)
        if self.save_index is not None:
            near_index.write(self.save_index, self.settings, corpus, decisions)
        return decisions

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """`match` is the document that stays."""
        return annotated(documents, decisions)


def _listed(index: str | Sequence[str] | None) -> list[str]:
    """The folders, with `~` for the user's home."""
    folders = [index] if isinstance(index, str) else list(index or ())
    return [str(Path(one).expanduser()) for one in folders]


def _decisions(notes: Notes, found: Repeats) -> pl.DataFrame:
    earlier = found.kept < notes.n_earlier
    reason = np.where(earlier, "near_duplicate_of_index", "near_duplicate")
    return described(notes, found, pl.Series("reason", reason.tolist(), pl.String))
