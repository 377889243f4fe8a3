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

    An id that several sources have gets the source's name in front, in all of them, before twins of one
    source are numbered; all other ids stay as they are. A name that some document had is given to no other.

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
        alike = corpus.fetch(notes.filter(pl.col("hash").is_duplicated()).collect(), ["id"])
        if not alike.height:
            return pl.DataFrame(schema={**PLACE, "prefix": pl.String, "number": pl.UInt32})
        source = pl.col("shard").replace_strict(dict(enumerate(corpus.sources)), return_dtype=pl.UInt32)
        alike = alike.filter(pl.col("id").is_duplicated()).with_columns(source.alias("origin"))
        name = pl.col("origin").replace_strict(dict(enumerate(self.sources)), return_dtype=pl.String)
        prefix = pl.when(pl.col("origin").n_unique().over("id") > 1).then(name).alias("prefix")
        alike = alike.with_columns(prefix).with_columns(_base().alias("base"))
        new = pl.col("prefix").is_not_null()
        bases = alike.filter(new).select(pl.col("base").unique(maintain_order=True))
        had = _taken(bases["base"], notes)
        first = pl.int_range(pl.len()).over("base", new) == 0
        bare = first & ~(new & pl.col("base").is_in(bases.filter(had)["base"].implode()))
        numbered = _numbers(alike.filter(~bare), notes, bases["base"])
        changed = alike.filter(new | ~bare).select("shard", "row", "prefix")
        return changed.join(numbered, on=["shard", "row"], how="left")

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """Renames; a numbered document's `match` is the id it had."""
        placed = _in_place(nothing_said(documents), decisions)
        twin = pl.col("number").is_not_null()
        base = _base()
        return placed.with_columns(
            pl.when(twin).then(pl.concat_str(base, pl.lit("#"), "number")).otherwise(base).alias("id"),
            pl.when(twin).then(pl.lit("duplicate_id")).alias("reason"),
            pl.when(twin).then(base).alias("match"),
        ).drop("prefix", "number")


def _base() -> pl.Expr:
    """The id with the `prefix`, where there is one."""
    return pl.concat_str(pl.col("prefix") + "/", "id", ignore_nulls=True)


def _taken(names: pl.Series, notes: pl.LazyFrame) -> pl.Series:
    """Whether some document had this name, by the hashes of all ids."""
    hashes = pl.DataFrame({"hash": names}).select(pl.col("hash").hash(0))
    had = notes.join(hashes.lazy(), on="hash", how="semi").select("hash").collect()
    return hashes["hash"].is_in(had["hash"].implode())


def _numbers(twins: pl.DataFrame, notes: pl.LazyFrame, given: pl.Series) -> pl.DataFrame:
    """`number` for each row of `twins`: from 2 on by `base` in their order, but for names that are taken.

    Args:
        twins: `shard`, `row` and `base`.
        notes: `hash` of every id in the corpus.
        given: Names that other documents get.
    """
    ranked = twins.select("shard", "row", "base", pl.int_range(pl.len()).over("base").alias("rank"))
    left, width = ranked.group_by("base", maintain_order=True).agg(pl.len().cast(pl.Int64).alias("n")), 1
    found = []
    while left.height:  # a row of taken names, however long, costs a few rounds
        tried = left.with_columns(pl.int_ranges(2, 2 + width * pl.col("n")).alias("number")).explode("number")
        names = tried.select(pl.concat_str("base", pl.lit("#"), "number"))["base"]
        free = tried.filter(~(_taken(names, notes) | names.is_in(given.implode())))
        free = free.with_columns(pl.int_range(pl.len()).over("base").alias("rank"))
        free = free.filter(pl.col("rank") < pl.col("n"))
        enough = free.filter(pl.len().over("base") == pl.col("n"))
        found.append(enough.select("base", "rank", pl.col("number").cast(pl.UInt32)))
        left, width = left.join(enough, on="base", how="anti", maintain_order="left"), 2 * width
    if not found:
        return pl.DataFrame(schema={**PLACE, "number": pl.UInt32})
    return ranked.join(pl.concat(found), on=["base", "rank"]).select("shard", "row", "number")


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
