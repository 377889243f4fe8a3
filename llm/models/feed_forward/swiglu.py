"""The feed-forward part of LLaMA: a gated linear unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from llm.models.base import Sizes


class SwiGLUFeedForward(nn.Module):
    """``down(silu(gate(x)) * up(x))``.

    Shazeer 2020, "GLU Variants Improve Transformer", equation 6. The inner width is 8/3 of `d_model`, so
    that three matrices weigh what GPT's two do, rounded up to a multiple (Touvron et al. 2023, section 2.2;
    the released code rounds to 256).
    """

    def __init__(self, sizes: Sizes, *, multiple_of: Annotated[int, Field(gt=0)] = 32) -> None:
        super().__init__()
        d_ff = sizes.d_ff or -(-8 * sizes.d_model // (3 * multiple_of)) * multiple_of
        self.gate = nn.Linear(sizes.d_model, d_ff, bias=sizes.bias)
        self.up = nn.Linear(sizes.d_model, d_ff, bias=sizes.bias)
        self.down = nn.Linear(d_ff, sizes.d_model, bias=sizes.bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Each place by itself."""
        y: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return y

    def parallel_plan(self) -> Mapping[str, str]:
        """The inner width is split over ranks."""
        return {"gate": "column", "up": "column", "down": "row"}
