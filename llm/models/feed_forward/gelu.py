"""The feed-forward part of GPT: two linear layers with a GELU between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llm.models.base import Sizes


class GeluFeedForward(nn.Module):
    """``down(gelu(up(x)))`` with an inner width of ``4 * d_model`` unless `d_ff` says otherwise.

    Radford et al. 2018, section 4.1; Hendrycks, Gimpel 2016, section 2. `approximate` is ``tanh`` in GPT-2
    and ``none`` (the exact error function) in nanoGPT.
    """

    def __init__(self, sizes: Sizes, *, approximate: Literal["tanh", "none"] = "tanh") -> None:
        super().__init__()
        d_ff = sizes.d_ff or 4 * sizes.d_model
        self.approximate = approximate
        self.up = nn.Linear(sizes.d_model, d_ff, bias=sizes.bias)
        self.down = nn.Linear(d_ff, sizes.d_model, bias=sizes.bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Each place by itself."""
        y: Tensor = self.down(F.gelu(self.up(x), approximate=self.approximate))
        return y

    def parallel_plan(self) -> Mapping[str, str]:
        """The inner width is split over ranks."""
        return {"up": "column", "down": "row"}
