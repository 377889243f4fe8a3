"""What must leave validation because training holds it too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.curation.base import DocumentedObject
from llm.curation.near_duplicates import copies_of
from llm.curation.questions import normalised

Leak = tuple[str, str | None, float]
"""(reason, id of what it repeats when one is known, similarity)."""


class LeakRemoval:
    """Finds validation texts that repeat training ones: copied documentation, mirrored pages.

    Candidates by MinHash, decided by exact Jaccard similarity of word shingles.

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

    def among_documents(self, train: pl.DataFrame, validation: pl.DataFrame) -> dict[str, Leak]:
        """Leaks among documents, by validation id."""
        found = copies_of(
            train["text"].to_list(),
            validation["text"].to_list(),
            threshold=self.threshold,
            n_words=self.n_words,
        )
        names = train["id"].to_list()
        return {
            one: ("near_duplicate_of_train", names[match[0]], match[1])
            for one, match in zip(validation["id"], found, strict=True)
            if match is not None
        }

    def among_objects(
        self, train: Sequence[DocumentedObject], validation: Sequence[DocumentedObject], texts: pl.Series
    ) -> dict[str, Leak]:
        """Leaks among documented objects, by validation name.

        A leak has the same leaf name and documentation as a training object, or a description that nearly
        repeats one of training, or one that stands word for word in a training text.

        Args:
            train: Objects of the training side.
            validation: Objects of the held-out side.
            texts: All training texts.
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


def remover(leaks: Mapping[str, Leak]) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """A step that removes the documents of these ids."""

    def annotate(documents: pl.LazyFrame) -> pl.LazyFrame:
        rows = [(name, *leak) for name, leak in leaks.items()]
        schema = {"id": pl.String, "reason": pl.String, "match": pl.String, "score": pl.Float64}
        known = pl.LazyFrame(rows, schema=schema, orient="row")
        joined = documents.join(known, on="id", how="left", maintain_order="left")
        return joined.with_columns(pl.col("reason").is_null().alias("keep"))

    return annotate


def _quoted(validation: Sequence[DocumentedObject], texts: pl.Series) -> dict[str, Leak]:
    """Objects whose description stands word for word in a training text."""
    by_words: dict[str, list[str]] = {}
    for one in validation:
        by_words.setdefault(normalised(one.summary), []).append(one.name)
    if not by_words or not len(texts):
        return {}
    flat = texts.str.to_lowercase().str.replace_all(r"[^\w]+", " ")
    hits = flat.str.extract_many(list(by_words), overlapping=True).explode().drop_nulls().unique()
    return {name: ("description_quoted_in_train", None, 1.0) for words in hits for name in by_words[words]}
