"""Normalisation of the residual stream."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Zero mean and unit variance, then a learned scale (and shift).

    Ba, Kiros, Hinton 2016, "Layer Normalization", section 3.
    """

    def __init__(self, d_model: int, *, bias: bool, eps: Annotated[float, Field(gt=0)] = 1e-5) -> None:
        super().__init__(d_model, eps=eps, bias=bias)

    def init_weights(self, generator: torch.Generator) -> None:  # noqa: ARG002
        """Sets the scale to one and the shift to zero."""
        self.reset_parameters()


class RMSNorm(nn.Module):
    """Unit root mean square, then a learned scale; it has no shift, whatever `bias` says.

    Zhang, Sennrich 2019, "Root Mean Square Layer Normalization", equation 4. The statistics are taken in
    float32 at least, and rounded before the scale, as the released LLaMA code does. With `centred` the scale
    is ``1 + weight``, so that weight decay pulls it to one, and rounding comes last (Gemma's released code).
    """

    def __init__(
        self,
        d_model: int,
        *,
        bias: bool = False,  # noqa: ARG002
        eps: Annotated[float, Field(gt=0)] = 1e-5,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.eps, self.centred = eps, centred
        self.weight = nn.Parameter(torch.zeros(d_model) if centred else torch.ones(d_model))

    def forward(self, x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """Normalises the last dim."""
        # On a CPU torch's own rms_norm is not fused, and slower than these four operations.
        if x.is_cuda and not self.centred:
            return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)
        exact = x.float()
        exact = exact * torch.rsqrt((exact * exact).mean(-1, keepdim=True) + self.eps)
        if self.centred:
            return (exact * (1.0 + self.weight.float())).type_as(x)
        return exact.type_as(x) * self.weight

    def init_weights(self, generator: torch.Generator) -> None:  # noqa: ARG002
        """Sets the scale to one."""
        nn.init.constant_(self.weight, 0.0 if self.centred else 1.0)
