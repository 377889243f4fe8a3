"""Which documents are held out for validation."""

from __future__ import annotations

from typing import Annotated

import polars as pl
from pydantic import Field

from llm.curation.base import order_key
from llm.types import ConfigError


class HashSplit:
    """Holds out a fraction by the hash of what belongs together, so it never depends on order or size.

    Documents with a `group` go to one side as a whole; without one every document stands for itself. Groups
    are taken in the order of their hash until the fraction is reached, and a group larger than a quarter of
    the target is left in training, so that no single one decides what validation measures.
    """

    def __init__(
        self, validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05, seed: int = 0
    ) -> None:
        if not 0 < validation_fraction < 1:
            raise ConfigError(
                "validation_fraction", validation_fraction, "must lie between 0 and 1, e.g. 0.05"
            )
        self.validation_fraction = validation_fraction
        self.seed = seed

    def held_out(self, documents: pl.DataFrame) -> pl.Series:
        """True for each row that belongs to validation.

        Args:
            documents: Columns id and perhaps group.
        """
        if "group" not in documents.columns:
            limit = int(self.validation_fraction * 2**63)
            held = [order_key(self.seed, "split", one) < limit for one in documents["id"]]
            if len(held) > 1 and (all(held) or not any(held)):
                # too few documents for chance to hold out one (and leave one): take the least hash
                least = min(range(len(held)), key=lambda i: order_key(self.seed, "split", documents["id"][i]))
                held = [i == least for i in range(len(held))]
            return pl.Series(held, dtype=pl.Boolean)
        weighed = documents.group_by("group").len().sort("group")
        target = self.validation_fraction * documents.height
        sizes = dict(zip(weighed["group"], weighed["len"], strict=True))
        chosen: set[str] = set()
        taken = 0
        for group in sorted(sizes, key=lambda name: (order_key(self.seed, "split", name), name)):
            if sizes[group] <= max(1.0, target / 4) and taken + sizes[group] <= target * 1.05:
                chosen.add(group)
                taken += sizes[group]
        return documents["group"].is_in(sorted(chosen))
