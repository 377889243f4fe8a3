"""The feed-forward part of GPT and T5: two linear layers with an activation between."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from llm.models.activations import ACTIVATIONS, Activation
from llm.models.base import Sizes


class MLP(nn.Module):
    """``down(activation(up(x)))`` with an inner width of ``4 * d_model`` unless `d_ff` says otherwise.

    Vaswani et al. 2017, section 3.3 (relu); Radford et al. 2018, section 4.1 (gelu).
    """

    def __init__(self, sizes: Sizes, *, activation: Activation = "gelu_tanh") -> None:
        super().__init__()
        d_ff = sizes.d_ff or 4 * sizes.d_model
        self.activation = ACTIVATIONS[activation]
        self.up = nn.Linear(sizes.d_model, d_ff, bias=sizes.bias)
        self.down = nn.Linear(d_ff, sizes.d_model, bias=sizes.bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Each place by itself."""
        y: Tensor = self.down(self.activation(self.up(x)))
        return y

    def parallel_plan(self) -> Mapping[str, str]:
        """The inner width is split over ranks."""
        return {"up": "column", "down": "row"}
