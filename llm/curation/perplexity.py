"""Keeps text that a language model finds neither too strange nor too predictable."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import polars as pl
from pydantic import Field

from llm.curation.base import with_attributes
from llm.types import ConfigError, TextScorer, inside

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

Bound = Annotated[float, Field(ge=1)]
Bucket = Literal["head", "middle", "tail"]

MAX_NATS = 100.0
"""Of a token, so that e to this power is a number; no model is that surprised by honest text."""


class Perplexity:
    """Adds `perplexity` (per token) and `bits_per_byte`, null for a text too short to have one.

    Wenzek et al. 2020, "CCNet", section 3.4: a language model of curated text (Wikipedia) measures web text;
    low perplexity is like its training text, high is unlike. They cut each language's documents into head,
    middle and tail at the 30th and the 60th percentile: for shares in place of thresholds, put this step into
    `llm.curation.top_share.TopShare` with `best: lowest`. Very low perplexity is repetition.

    Perplexities of models with different vocabularies do not compare; bits per byte do.

    Args:
        scorer: The model, as `llm.evaluation.text_scorer.CheckpointScorer`.
        min_perplexity: Lower ones are removed; null removes none.
        max_perplexity: Higher ones are removed; null removes none.
        boundaries: Two perplexities, between head and middle and between middle and tail: adds the column
            `perplexity_bucket`. null adds none.
        buckets: What stays of those.
        except_domains: Domains not judged, such as `code`.
    """

    attributes: Mapping[str, PolarsDataType] = {"perplexity": pl.Float64(), "bits_per_byte": pl.Float64()}

    def __init__(
        self,
        scorer: TextScorer,
        min_perplexity: Bound | None = None,
        max_perplexity: Bound | None = None,
        boundaries: Sequence[Bound] | None = None,
        buckets: Sequence[Bucket] = ("head", "middle", "tail"),
        except_domains: Sequence[str] = (),
    ) -> None:
        self.check_arguments(min_perplexity, max_perplexity, boundaries, buckets)
        self.scorer, self.min_perplexity, self.max_perplexity = scorer, min_perplexity, max_perplexity
        self.boundaries = None if boundaries is None else tuple(boundaries)
        self.buckets, self.except_domains = tuple(buckets), tuple(except_domains)

    @staticmethod
    def check_arguments(
        min_perplexity: float | None = None,
        max_perplexity: float | None = None,
        boundaries: Sequence[float] | None = None,
        buckets: Sequence[str] = ("head", "middle", "tail"),
    ) -> None:
        """Bounds in order, and boundaries where buckets are chosen.

        Raises:
            ConfigError: that is not so. Key: the argument.
        """
        if min_perplexity is not None and max_perplexity is not None and min_perplexity > max_perplexity:
            raise ConfigError("min_perplexity", min_perplexity, f"is above max_perplexity={max_perplexity}")
        if boundaries is not None and (len(boundaries) != 2 or boundaries[0] > boundaries[1]):
            mend = "give two perplexities, the lower one first, as [300, 1000]"
            raise ConfigError("boundaries", list(boundaries), mend)
        if boundaries is None and set(buckets) != {"head", "middle", "tail"}:
            raise ConfigError("buckets", list(buckets), "needs boundaries=[LOW,HIGH] between them")

    def prepare(self, say: Callable[[str], object]) -> None:
        """Looks for the model.

        Raises:
            ConfigError: there is none. Key: the scorer's under `scorer`.
        """
        with inside("scorer"):
            self.scorer.prepare()
        say(f"perplexity: a model with the digest {self.fingerprint()[:12]}")

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """Perplexity and bits per byte; rounded, for the last bits depend on the number of threads."""
        rows: list[tuple[float | None, float | None]] = []
        for score in self.scorer.score(texts.to_list()):
            if not score.n_tokens:
                rows.append((None, None))
                continue
            per_token = round(score.nats / score.n_tokens, 4)
            rows.append(
                (math.exp(min(per_token, MAX_NATS)), round(score.nats / math.log(2) / score.n_bytes, 4))
            )
        return pl.DataFrame(rows, schema=self.attributes, orient="row")

    def tag_key(self) -> object:
        """The model's digest."""
        return self.fingerprint()

    def fingerprint(self) -> str:
        """The model's digest, part of a stage's key."""
        with inside("scorer"):
            return self.scorer.fingerprint()

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """`score` is the perplexity."""
        value = pl.col("perplexity")
        judged = value.is_not_null() & ~pl.col("domain").is_in(list(self.except_domains))
        found = with_attributes(self, documents)
        reasons = []
        if self.min_perplexity is not None:
            reasons.append(pl.when(value < self.min_perplexity).then(pl.lit("low_perplexity")))
        if self.max_perplexity is not None:
            reasons.append(pl.when(value > self.max_perplexity).then(pl.lit("high_perplexity")))
        if self.boundaries is not None:
            head, middle = self.boundaries
            bucket = (
                pl.when(value <= head)
                .then(pl.lit("head"))
                .when(value <= middle)
                .then(pl.lit("middle"))
                .when(value > middle)
                .then(pl.lit("tail"))
            )
            found = found.with_columns(bucket.alias("perplexity_bucket"))
            name = pl.col("perplexity_bucket")
            gone = ~name.is_in(list(self.buckets))
            reasons.append(pl.when(gone).then(pl.concat_str(pl.lit("perplexity_"), name)))
        reason = pl.when(judged).then(pl.coalesce(reasons)) if reasons else pl.lit(None, pl.String)
        return found.with_columns(reason.alias("reason")).with_columns(
            pl.col("reason").is_null().alias("keep"),
            value.alias("score"),
            pl.lit(None, pl.String).alias("match"),
        )
