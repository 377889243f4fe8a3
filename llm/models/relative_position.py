"""Scores that depend on how far apart two tokens are, in learned steps: T5's positions."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from llm.models.base import Sizes
from llm.models.positions import NoPosition
from llm.types import ConfigError


class T5Buckets(NoPosition):
    """Each head has a learned number for each bucket of distances, added to its scores.

    Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.1, with the constants of the
    released code. Half of the buckets are for single distances, the others grow geometrically up to
    `max_distance`; what is further off shares the last. A decoder has all of them for the tokens before, an
    encoder half of them for each direction::

        distance   0  1  2  3  4  5  6  7  8  9 10 11 12 13 ...       n_buckets=8, max_distance=16
        bucket     0  1  2  3  4  4  5  5  6  6  6  6  7  7 ...

    All layers of a stack share the numbers.

    Args:
        sizes: of the model; `causal` tells a decoder from an encoder.
        n_buckets: numbers a head has.
        max_distance: from which on all distances are one.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        n_buckets: Annotated[int, Field(ge=4)] = 32,
        max_distance: Annotated[int, Field(gt=0)] = 128,
    ) -> None:
        super().__init__(sizes)
        self.check_arguments(n_buckets=n_buckets, max_distance=max_distance)
        self.n_buckets, self.max_distance, self.causal = n_buckets, max_distance, sizes.causal
        self.table = nn.Embedding(n_buckets, sizes.n_heads)

    @staticmethod
    def check_arguments(*, n_buckets: int, max_distance: int) -> None:
        """Refuses buckets that cannot be shared by two directions, and a distance below the single ones."""
        if n_buckets % 2:
            raise ConfigError("n_buckets", n_buckets, "an encoder halves them; make it even")
        if max_distance <= n_buckets // 2:
            mend = f"n_buckets={n_buckets} already tell the distances up to {n_buckets // 2} apart; give more"
            raise ConfigError("max_distance", max_distance, mend)

    def bias(self, n_past: int, n_new: int, device: torch.device) -> Float[Tensor, "H T S"]:
        """The heads' numbers of each pair's bucket."""
        columns = torch.arange(n_past + n_new, device=device)
        buckets = self.buckets(columns[n_past:, None] - columns)
        found: Tensor = self.table(buckets)
        return found.permute(2, 0, 1)

    def buckets(self, distances: Int[Tensor, "T S"]) -> Int[Tensor, "T S"]:
        """The bucket of each distance: query's place minus key's, negative for keys ahead."""
        first, n = torch.zeros_like(distances), self.n_buckets
        if self.causal:
            distances = distances.clamp(min=0)
        else:
            n //= 2
            first = (distances < 0).long() * n
            distances = distances.abs()
        single = n // 2
        steps = torch.log(distances.clamp(min=1).float() / single) / math.log(self.max_distance / single)
        wide = (single + (steps * (n - single)).long()).clamp(max=n - 1)
        return first + torch.where(distances < single, distances, wide)
