"""Weights over domains: which share of the training bytes each one gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.curation.base import order_key
from llm.types import ConfigError


class DomainMixture:
    """Down-samples, or repeats, documents until domains have the wanted shares of the UTF-8 bytes.

    Without repetition the total is the largest the scarcest domain allows. With it the total stays that of
    the input and scarce domains are repeated, up to a limit: Muennighoff et al. 2023, "Scaling
    Data-Constrained Language Models", section 5, find up to four epochs nearly as good as new data.

    Args:
        weights: Domain to weight; only their proportions matter. 0 removes a domain.
        max_repeats: Copies of a document at most; 1 never repeats.
        seed: Chooses which documents go or are repeated once more.
    """

    def __init__(
        self, weights: Mapping[str, float], max_repeats: Annotated[int, Field(ge=1)] = 1, seed: int = 0
    ) -> None:
        self.check_arguments(weights)
        self.weights, self.max_repeats, self.seed = dict(weights), max_repeats, seed

    @staticmethod
    def check_arguments(weights: Mapping[str, float]) -> None:
        """Weights are numbers from 0, and not all 0.

        Raises:
            ConfigError: they are not. Key `weights`.
        """
        for domain, weight in weights.items():
            if (
                isinstance(weight, bool)
                or not isinstance(weight, (int, float))
                or not 0 <= weight < float("inf")
            ):
                raise ConfigError(f"weights.{domain}", weight, "must be a number, 0 or more")
        if not any(weights.values()):
            raise ConfigError("weights", dict(weights), "needs at least one domain above 0")

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """Adds `copies` beside the usual columns: how often a kept document stands in the result.

        Raises:
            ConfigError: a domain of the corpus has no weight, or a weight no domain. Key `weights`.
        """
        frame = documents.collect()
        sizes = (
            frame.group_by("domain").agg(pl.col("text").str.len_bytes().sum().alias("bytes")).sort("domain")
        )
        n_bytes = {domain: max(1, size) for domain, size in sizes.iter_rows()}
        targets = self._targets(n_bytes)
        order = [order_key(self.seed, "mixture", one) for one in frame["id"]]
        ranked = (
            frame.with_row_index("_row")
            .with_columns(pl.Series("_order", order, pl.Int64), pl.col("text").str.len_bytes().alias("_size"))
            .sort("_order", "id")
            .with_columns(
                pl.col("domain").replace_strict(targets, return_dtype=pl.Float64).alias("_target"),
                pl.col("domain").replace_strict(n_bytes, return_dtype=pl.Float64).alias("_domain_bytes"),
                pl.col("_size").cum_sum().over("domain").alias("_until"),
            )
            # whole passes over the domain, and one more for the first documents of its order
            .with_columns((pl.col("_target") / pl.col("_domain_bytes")).floor().alias("_passes"))
            .with_columns((pl.col("_target") - pl.col("_passes") * pl.col("_domain_bytes")).alias("_rest"))
            .with_columns(
                (pl.col("_passes") + (pl.col("_until") <= pl.col("_rest") + 1e-6).cast(pl.Float64))
                .cast(pl.Int64)
                .clip(0, self.max_repeats)
                .alias("copies")
            )
            .sort("_row")
        )
        copies = pl.col("copies")
        return (
            ranked.lazy()
            .with_columns(
                (copies > 0).alias("keep"),
                pl.when(copies == 0)
                .then(pl.lit("down_sampled"))
                .when(copies > 1)
                .then(pl.lit("repeated"))
                .alias("reason"),
                (pl.col("_target") / pl.col("_domain_bytes")).alias("score"),
                pl.lit(None, pl.String).alias("match"),
            )
            .drop("_row", "_order", "_size", "_target", "_domain_bytes", "_until", "_passes", "_rest")
        )

    def _targets(self, n_bytes: Mapping[str, int]) -> dict[str, float]:
        """Bytes each domain should end with."""
        for domain in n_bytes:
            if domain not in self.weights:
                raise ConfigError(
                    "weights", self.weights, f"lacks the domain {domain!r}; give it one (0 removes it)"
                )
        for domain in self.weights:
            if domain not in n_bytes:
                mend = f"is not a domain of the corpus; it has {', '.join(n_bytes)}"
                raise ConfigError(f"weights.{domain}", self.weights[domain], mend)
        whole = sum(self.weights.values())
        shares = {domain: self.weights[domain] / whole for domain in n_bytes}
        limits = [self.max_repeats * n_bytes[d] / share for d, share in shares.items() if share > 0]
        total = min([*limits, sum(n_bytes.values())] if self.max_repeats > 1 else limits)
        return {domain: share * total for domain, share in shares.items()}
