"""The account of what each step does: removed and altered documents with their reasons, and the funnel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from llm.curation.base import VERDICT_COLUMNS

EXCERPT_CHARS = 120

LEDGER_SCHEMA = {
    "id": pl.String,
    "source": pl.String,
    "domain": pl.String,
    "step": pl.String,
    "reason": pl.String,
    "score": pl.Float64,
    "match": pl.String,
    "excerpt": pl.String,
    "n_bytes": pl.Int64,
    "bytes_after": pl.Int64,
    "change": pl.Int64,
    "provenance": pl.String,
}
"""`change` is -1 for a removed document, 0 for an altered one and +k for k further copies of a repeated one,
so that documents read + sum of `change` = documents written. `n_bytes` are those of the text (and the excerpt
that of the text) before the step, `bytes_after` those of one copy behind it, 0 when it is gone."""


@dataclass
class Counts:
    """What a step did to the documents it saw; sums over shards with `add`.

    added: further copies of documents. languages: documents and bytes that came in, by language, once
    something has named it. seconds: processor time, which depends on the machine and stays out of everything
    that is compared.
    """

    step: str
    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    altered: int = 0
    removed: int = 0
    added: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    domains: dict[str, list[int]] = field(default_factory=dict)
    languages: dict[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0

    def saved(self) -> dict[str, Any]:
        """Plain values, which `of` reads."""
        return {**vars(self), "reasons": dict(self.reasons)}  # `asdict` makes nonsense of a Counter

    @staticmethod
    def of(saved: dict[str, Any]) -> Counts:
        """What `saved` made of one."""
        return Counts(**{**saved, "reasons": Counter(saved["reasons"])})

    def add(self, other: Counts) -> None:
        """Takes in another shard's."""
        assert self.step == other.step
        for name in (
            "documents_in",
            "documents_out",
            "bytes_in",
            "bytes_out",
            "altered",
            "removed",
            "added",
            "seconds",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)
        for name in ("domains", "languages"):
            mine: dict[str, list[int]] = getattr(self, name)
            for key, (n, size) in getattr(other, name).items():
                before = mine.get(key, [0, 0])
                mine[key] = [before[0] + n, before[1] + size]

    def row(self) -> dict[str, Any]:
        """For the funnel: everything but the time, in an order that does not depend on the shards."""
        row = self.saved()
        del row["seconds"]
        row["reasons"] = dict(sorted(self.reasons.items(), key=lambda entry: (-entry[1], entry[0])))
        row["domains"] = dict(sorted(self.domains.items()))
        row["languages"] = dict(sorted(self.languages.items(), key=lambda entry: (-entry[1][0], entry[0])))
        return row

    def line(self) -> str:
        """For people."""
        row = self.row()
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in row["reasons"].items())
        return (
            f"{self.step}: {self.documents_in:,} -> {self.documents_out:,} documents, "
            f"{self.bytes_in:,} -> {self.bytes_out:,} bytes" + (f" ({reasons})" if reasons else "")
        )


def account(
    name: str, before: pl.DataFrame, judged: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, Counts]:
    """What a step keeps of one shard, its ledger entries and its counts.

    Args:
        name: The step's.
        before: The documents it saw.
        judged: The same with its verdicts, and perhaps `copies` (how often a kept one stands in the result).
    """
    _check(name, before, judged)
    once = pl.repeat(1, before.height, eager=True, dtype=pl.Int64)
    held = before["copies"] if "copies" in before.columns else once
    given = judged["copies"].fill_null(1) if "copies" in judged.columns else held
    sized = judged.with_columns(
        held.cast(pl.Int64).alias("_held"),
        pl.when("keep").then(given.cast(pl.Int64)).otherwise(0).alias("_copies"),
        before["text"].alias("_before"),
        before["text"].str.len_bytes().cast(pl.Int64).alias("_bytes_in"),
        pl.col("text").str.len_bytes().cast(pl.Int64).alias("_bytes_out"),
        # a reader says of a document that it was repaired on the way in
        (pl.col("text").ne_missing(before["text"]) | pl.col("reason").is_not_null()).alias("_altered"),
    )
    entries = sized.filter((pl.col("_copies") != pl.col("_held")) | pl.col("_altered")).select(
        "id",
        "source",
        "domain",
        pl.lit(name).alias("step"),
        "reason",
        pl.col("score").cast(pl.Float64),
        pl.col("match").cast(pl.String),
        pl.col("_before").str.slice(0, EXCERPT_CHARS).str.replace_all(r"\s+", " ").alias("excerpt"),
        pl.col("_bytes_in").alias("n_bytes"),
        pl.when("keep").then("_bytes_out").otherwise(0).alias("bytes_after"),
        (pl.col("_copies") - pl.col("_held")).alias("change"),
        pl.col("provenance")
        if "provenance" in sized.columns
        else pl.lit(None, pl.String).alias("provenance"),
    )
    counts = _counted(name, sized, entries)
    own = [c for c in sized.columns if c.startswith("_")]
    if "copies" in sized.columns:
        sized = sized.with_columns(given.alias("copies"))
    kept = sized.filter("keep").drop(*VERDICT_COLUMNS, *own)
    return kept, entries.cast(LEDGER_SCHEMA), counts  # type: ignore[arg-type]


def _check(name: str, before: pl.DataFrame, judged: pl.DataFrame) -> None:
    """A step that loses rows or forgets a reason is a bug of the step, not of the user."""
    missing = [column for column in VERDICT_COLUMNS if column not in judged.columns]
    assert not missing, f"step {name} does not annotate {', '.join(missing)}"
    assert judged.height == before.height, f"step {name} adds or drops documents"
    assert judged["source"].equals(before["source"]), f"step {name} reorders documents"
    assert judged["keep"].null_count() == 0, f"step {name} leaves keep undecided"
    assert judged["text"].null_count() == 0, f"step {name} makes a text null"
    acted = ~judged["keep"] | judged["text"].ne_missing(before["text"])
    unexplained = judged.filter(acted & pl.col("reason").is_null()).height
    assert not unexplained, f"step {name} removes or alters {unexplained} documents without a reason"


def _counted(name: str, sized: pl.DataFrame, entries: pl.DataFrame) -> Counts:
    totals = sized.select(
        pl.col("_held").sum().alias("documents_in"),
        pl.col("_copies").sum().alias("documents_out"),
        (pl.col("_held") * pl.col("_bytes_in")).sum().alias("bytes_in"),
        (pl.col("_copies") * pl.col("_bytes_out")).sum().alias("bytes_out"),
        (pl.col("_altered") & pl.col("keep") & (pl.col("_copies") == pl.col("_held"))).sum().alias("altered"),
        (pl.col("_held") - pl.col("_copies")).clip(lower_bound=0).sum().alias("removed"),
        (pl.col("_copies") - pl.col("_held")).clip(lower_bound=0).sum().alias("added"),
    ).row(0, named=True)
    reasons = entries.group_by("reason").len()
    return Counts(
        name,
        **{key: int(value or 0) for key, value in totals.items()},
        reasons=Counter({str(reason): int(n) for reason, n in reasons.iter_rows()}),
        domains=_mix(sized, "domain", "_copies", "_bytes_out"),
        languages=_mix(sized, "language", "_held", "_bytes_in") if "language" in sized.columns else {},
    )


def _mix(sized: pl.DataFrame, column: str, copies: str, size: str) -> dict[str, list[int]]:
    sums = (
        sized.group_by(pl.col(column).fill_null("unknown"))
        .agg(pl.col(copies).sum().alias("n"), (pl.col(copies) * pl.col(size)).sum().alias("bytes"))
        .filter(pl.col("n") > 0)
        .sort(column)
    )
    return {str(key): [int(n), int(b)] for key, n, b in sums.iter_rows()}


def summed(counts: Iterable[Counts]) -> list[Counts]:
    """Counts of all shards, one a step, in the order in which the steps first appear."""
    found: dict[str, Counts] = {}
    for one in counts:
        found.setdefault(one.step, Counts(one.step)).add(one)
    return list(found.values())
