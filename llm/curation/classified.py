"""What the steps that ask a trained classifier share: the score as an attribute, and the threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from llm.classifiers.text_classifier import TextClassifier
from llm.curation.base import with_attributes
from llm.files import digest
from llm.types import ConfigError

if TYPE_CHECKING:
    from polars._typing import PolarsDataType


class Classified:
    """A `Tagger` whose attribute is a classifier's score, null for a text without words.

    Args:
        path: The folder a run of `task=train_classifier` left.
        threshold: What the score is held against; null for the one found in training.
        except_domains: Domains not judged.
    """

    attribute: ClassVar[str]

    def __init__(self, path: str, threshold: float | None, except_domains: Sequence[str]) -> None:
        self.classifier = TextClassifier(path)
        self._threshold, self.except_domains = threshold, tuple(except_domains)

    @property
    def attributes(self) -> Mapping[str, PolarsDataType]:
        """One column, the score."""
        return {self.attribute: pl.Float64()}

    @property
    def threshold(self) -> float:
        """The one given, else the classifier's."""
        return self.classifier.threshold if self._threshold is None else self._threshold

    def prepare(self, say: Callable[[str], object]) -> None:
        """Verifies the classifier's files.

        Raises:
            ConfigError: they are missing or damaged, or the classifier measures something else. Key `path`.
        """
        self.classifier.prepare()
        measures = self.classifier.description.get("measures") or self.attribute
        if measures != self.attribute:
            mend = f"it measures {measures}, not {self.attribute}: give this step another classifier"
            raise ConfigError("path", self.classifier.path, mend)
        say(f"{self.attribute}: {', '.join(self.classifier.positive)} at {self.threshold:.4g} and above")

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """The score of each text."""
        scores = pl.Series(self.attribute, self.classifier.scores(texts), dtype=pl.Float64)
        return scores.fill_nan(None).to_frame()

    def tag_key(self) -> object:
        """The classifier's digest."""
        return [self.attribute, self.classifier.fingerprint()]

    def fingerprint(self) -> str:
        """A digest of the classifier and the threshold that counts, part of a stage's key."""
        return digest([self.classifier.fingerprint(), self.threshold])

    def judged(self, documents: pl.LazyFrame, unwanted: pl.Expr, reason: str) -> pl.LazyFrame:
        """The documents with their scores and verdicts; what has no score is not judged."""
        score = pl.col(self.attribute)
        removed = (unwanted & ~pl.col("domain").is_in(list(self.except_domains))).fill_null(value=False)
        return with_attributes(self, documents).with_columns(
            (~removed).alias("keep"),
            pl.when(removed).then(pl.lit(reason)).alias("reason"),
            score.alias("score"),
            pl.lit(None, pl.String).alias("match"),
        )
