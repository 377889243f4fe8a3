"""QLoRA: LoRA beside a base in four bits (Dettmers et al. 2023, arXiv 2305.14314)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from llm.models.adapters.base import Linear
from llm.models.adapters.lora import Alpha, Dropout, LoRALinear, Rank, Seed
from llm.models.adapters.nf4 import NF4Linear
from llm.models.adapters.targets import chosen, frozen, replaced


def qlora(
    model: nn.Module,
    *,
    rank: Rank = 16,
    alpha: Alpha = 32.0,
    rank_stabilised: bool = False,
    dropout: Dropout = 0.0,
    targets: Sequence[str] = ("*",),
    quantised: Sequence[str] = ("*",),
    block_size: Annotated[int, Field(gt=0, multiple_of=2)] = 64,
    double_quantisation: bool = True,
    seed: Seed = 0,
) -> nn.Module:
    """Quantises linear layers to four bits, puts a `LoRALinear` around each target, freezes everything else.

    Args:
        model: as for `llm.models.adapters.lora.lora`, and so are the arguments not named here.
        rank: of each update.
        alpha: strength.
        rank_stabilised: whether ``alpha / sqrt(rank)`` counts in place of ``alpha / rank``.
        dropout: of what the update reads.
        targets: linear layers with an update.
        quantised: linear layers in four bits, named in the same way; both may name the same.
        block_size: numbers that share a scale.
        double_quantisation: whether the scales are kept in eight bits.
        seed: of the first weights.

    Raises:
        ConfigError: a target, or a name in `quantised`, names no layer.
    """
    base = frozen(model)
    adapted, narrow = chosen(base, targets), chosen(base, quantised, key="quantised")

    def in_four_bits(layer: Linear, _: torch.Generator) -> NF4Linear:
        return NF4Linear(layer, block_size=block_size, double_quantisation=double_quantisation)

    def with_update(layer: Linear, generator: torch.Generator) -> LoRALinear:
        return LoRALinear(
            layer,
            rank=rank,
            alpha=alpha,
            rank_stabilised=rank_stabilised,
            dropout=dropout,
            generator=generator,
        )

    return replaced(replaced(base, narrow, in_four_bits, seed=seed), adapted, with_update, seed=seed)
