"""The feed-forward part of LLaMA, Gemma and T5 v1.1: a gated linear unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from llm.models.activations import ACTIVATIONS, Activation
from llm.models.base import Sizes


class GatedMLP(nn.Module):
    """``down(activation(gate(x)) * up(x))``: SwiGLU with silu, GeGLU with gelu.

    Shazeer 2020, "GLU Variants Improve Transformer", equations 5 and 6. The inner width is 8/3 of `d_model`,
    so that three matrices weigh what GPT's two do, rounded up to a multiple (Touvron et al. 2023, section
    2.2; the released code rounds to 256).
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        activation: Activation = "silu",
        multiple_of: Annotated[int, Field(gt=0)] = 32,
    ) -> None:
        super().__init__()
        d_ff = sizes.d_ff or -(-8 * sizes.d_model // (3 * multiple_of)) * multiple_of
        self.activation = ACTIVATIONS[activation]
        self.gate = nn.Linear(sizes.d_model, d_ff, bias=sizes.bias)
        self.up = nn.Linear(sizes.d_model, d_ff, bias=sizes.bias)
        self.down = nn.Linear(d_ff, sizes.d_model, bias=sizes.bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Each place by itself."""
        y: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return y

    def parallel_plan(self) -> Mapping[str, str]:
        """The inner width is split over ranks."""
        return {"gate": "column", "up": "column", "down": "row"}
