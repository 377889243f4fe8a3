"""Keeps documents written in chosen languages, as fastText's lid.176 tells them apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import polars as pl
from pydantic import Field

from llm.classifiers.language import MAX_CHARS, NORMALISATION, SHA256, LanguageIdentifier
from llm.curation.base import with_attributes
from llm.types import ConfigError

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

Probability = Annotated[float, Field(ge=0, le=1)]


class Language:
    """Adds `language` (ISO 639 code) and `language_score`, and removes other or uncertain languages.

    Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification". A threshold of 0.65 is the one
    of Penedo et al. 2023 (RefinedWeb) and Penedo et al. 2024 (FineWeb); Wenzek et al. 2020 (CCNet) use 0.5.

    Args:
        languages: Codes that stay, e.g. `[en, de]`; `[]` labels every document and removes none.
        threshold: Least probability of the language.
        thresholds: Other least probabilities for some languages, e.g. `{sr: 0.4, hr: 0.4}`: languages that
            the model takes for one another get low ones.
        path: The model file lid.176.ftz; looked for in the cache and fetched when null.
        missing: When the model cannot be had: `fail`, or `skip` this step and say so.
        except_domains: Domains not judged, such as `code`.
    """

    attributes: Mapping[str, PolarsDataType] = {"language": pl.String(), "language_score": pl.Float64()}

    def __init__(
        self,
        languages: Sequence[str] = ("en",),
        threshold: Probability = 0.65,
        thresholds: Mapping[str, Probability] | None = None,
        path: str | None = None,
        missing: Literal["fail", "skip"] = "fail",
        except_domains: Sequence[str] = (),
    ) -> None:
        self.check_arguments(languages=languages, thresholds=thresholds)
        self.languages, self.threshold, self.missing = tuple(languages), threshold, missing
        self.thresholds = dict(thresholds or {})
        self.except_domains = tuple(except_domains)
        self.identifier = LanguageIdentifier(path)
        self.notices: list[str] = []
        self._skipped: bool | None = None  # not known before `prepare`

    @staticmethod
    def check_arguments(
        *, languages: Sequence[str] = ("en",), thresholds: Mapping[str, float] | None = None
    ) -> None:
        """Languages are told by their codes; a threshold for one that is removed anyway is a slip of the pen.

        Raises:
            ConfigError: that is not so. Key `languages` or `thresholds.CODE`.
        """
        for code in languages:
            if not re.fullmatch(r"[a-z]{2,3}", code):
                mend = "is no code of a language; give ISO 639's, as in [en, de, ceb]"
                raise ConfigError("languages", code, mend)
        for code in thresholds or {}:
            if languages and code not in languages:
                mend = f"documents in it are removed: languages are {', '.join(languages)}"
                raise ConfigError(f"thresholds.{code}", (thresholds or {})[code], mend)

    def prepare(self, say: Callable[[str], object]) -> None:
        """Fetches the model, and decides for all processes whether the step is skipped without it.

        Raises:
            ConfigError: the model cannot be had, and `missing` is `fail`. Key `path`.
        """
        try:
            self.identifier.prepare()
            self._skipped = False
        except ConfigError as error:
            if self.missing == "fail":
                raise
            self._skipped = True
            self.notices.append(f"language step skipped: {error}")
            say(self.notices[-1])

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """The most probable language and its probability; both null when the step is skipped."""
        if self._skipped is None:
            self.prepare(lambda _: None)
        found: Sequence[tuple[str | None, float | None]] = [(None, None)] * len(texts)
        if not self._skipped:
            found = self.identifier.identify(texts.to_list())
        return pl.DataFrame(found, schema=self.attributes, orient="row")

    def tag_key(self) -> object:
        """The model, how text is given to it, and whether it is asked at all."""
        if self._skipped is None:
            self.prepare(lambda _: None)
        return [SHA256, MAX_CHARS, NORMALISATION, bool(self._skipped)]

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """`score` is the probability of the language found; `reason` names that language."""
        language, score = pl.col("language"), pl.col("language_score")
        judged = language.is_not_null() & ~pl.col("domain").is_in(list(self.except_domains))
        other = ~language.is_in(list(self.languages))
        own, least = self.thresholds, self.threshold
        least_of = language.replace_strict(
            list(own), list(own.values()), default=least, return_dtype=pl.Float64
        )
        reason = pl.lit(None, pl.String)
        if self.languages:
            reason = pl.coalesce(
                pl.when(judged & other).then(pl.concat_str(pl.lit("language_"), language)),
                pl.when(judged & (score < least_of)).then(pl.lit("language_uncertain")),
            )
        return with_attributes(self, documents).with_columns(
            reason.is_null().alias("keep"),
            reason.alias("reason"),
            score.alias("score"),
            pl.lit(None, pl.String).alias("match"),
        )
