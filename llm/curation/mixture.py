"""Mixtures: which share of the training bytes each domain or language gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.curation.base import Corpus, judge, order_key
from llm.inputs import check_weights
from llm.types import ConfigError

Group = tuple[str, ...]
"""A document's values in the balanced columns: a domain, or a domain and a language."""

UNKNOWN = "unknown"
"""The group of documents without a value, as those whose language was not recognised."""


class Mixture(ABC):
    """Leaves documents out, or repeats them, until groups of them have the wanted bytes.

    A scheme says in `targets` how many UTF-8 bytes each group is to end with. A group is passed through
    whole as often as that allows, and the first documents of a seeded order once more. Implements
    `llm.curation.base.CorpusStep`; `decide` holds some 80 bytes a document, and no text.

    Args:
        by: Column that is balanced, or several: `domain`, or one that a step has added, as `language`.
        max_repeats: Copies of a document at most; 1 never repeats.
        seed: Chooses which documents go or are repeated once more.
    """

    def __init__(self, by: str | Sequence[str], max_repeats: int, seed: int) -> None:
        self.by = _columns(by)
        self.max_repeats, self.seed = max_repeats, seed

    @abstractmethod
    def targets(self, n_bytes: Mapping[Group, int]) -> Mapping[Group, float]:
        """Bytes each group should end with.

        Args:
            n_bytes: what each group of the corpus has, at least 1, in alphabetic order.

        Raises:
            ConfigError: the groups are not those the scheme is told of.
        """

    def note(self, n_bytes: Mapping[Group, int], targets: Mapping[Group, float]) -> str | None:
        """A line for people when a scarce group costs more than half of the wanted ones."""
        wanted = {group: n_bytes[group] for group, target in targets.items() if target > 0}
        if not wanted:
            return None
        scarcest = max(wanted, key=lambda group: targets[group] / wanted[group])
        if (kept := sum(targets.values()) / sum(wanted.values())) >= 0.5:
            return None
        return (
            f"mixture: {kept:.2g} of the bytes stay, as many as {label(scarcest)} allows with max_repeats="
            f"{self.max_repeats}: a smaller share for it, or more repeats, keeps more"
        )

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """Judges documents in memory; see `apply`."""
        return judge(self, documents.collect()).lazy()

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """Of each document its group, its size and its place in the seeded order.

        Raises:
            ConfigError: the documents have no such column. Key `by`.
        """
        for name in self.by:
            if name not in documents.columns:
                mend = f"the documents have no such column; they have {', '.join(documents.columns)}"
                raise ConfigError("by", name, f"{mend}: a step may add it, as curation/step=language does")
        order = [order_key(self.seed, "mixture", one) for one in documents["id"]]
        return documents.select(
            pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
            pl.Series("order", order, pl.Int64),
            pl.col("text").str.len_bytes().cast(pl.UInt32).alias("n_bytes"),
            *(pl.col(name).cast(pl.String).fill_null(UNKNOWN).alias(to) for name, to in self._renamed()),
        )

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """`copies` of each document that is not to stay once, and `score`, how often its group passes.

        Raises:
            ConfigError: as `targets`.
        """
        notes, columns = corpus.scan(), [to for _, to in self._renamed()]
        sizes = notes.group_by(columns).agg(pl.col("n_bytes").cast(pl.Int64).sum()).sort(columns).collect()
        n_bytes = {tuple(group): max(1, size) for *group, size in sizes.iter_rows()}
        targets = self.targets(n_bytes)
        if note := self.note(n_bytes, targets):
            corpus.say(note)
        numbers = sizes.select(columns).with_row_index("group")
        places = (
            notes.join(numbers.lazy(), on=columns)
            .select("group", "shard", "row", "order", "n_bytes")
            .collect()
            .partition_by("group", as_dict=True, include_key=False)
        )
        found = [pl.DataFrame(schema=_DECISIONS)]
        for number, group in enumerate(n_bytes):
            found.append(self._copies(places.pop((number,)), targets[group], n_bytes[group]))
        return pl.concat(found)

    def _copies(self, members: pl.DataFrame, target: float, n_bytes: int) -> pl.DataFrame:
        """Decisions on one group that has `n_bytes` and is to have `target`."""
        members = members.sort("order", "shard", "row")
        # Whole passes over the group, and one more for the first documents of its order. The target of a
        # group that is to stay whole may be less than its size by a rounding.
        passes = (target / n_bytes + 1e-12) // 1
        rest = target - passes * n_bytes
        until = members["n_bytes"].cast(pl.Int64).cum_sum()
        n_more = int((until <= rest + 1e-6 + 1e-12 * target).sum())
        if target > 0 and not passes:
            n_more = max(1, n_more)  # a wanted group is not left out because its first document is long
        often, seldom = (min(int(passes) + more, self.max_repeats) for more in (1, 0))
        parts = [(members.head(n_more), often), (members.tail(members.height - n_more), seldom)]
        changed = [
            part.select("shard", "row", pl.lit(n, pl.UInt32).alias("copies"), score=target / n_bytes)
            for part, n in parts
            if n != 1
        ]
        return pl.concat([pl.DataFrame(schema=_DECISIONS), *changed])

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """Adds `copies` beside the usual columns: how often a kept document stands in the result.

        `score` is, for a document that is left out or repeated, the bytes its group is to have over those
        it has.
        """
        found = decisions.rename({"copies": "_copies", "score": "_score"})
        copies = pl.col("_copies").fill_null(1).cast(pl.Int64)
        return (
            documents.with_row_index("_row")
            .join(found, left_on="_row", right_on="row", how="left", maintain_order="left")
            .with_columns(
                copies.alias("copies"),
                (copies > 0).alias("keep"),
                pl.when(copies == 0)
                .then(pl.lit("down_sampled"))
                .when(copies > 1)
                .then(pl.lit("repeated"))
                .alias("reason"),
                pl.col("_score").alias("score"),
                pl.lit(None, pl.String).alias("match"),
            )
            .drop("_row", "_copies", "_score")
        )

    def _renamed(self) -> list[tuple[str, str]]:
        """The balanced columns and what the notes call them."""
        return [(name, f"group_{number}") for number, name in enumerate(self.by)]


_DECISIONS = {"shard": pl.UInt32, "row": pl.UInt32, "copies": pl.UInt32, "score": pl.Float64}


class DomainMixture(Mixture):
    """Fixed weights: groups get the wanted shares of the bytes.

    The shares are kept exactly. Without repetition the total is the largest the scarcest group allows; with
    it scarce groups are repeated, and the total is that of the input or what `max_repeats` allows, if that is
    less. Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", section 5, find up to four
    epochs nearly as good as new data. A note names the group that costs more than half.

    Args:
        weights: Group to weight; only their proportions matter. 0 removes a group. With several columns
            either by their values joined, ``{docs/en: 3, docs/de: 1}``, or weights for each column,
            ``{domain: {docs: 3, code: 1}, language: {en: 2, de: 1}}``: the first column's shares are then
            exact, and each of them is divided by the next column's weights among the values found there.
        max_repeats: Copies of a document at most; 1 never repeats.
        seed: Chooses which documents go or are repeated once more.
        by: Column that is balanced, or several.
    """

    def __init__(
        self,
        weights: Mapping[str, float | Mapping[str, float]],
        max_repeats: Annotated[int, Field(ge=1)] = 1,
        seed: int = 0,
        by: str | list[str] = "domain",
    ) -> None:
        self.check_arguments(weights, by)
        super().__init__(by, max_repeats, seed)
        # a year is a number in a config
        self.weights = {
            str(name): {str(own): one for own, one in weight.items()}
            if isinstance(weight, Mapping)
            else weight
            for name, weight in weights.items()
        }

    @staticmethod
    def check_arguments(weights: Mapping[str, object], by: str | list[str] = "domain") -> None:
        """Weights are numbers from 0, and not all 0; or such weights for each column.

        Raises:
            ConfigError: they are not. Key `weights`.
        """
        columns = _columns(by)
        if not any(isinstance(weight, Mapping) for weight in weights.values()):
            check_weights(weights, "weights")
            return
        if set(weights) != set(columns):
            mend = f"weights for each column need the columns of by: {', '.join(columns)}"
            raise ConfigError("weights", ", ".join(weights), mend)
        for name, inner in weights.items():
            if not isinstance(inner, Mapping):
                raise ConfigError(f"weights.{name}", inner, "must be weights, as those of the other columns")
            check_weights(inner, f"weights.{name}")

    def targets(self, n_bytes: Mapping[Group, int]) -> dict[Group, float]:
        """The wanted shares of the largest total there is.

        Raises:
            ConfigError: a group of the corpus has no weight, or a weight no group. Key `weights`.
        """
        nested = {name: one for name, one in self.weights.items() if isinstance(one, Mapping)}
        flat = {name: one for name, one in self.weights.items() if not isinstance(one, Mapping)}
        shares = self._divided(list(n_bytes), nested) if nested else shares_of(flat, list(n_bytes), "weights")
        return scaled(shares, n_bytes, self.max_repeats)

    def _divided(
        self, groups: Sequence[Group], weights: Mapping[str, Mapping[str, float]]
    ) -> dict[Group, float]:
        """Shares by the weights of each column in turn."""
        shares: dict[Group, float] = {(): 1.0}
        for place, name in enumerate(self.by):
            here = weights[name]
            shares_of(here, [(value,) for value in sorted({g[place] for g in groups})], f"weights.{name}")
            divided: dict[Group, float] = {}
            for before, share in shares.items():
                values = sorted({g[place] for g in groups if g[:place] == before})
                whole = sum(here[value] for value in values)
                if share and not whole:
                    mend = f"all are 0 that occur in {label(before)}: {', '.join(values)}"
                    raise ConfigError(f"weights.{name}", dict(here), mend)
                divided |= {(*before, v): share * here[v] / whole if share else 0.0 for v in values}
            shares = divided
        return shares


def label(group: Group) -> str:
    """How a group is written in a config: ``docs/en``."""
    return "/".join(group)


def scaled(
    shares: Mapping[Group, float], n_bytes: Mapping[Group, int], max_repeats: int
) -> dict[Group, float]:
    """Bytes by group: these shares of the largest total that `max_repeats` passes over each group allow.

    With repetition the total is not more than the corpus has.
    """
    limits = [max_repeats * n_bytes[group] / share for group, share in shares.items() if share > 0]
    total = min([*limits, sum(n_bytes.values())] if max_repeats > 1 else limits)
    return {group: share * total for group, share in shares.items()}


def capped(
    shares: Mapping[Group, float], n_bytes: Mapping[Group, int], max_repeats: int
) -> dict[Group, float]:
    """Bytes by group: the corpus's size by these shares, but no group more than `max_repeats` passes over it.

    What scarce groups cannot fill goes to the others, in proportion to their shares. Without repetition that
    would be the corpus as it is, so then the shares are kept and the total is smaller, as `scaled` has it.
    """
    if max_repeats == 1:
        return scaled(shares, n_bytes, max_repeats)
    wanted = [group for group, share in shares.items() if share > 0]
    wanted.sort(key=lambda group: n_bytes[group] / shares[group])  # the scarcest first
    open_shares = list(accumulate(shares[group] for group in reversed(wanted)))[::-1]
    found, left = dict.fromkeys(shares, 0.0), float(sum(n_bytes.values()))
    for group, whole in zip(wanted, open_shares, strict=True):
        found[group] = min(left * shares[group] / whole, max_repeats * n_bytes[group])
        left -= found[group]
    return found


def shares_of(weights: Mapping[str, float], groups: Sequence[Group], key: str) -> dict[Group, float]:
    """Weights by label as shares by group.

    Raises:
        ConfigError: a group has no weight, or a weight no group. Key `key`.
    """
    labels = [label(group) for group in groups]
    for name in labels:
        if name not in weights:
            mend = f"lacks the group {name!r}; give it one, typed with + before the key (0 removes it)"
            raise ConfigError(key, dict(weights), mend)
    for name in weights:
        if name not in labels:
            mend = f"is no group of the corpus; it has {', '.join(labels)}"
            raise ConfigError(f"{key}.{name}", weights[name], mend)
    whole = sum(weights.values())
    return {group: weights[label(group)] / whole for group in groups}


def _columns(by: str | Sequence[str]) -> list[str]:
    columns = [by] if isinstance(by, str) else list(by)
    if not columns or len(set(columns)) < len(columns):
        raise ConfigError("by", list(by), "must be a column, or several that differ")
    return columns
