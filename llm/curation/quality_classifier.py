"""Keeps documents that a trained classifier finds good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.curation.classified import Classified


class QualityClassifier(Classified):
    """Adds `quality`, the probability that a document is of the classifier's positive labels.

    Li et al. 2024, "DataComp-LM", section 4.4: fastText on words and word pairs, good text against random web
    text (`task=train_classifier classifier=quality`). They keep the best tenth and not what is above a
    threshold: `llm.curation.top_share.TopShare` does.

    Args:
        path: The folder a run of `task=train_classifier` left.
        threshold: Least score of what stays; null for the one found in training, 0 only adds the attribute.
        except_domains: Domains not judged, such as `code`.
    """

    attribute = "quality"

    def __init__(
        self,
        path: str,
        threshold: Annotated[float, Field(ge=0, le=1)] | None = None,
        except_domains: Sequence[str] = (),
    ) -> None:
        super().__init__(path, threshold, except_domains)

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """`score` is the probability."""
        return self.judged(documents, pl.col("quality") < self.threshold, "low_quality")
