"""Steps that every curation has: names that are unique, sides of the split, what only one side gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import polars as pl

from llm.curation.base import Corpus, CorpusStep
from llm.curation.leaks import Leak
from llm.types import ConfigError

PLACE = {"shard": pl.UInt32, "row": pl.UInt32}


def nothing_said(documents: pl.DataFrame) -> pl.DataFrame:
    """The documents with an empty verdict: all of them stay."""
    return documents.with_columns(
        pl.lit(True).alias("keep"),
        pl.lit(None, pl.String).alias("reason"),
        pl.lit(None, pl.Float64).alias("score"),
        pl.lit(None, pl.String).alias("match"),
    )


def _in_place(documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """The documents with what was decided for each row, null where nothing was."""
    numbered = documents.with_row_index("_row").with_columns(pl.col("_row").cast(pl.UInt32))
    renamed = decisions.rename({"row": "_row"})
    return numbered.join(renamed, on="_row", how="left", maintain_order="left").drop("_row")


class UniqueIds:
    """Gives documents whose id another one has a number behind theirs; the first keeps it.

    When two sources share ids, every id gets its source's name in front instead. Shards are named by the
    number of their source, which is how this step knows whose they are.

    Args:
        sources: Names of the sources in their order.
    """

    def __init__(self, sources: list[str]) -> None:
        self.sources = sources

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """A hash of each id; it need not outlive this run."""
        return documents.select(pl.col("id").hash(0).alias("hash")).with_row_index("row")

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """`prefix` and `number` of the rows whose id changes."""
        notes = corpus.scan().select(pl.col("shard", "row").cast(pl.UInt32), "hash")
        twins = notes.filter(pl.col("hash").is_duplicated()).collect()
        alike = corpus.fetch(twins, ["id"])
        if not alike.height:
            return pl.DataFrame(schema={**PLACE, "prefix": pl.String, "number": pl.UInt32})
        source = pl.col("shard").replace_strict(dict(enumerate(corpus.sources)), return_dtype=pl.UInt32)
        alike = alike.with_columns(source.alias("origin"))
        shared = alike.group_by("id").agg(pl.col("origin").n_unique()).filter(pl.col("origin") > 1).height
        groups = ["id", "origin"] if shared else ["id"]
        numbered = alike.with_columns(
            (pl.int_range(pl.len(), dtype=pl.UInt32).over(groups) + 1).alias("number")
        )
        numbered = numbered.filter(pl.col("number") > 1).select("shard", "row", "number")
        if not shared:
            return numbered.select("shard", "row", pl.lit(None, pl.String).alias("prefix"), "number")
        names = source.replace_strict(dict(enumerate(self.sources)), return_dtype=pl.String)
        everything = corpus.scan().select(pl.col("shard", "row").cast(pl.UInt32)).collect()
        named = everything.with_columns(names.alias("prefix"))
        return named.join(numbered, on=["shard", "row"], how="left").select(
            "shard", "row", "prefix", "number"
        )

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """Renames; a numbered document's `match` is the id it had."""
        placed = _in_place(nothing_said(documents), decisions)
        twin = pl.col("number").is_not_null()
        base = pl.concat_str(pl.col("prefix") + "/", "id", ignore_nulls=True)
        return placed.with_columns(
            pl.when(twin).then(pl.concat_str(base, pl.lit("#"), "number")).otherwise(base).alias("id"),
            pl.when(twin).then(pl.lit("duplicate_id")).alias("reason"),
            pl.when(twin).then(base).alias("match"),
        ).drop("prefix", "number")


class Split(Protocol):
    """Chooses what is held out."""

    def held_out(self, documents: pl.DataFrame) -> pl.Series:
        """True for each row that belongs to validation; `documents` has the columns id and perhaps group."""
        ...


class SplitOff:
    """Notes in the column `held_out` on which side of the split a document stands.

    Args:
        split: Chooses the validation documents.
    """

    def __init__(self, split: Split) -> None:
        self.split = split

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """What the choice depends on."""
        return documents.select(c for c in ("id", "group") if c in documents.columns).with_row_index("row")

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """The held-out rows.

        Raises:
            ConfigError: there are not two documents to be told apart.
        """
        notes = corpus.scan().collect()
        if notes.height < 2:
            mend = "too few for training and validation; relax the steps"
            raise ConfigError("steps", f"{notes.height} documents left", mend)
        held = self.split.held_out(notes.drop("shard", "row"))
        return notes.filter(held).select(
            pl.col("shard", "row").cast(pl.UInt32), pl.lit(True).alias("held_out")
        )

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """Everything stays, with its side."""
        placed = _in_place(documents, decisions)
        return nothing_said(placed.with_columns(pl.col("held_out").fill_null(False)))


class RemoveHeldOut:
    """Removes held-out documents by id, with a reason for each: what training holds too.

    Args:
        leaks: Reason, match and score by id.
    """

    def __init__(self, leaks: Mapping[str, Leak]) -> None:
        rows = [(name, *leak) for name, leak in leaks.items()]
        schema = {"id": pl.String, "reason": pl.String, "match": pl.String, "score": pl.Float64}
        self._leaks = pl.DataFrame(rows, schema=schema, orient="row")

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """Judges held-out documents alone."""
        leaks = self._leaks.lazy().with_columns(pl.lit(True).alias("held_out"))
        joined = documents.join(leaks, on=["id", "held_out"], how="left", maintain_order="left")
        return joined.with_columns(pl.col("reason").is_null().alias("keep"))


class OnTraining:
    """A corpus-wide step that sees, and changes, the training side alone.

    Args:
        step: The step; it must not fetch texts, for its rows are numbered among the training ones.
    """

    def __init__(self, step: CorpusStep) -> None:
        self.step = step

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """The step's notes on the training documents."""
        return self.step.survey(documents.filter(~pl.col("held_out")))

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """The step's decisions."""
        return self.step.decide(corpus)

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """Training documents as the step wants them, held-out ones as they are, in their order."""
        numbered = documents.with_row_index("_place")
        judged = self.step.apply(numbered.filter(~pl.col("held_out")), decisions)
        others = nothing_said(numbered.filter("held_out"))
        return pl.concat([judged, others], how="diagonal").sort("_place").drop("_place")
