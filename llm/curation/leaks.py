"""What must leave validation because training holds it too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.curation.band_notes import Notes, take_notes
from llm.curation.base import Corpus, DocumentedObject, judge
from llm.curation.minhash import MinHash
from llm.curation.near_search import annotated, described, find_sources
from llm.curation.questions import normalised
from llm.curation.shingles import Shingler

Leak = tuple[str, str | None, float]
"""(reason, id of what it repeats when one is known, similarity)."""

N_BANDS, N_ROWS = 40, 3
"""The bands miss one in 200 pairs of similarity 0.5, and hardly any above 0.6."""


class LeakRemoval:
    """Finds validation texts that repeat training ones: copied documentation, mirrored pages.

    Candidates by MinHash, decided by exact Jaccard similarity of word shingles. Documents are taken as a
    corpus of both sides, in which the column `held_out` marks validation; see `CorpusStep`.

    Args:
        threshold: Similarity from which a text counts as a copy.
        n_words: Words in a shingle of documents.
    """

    def __init__(
        self,
        threshold: Annotated[float, Field(gt=0, le=1)] = 0.5,
        n_words: Annotated[int, Field(ge=1)] = 4,
    ) -> None:
        self.threshold, self.n_words = threshold, n_words
        self.shingler, self.minhash = Shingler("word", n_words), MinHash(N_BANDS, N_ROWS, seed=0)

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """Band hashes, and which side each document is on."""
        notes = take_notes(documents["text"], self.shingler, self.minhash)
        return notes.with_columns((~documents["held_out"])[notes["row"]].alias("in_training"))

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """`shard, row, reason, score, match` of validation documents that nearly repeat a training one."""
        notes = Notes.of(corpus, priority="in_training")  # so training documents have the lower numbers
        found = find_sources(notes, self.shingler, N_BANDS, self.threshold)
        reason = pl.repeat("near_duplicate_of_train", len(found.gone), dtype=pl.String, eager=True)
        return described(notes, found, reason)

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """`match` is the training document that is most alike, the first of several."""
        return annotated(documents, decisions)

    def among_objects(
        self,
        train: Sequence[DocumentedObject],
        validation: Sequence[DocumentedObject],
        texts: Iterable[pl.Series],
    ) -> dict[str, Leak]:
        """Leaks among documented objects, by validation name.

        A leak has the same leaf name and documentation as a training object, or a description that nearly
        repeats one of training, or one that stands word for word in a training text.

        Args:
            train: Objects of the training side.
            validation: Objects of the held-out side.
            texts: All training texts, some at a time.
        """
        leaks = _quoted(validation, texts)
        summaries = copies_of(
            [one.summary for one in train],
            [one.summary for one in validation],
            # descriptions are short: pairs of words, and one word in five may differ
            threshold=min(0.6, self.threshold + 0.1),
            n_words=2,
        )
        for one, match in zip(validation, summaries, strict=True):
            if match is not None:
                leaks[one.name] = (
                    "description_near_duplicate_of_train",
                    f"docs:{train[match[0]].name}",
                    match[1],
                )
        same = {(one.leaf, normalised(one.doc)): one.name for one in train}
        for one in validation:
            twin = same.get((one.leaf, normalised(one.doc)))
            if twin is not None:
                leaks[one.name] = ("same_object_as_in_train", f"docs:{twin}", 1.0)
        return leaks


def copies_of(
    references: Sequence[str], texts: Sequence[str], *, threshold: float, n_words: int
) -> list[tuple[int, float] | None]:
    """For each text, the reference it nearly repeats and their similarity; None for those that are new.

    Args:
        references: Texts that stay.
        texts: Texts that must not repeat them.
        threshold: Jaccard similarity of word shingles from which a text counts as a copy.
        n_words: Length of a shingle in words.
    """
    both = [*references, *texts]
    documents = pl.DataFrame(
        {
            "id": pl.Series(range(len(both)), dtype=pl.Int64).cast(pl.String),
            "text": pl.Series(both, dtype=pl.String),
            "held_out": pl.Series([False] * len(references) + [True] * len(texts), dtype=pl.Boolean),
        }
    )
    judged = judge(LeakRemoval(threshold, n_words), documents).filter("held_out")
    found = judged.select("keep", pl.col("match").cast(pl.Int64), "score")
    return [None if new else (match, score) for new, match, score in found.iter_rows()]


def _quoted(validation: Sequence[DocumentedObject], texts: Iterable[pl.Series]) -> dict[str, Leak]:
    """Objects whose description stands word for word in a training text."""
    by_words: dict[str, list[str]] = {}
    for one in validation:
        by_words.setdefault(normalised(one.summary), []).append(one.name)
    hits: set[str] = set()
    for some in texts if by_words else ():
        flat = some.str.to_lowercase().str.replace_all(r"[^\w]+", " ")
        hits |= set(flat.str.extract_many(list(by_words), overlapping=True).explode().drop_nulls())
    reason = "description_quoted_in_train"
    return {name: (reason, None, 1.0) for words in sorted(hits) for name in by_words[words]}
