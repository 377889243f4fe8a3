"""DoRA: LoRA for the direction of each row, and a number of its own for its length (Liu et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llm.models.adapters.base import Linear
from llm.models.adapters.lora import Alpha, Dropout, LoRALinear, Rank, Seed
from llm.models.adapters.merge import linear
from llm.models.adapters.targets import chosen, frozen, replaced


class DoRALinear(LoRALinear):
    """``magnitude * V x / |V|``, ``V = base + scaling * b a`` (arXiv 2402.09353, section 4.2, equation 5).

    ``|V|`` is the length of each row and counts as a constant in the gradient (section 4.3). With dropout,
    the base reads everything once, and what the update changes about it only what is not dropped, as in the
    authors' code. Arguments as `LoRALinear`.
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
        super().__init__(
            base,
            rank=rank,
            alpha=alpha,
            rank_stabilised=rank_stabilised,
            dropout=dropout,
            generator=generator,
        )
        lengths = torch.linalg.vector_norm(base.weight.detach().float(), dim=1)
        self.magnitude = nn.Parameter(lengths)

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """The layer's result, in the type of the base's."""
        y = self.base(x)
        gain = self.gain()
        dropped = self.dropped(x)
        update = self.low_rank(dropped)
        if dropped is x:
            plain = y if self.base.bias is None else y - self.base.bias
        else:
            plain = F.linear(dropped, self.base.weight.to(dropped.dtype))
        return y + ((gain - 1) * plain + gain * update * self.scaling).to(y.dtype)

    def gain(self) -> Float[Tensor, " O"]:
        """What each row is multiplied by."""
        with torch.no_grad(), torch.autocast(self.b.device.type, enabled=False):
            lengths = torch.linalg.vector_norm(self.sum().float(), dim=1)
        gain: Tensor = self.magnitude / lengths
        return gain

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """See `llm.models.adapters.base.Replacement`."""
        weight = self.gain()[:, None] * self.sum()
        return linear(weight.to(self.base.weight.dtype), self.base.bias)


def dora(
    model: nn.Module,
    *,
    rank: Rank = 16,
    alpha: Alpha = 32.0,
    rank_stabilised: bool = False,
    dropout: Dropout = 0.0,
    targets: Sequence[str] = ("*",),
    seed: Seed = 0,
) -> nn.Module:
    """Puts a `DoRALinear` in the place of each target and freezes everything else.

    Arguments and errors as `llm.models.adapters.lora.lora`.
    """
    base = frozen(model)

    def make(layer: Linear, generator: torch.Generator) -> DoRALinear:
        return DoRALinear(
            layer,
            rank=rank,
            alpha=alpha,
            rank_stabilised=rank_stabilised,
            dropout=dropout,
            generator=generator,
        )

    return replaced(base, chosen(base, targets), make, seed=seed)
