"""LoRA: a product of two thin matrices beside each frozen one (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from llm.models.adapters.base import Linear, Replacement
from llm.models.adapters.merge import linear
from llm.models.adapters.targets import chosen, frozen, replaced

Rank = Annotated[int, Field(gt=0)]
Alpha = Annotated[float, Field(gt=0)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0)]


class LoRALinear(Replacement):
    """``base(x) + scaling * b(a(x))`` (Hu et al. 2021, section 4.1), where only a and b are trained.

    a starts uniform as torch's linear layers do, b at zero, so that training starts from the base.

    Args:
        base: the frozen layer.
        rank: rows of a and columns of b.
        alpha: `scaling` is alpha / rank ...
        rank_stabilised: ... or alpha / root of rank, which keeps gradients alike at any rank (rsLoRA:
            Kalajdzievski 2023, arXiv 2312.03732, theorem 3.2).
        dropout: probability of dropping a number that a reads, while training.
        generator: draws the first a.
    """

    def __init__(
        self,
        base: Linear,
        *,
        rank: int,
        alpha: float,
        rank_stabilised: bool,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.scaling = alpha / (math.sqrt(rank) if rank_stabilised else rank)
        self.dropout = dropout
        self.base = base
        # In float32 whatever the base is in: updates of a small learning rate vanish in narrower numbers.
        device = base.weight.device
        self.a = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.b = nn.Parameter(torch.empty(base.out_features, rank, device=device))
        self.init_weights(generator)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """The first a and b; drawn on the generator's device, the same wherever the layer is."""
        drawn = torch.empty(self.a.shape, device=generator.device)
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        self.a.copy_(drawn)
        self.b.zero_()

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """The layer's result, in the type of the base's."""
        y = self.base(x)
        return y + (self.scaling * self.low_rank(self.dropped(x))).to(y.dtype)

    def dropped(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B I"]:
        """What the thin matrices read."""
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def low_rank(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """``b(a(x))``."""
        return F.linear(F.linear(x.to(self.a.dtype), self.a), self.b)

    def sum(self) -> Float[Tensor, "O I"]:
        """The matrix of base and product together."""
        return self.base.weight + self.scaling * (self.b @ self.a)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """See `llm.models.adapters.base.Replacement`."""
        return linear(self.sum().to(self.base.weight.dtype), self.base.bias)


def lora(
    model: nn.Module,
    *,
    rank: Rank = 16,
    alpha: Alpha = 32.0,
    rank_stabilised: bool = False,
    dropout: Dropout = 0.0,
    targets: Sequence[str] = ("*",),
    seed: Seed = 0,
) -> nn.Module:
    """Puts a `LoRALinear` in the place of each target and freezes everything else.

    Args:
        model: with the weights to start from; its tensors are shared. Earlier adapters become part of them.
        rank: of each update.
        alpha: strength; the update is multiplied by ``alpha / rank``.
        rank_stabilised: multiplied by ``alpha / sqrt(rank)`` in place of that.
        dropout: of what the update reads, while training.
        targets: linear layers by name; see `llm.models.adapters.targets.chosen`. ``*`` is all in the blocks.
        seed: of the first weights.

    Raises:
        ConfigError: a target names no layer.
    """
    base = frozen(model)

    def make(layer: Linear, generator: torch.Generator) -> LoRALinear:
        return LoRALinear(
            layer,
            rank=rank,
            alpha=alpha,
            rank_stabilised=rank_stabilised,
            dropout=dropout,
            generator=generator,
        )

    return replaced(base, chosen(base, targets), make, seed=seed)
