"""Keeps documents written in chosen languages, as fastText's lid.176 tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import polars as pl
from pydantic import Field

from llm.classifiers.language import LanguageIdentifier
from llm.types import ConfigError


class Language:
    """Adds the column `language` (ISO 639 code) and removes other or uncertain languages.

    Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification". A threshold of 0.65 is the one
    of Penedo et al. 2023 (RefinedWeb) and Wenzek et al. 2020 (CCNet uses 0.5).

    Args:
        languages: Codes that stay, e.g. `[en, de]`; `[]` labels every document and removes none.
        threshold: Least probability of the language.
        path: The model file lid.176.ftz; looked for in the cache and fetched when null.
        missing: When the model cannot be had: `fail`, or `skip` this step and say so.
        except_domains: Domains not judged, such as `code`.
    """

    def __init__(
        self,
        languages: Sequence[str] = ("en",),
        threshold: Annotated[float, Field(ge=0, le=1)] = 0.65,
        path: str | None = None,
        missing: Literal["fail", "skip"] = "fail",
        except_domains: Sequence[str] = (),
    ) -> None:
        self.languages, self.threshold, self.missing = tuple(languages), threshold, missing
        self.except_domains = tuple(except_domains)
        self.identifier = LanguageIdentifier(path)
        self.notices: list[str] = []

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """`score` is the probability of the language found; `reason` names that language."""
        frame = documents.collect()
        try:
            found = self.identifier.identify(frame["text"].to_list())
        except ConfigError as error:
            if self.missing == "fail":
                raise
            self.notices.append(f"language step skipped: {error}")
            nothing = pl.lit(None, pl.String)
            return frame.lazy().with_columns(
                nothing.alias("language"),
                pl.lit(True).alias("keep"),
                nothing.alias("reason"),
                pl.lit(None, pl.Float64).alias("score"),
                nothing.alias("match"),
            )
        language, score = pl.col("language"), pl.col("score")
        judged = ~pl.col("domain").is_in(list(self.except_domains)) & bool(self.languages)
        other, unsure = ~language.is_in(list(self.languages)), score < self.threshold
        reason = (
            pl.when(judged & other)
            .then(pl.concat_str(pl.lit("language_"), language))
            .when(judged & unsure)
            .then(pl.lit("language_uncertain"))
        )
        labelled = frame.lazy().with_columns(
            pl.Series("language", [code for code, _ in found], pl.String),
            pl.Series("score", [probability for _, probability in found], pl.Float64),
        )
        return labelled.with_columns(
            reason.alias("reason"), pl.lit(None, pl.String).alias("match")
        ).with_columns(pl.col("reason").is_null().alias("keep"))
