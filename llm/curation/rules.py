"""What steps made of rules of thumb share: a rule is a measure of the text and when it is out of bounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llm.curation.base import Tagger, with_attributes


class Rule(NamedTuple):
    """`measure` is the attribute's column; `broken` says of which documents the rule complains."""

    name: str
    measure: str
    broken: pl.Expr


def above(name: str, measure: str, bound: float) -> Rule:
    """A rule that a measure may reach its bound and not pass it."""
    return Rule(name, measure, pl.col(measure) > bound)


def below(name: str, measure: str, bound: float) -> Rule:
    """A rule that a measure must at least reach its bound."""
    return Rule(name, measure, pl.col(measure) < bound)


def verdict(step: Tagger, documents: pl.LazyFrame, rules: Sequence[Rule], judged: pl.Expr) -> pl.LazyFrame:
    """Annotates documents by the first rule each breaks: `reason` is its name, `score` what was measured.

    Args:
        step: measures what is not there yet; its attributes that begin with an underscore are dropped.
        documents: the rows.
        rules: in the order in which they are asked.
        judged: the documents that are judged at all.
    """
    reason = pl.coalesce(pl.when(judged & rule.broken).then(pl.lit(rule.name)) for rule in rules)
    score = pl.coalesce(
        pl.when(pl.col("reason") == rule.name).then(pl.col(rule.measure).cast(pl.Float64)) for rule in rules
    )
    return (
        with_attributes(step, documents)
        .with_columns(reason.alias("reason"))
        .with_columns(
            pl.col("reason").is_null().alias("keep"),
            score.alias("score"),
            pl.lit(None, pl.String).alias("match"),
        )
        .drop(name for name in step.attributes if name.startswith("_"))
    )


def elsewhere(domains: Iterable[str]) -> pl.Expr:
    """Documents of other domains than these."""
    return ~pl.col("domain").is_in(list(domains))


def share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """The quotient, 0 where there is nothing to divide by."""
    quotient = np.zeros(len(whole))
    np.divide(part, whole, out=quotient, where=np.asarray(whole) != 0)
    return quotient
