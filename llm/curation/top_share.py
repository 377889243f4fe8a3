"""Keeps the share of a corpus that scores best by an attribute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import polars as pl
from pydantic import Field

from llm.curation.base import Corpus, Tagger, with_attributes
from llm.files import digest
from llm.types import ConfigError, inside

if TYPE_CHECKING:
    from polars._typing import PolarsDataType


class TopShare:
    """Ranks all documents by an attribute of another step and keeps the best.

    Li et al. 2024 ("DataComp-LM", 4.4) keep 10 % by the score of their classifier; Wenzek et al. 2020
    ("CCNet") call the 30 % and 60 % of lowest perplexity in each language head and middle.

    Documents of equal score stand in the order of the corpus, so exactly the share stays, whatever the
    shards. What has no score, such as a text without words, is removed.

    Args:
        tagger: The step that measures the attribute; its own threshold plays no part.
        attribute: Name of the attribute.
        keep_fraction: How much stays.
        best: Whether `highest` or `lowest` values are good.
        of: What the fraction is of: `documents` or `bytes` of text.
        within: A column whose groups are ranked each for itself, such as `language`; null for all together.
        except_domains: Domains not judged and not counted, such as `code`.
    """

    def __init__(
        self,
        tagger: Tagger,
        attribute: str,
        keep_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1,
        best: Literal["highest", "lowest"] = "highest",
        of: Literal["documents", "bytes"] = "documents",
        within: str | None = None,
        except_domains: Sequence[str] = (),
    ) -> None:
        self.tagger, self.attribute, self.keep_fraction = tagger, attribute, keep_fraction
        self.best, self.of, self.within = best, of, within
        self.except_domains = tuple(except_domains)
        if attribute not in tagger.attributes:
            names = ", ".join(tagger.attributes)
            raise ConfigError("attribute", attribute, f"{type(tagger).__name__} measures {names}")

    @property
    def attributes(self) -> Mapping[str, PolarsDataType]:
        """The tagger's."""
        return self.tagger.attributes

    def prepare(self, say: Callable[[str], object]) -> None:
        """The tagger's own preparation, if it has one.

        Raises:
            ConfigError: as the tagger does. Key: its own under `tagger`.
        """
        if hasattr(self.tagger, "prepare"):
            with inside("tagger"):
                self.tagger.prepare(say)

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """What the tagger says."""
        return self.tagger.tag(texts)

    def tag_key(self) -> object:
        """The tagger's."""
        with inside("tagger"):
            return self.tagger.tag_key()

    def fingerprint(self) -> str:
        """A digest of what the tagger rests on."""
        return digest(self.tag_key())

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """Row, score and size of every judged document, and its group."""
        if self.within is not None and self.within not in documents.columns:
            mend = f"no earlier step adds this column; there are {', '.join(documents.columns)}"
            raise ConfigError("within", self.within, mend)
        group = pl.lit("") if self.within is None else pl.col(self.within).cast(pl.String)
        judged = ~pl.col("domain").is_in(list(self.except_domains))
        return (
            with_attributes(self.tagger, documents.lazy())
            .with_row_index("row")
            .filter(judged)
            .select(
                pl.col("row").cast(pl.UInt32),
                pl.col(self.attribute).cast(pl.Float64).alias("score"),
                pl.col("text").str.len_bytes().cast(pl.UInt32).alias("size"),
                group.alias("group"),
            )
            .collect()
        )

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """Every judged document with its score and whether it stays: 17 bytes a document."""
        counted = pl.col("size").cast(pl.Int64) if self.of == "bytes" else pl.lit(1, pl.Int64)
        notes = corpus.scan().with_columns(counted.alias("size")).collect()
        order, descending = ["score", "shard", "row"], [self.best == "highest", False, False]
        ranked = notes.sort(order, descending=descending, nulls_last=True)
        size = pl.col("size")
        total, before = size.sum().over("group"), size.cum_sum().over("group") - size
        # a document stays when the share is not yet full at its middle: rounds to the nearest, never to none
        middle = (before.cast(pl.Float64) + size / 2) < total * self.keep_fraction
        keep = (middle | (before == 0)) & pl.col("score").is_not_null()
        decided = ranked.with_columns(keep.alias("stays"))
        return decided.select("shard", "row", "score", "stays").sort("shard", "row")

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """`score` is the attribute; what goes has the reason `below_top_share`."""
        found = documents.with_row_index("_row").join(
            decisions.rename({"row": "_row"}), on="_row", how="left", maintain_order="left"
        )
        removed = (~pl.col("stays")).fill_null(value=False)
        if self.attribute not in documents.columns:
            found = found.with_columns(pl.col("score").alias(self.attribute))
        return found.with_columns(
            (~removed).alias("keep"),
            pl.when(removed).then(pl.lit("below_top_share")).alias("reason"),
            pl.lit(None, pl.String).alias("match"),
        ).drop("_row", "stays")
