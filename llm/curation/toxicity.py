"""Removes documents that a trained classifier finds toxic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import polars as pl
from pydantic import Field

from llm.curation.classified import Classified


class Toxicity(Classified):
    """Adds `toxicity`, the probability of the classifier's positive labels; removes what reaches a threshold.

    Soldaini et al. 2024, "Dolma", section 4.3, tag with fastText classifiers as this step does, sentence by
    sentence. Human labels of toxicity carry their raters' prejudices: Sap et al. 2019, "The Risk of Racial
    Bias in Hate Speech Detection", find innocent African-American English labelled offensive in these very
    data. Read what the ledger says was removed.

    Args:
        path: The folder a run of `task=train_classifier classifier=toxicity` left.
        threshold: Least score of what is removed; null for the one that gave the wanted precision in
            training, 1.01 only adds the attribute.
        unit: What the classifier is shown: the `document`, or its paragraphs (`paragraph`; a document is as
            toxic as its worst one). A classifier trained on messages knows lengths of a paragraph; a long
            document hides one, and many paragraphs have many chances to be mistaken.
        except_domains: Domains not judged, such as `code`.
    """

    attribute = "toxicity"

    def __init__(
        self,
        path: str,
        threshold: Annotated[float, Field(ge=0)] | None = None,
        unit: Literal["document", "paragraph"] = "document",
        except_domains: Sequence[str] = (),
    ) -> None:
        super().__init__(path, threshold, except_domains)
        self.unit = unit

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """The score of each text, or the highest score of its paragraphs."""
        if self.unit == "document":
            return super().tag(texts)
        # polars splits on literals only, so the pattern first becomes a character no text holds
        parts = texts.str.replace_all(r"\n\s*\n", "\x1e").str.split("\x1e")
        rows = pl.DataFrame({"row": pl.int_range(len(texts), eager=True), "text": parts}).explode("text")
        scored = rows.hstack(super().tag(rows["text"]))
        return scored.group_by("row", maintain_order=True).agg(pl.col("toxicity").max()).select("toxicity")

    def tag_key(self) -> object:
        """The classifier's digest and what it is shown."""
        return [self.unit, super().tag_key()]

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """`score` is the probability."""
        return self.judged(documents, pl.col("toxicity") >= self.threshold, "toxic")
