"""Weights in four bits: NormalFloat (Dettmers et al. 2023, "QLoRA", arXiv 2305.14314, section 3)."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from llm.models.adapters.base import Linear, Replacement
from llm.models.adapters.merge import linear

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The sixteen values (paper, appendix E): quantiles of a normal distribution, with an exact zero."""

SCALES_BLOCK = 256
"""Scales that share one second scale (paper, section 3, "double quantization")."""
_FLOAT8 = torch.float8_e4m3fn
_FLOAT8_MAX = torch.finfo(_FLOAT8).max


def encode(
    values: Float[Tensor, "*shape"], block_size: int
) -> tuple[UInt8[Tensor, " P"], Float[Tensor, " N"]]:
    """Numbers, blockwise divided by their largest, as the nearest of the sixteen.

    Returns:
        Two codes a byte, the first in the high half, and the largest absolute value of each block. The last
        block, and the last byte, are filled up with zeros.
    """
    flat = values.detach().float().flatten()
    blocks = F.pad(flat, (0, -len(flat) % block_size)).view(-1, block_size)
    scales = blocks.abs().amax(1)
    relative = blocks / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    levels = codebook(flat.device)
    codes = torch.bucketize(relative.flatten(), (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    return codes[0::2] << 4 | codes[1::2], scales


def decode(
    packed: UInt8[Tensor, " P"], scales: Float[Tensor, " N"], shape: tuple[int, ...]
) -> Float[Tensor, "*shape"]:
    """The numbers, in float32, that `encode` left."""
    codes = torch.stack((packed >> 4, packed & 15), -1)
    values = codebook(packed.device)[codes.int()].view(len(scales), -1) * scales[:, None]
    return values.flatten()[: math.prod(shape)].view(shape)


def encode_scales(
    scales: Float[Tensor, " N"],
) -> tuple[UInt8[Tensor, " N"], Float[Tensor, " M"], Float[Tensor, ""]]:
    """The scales themselves in eight-bit floats, less their mean: 0.127 bits a weight in place of 0.5.

    Returns:
        The bits of the floats, a scale for each `SCALES_BLOCK` of them, the mean.
    """
    mean = scales.mean()
    centred = F.pad(scales - mean, (0, -len(scales) % SCALES_BLOCK)).view(-1, SCALES_BLOCK)
    seconds = centred.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / _FLOAT8_MAX
    floats = (centred / seconds[:, None]).clamp(-_FLOAT8_MAX, _FLOAT8_MAX).to(_FLOAT8)
    return floats.view(torch.uint8).flatten()[: len(scales)], seconds, mean


def decode_scales(
    codes: UInt8[Tensor, " N"], seconds: Float[Tensor, " M"], mean: Float[Tensor, ""]
) -> Float[Tensor, " N"]:
    """The scales that `encode_scales` left."""
    floats = codes.view(_FLOAT8).float()
    return floats * seconds.repeat_interleave(SCALES_BLOCK)[: len(codes)] + mean


@functools.cache
def codebook(device: torch.device) -> Float[Tensor, " K"]:
    """`NF4` as a tensor."""
    return torch.tensor(NF4, device=device)


class NF4Linear(Replacement):
    """A frozen linear layer whose matrix is kept in four bits a number and decoded when it is needed.

    Args:
        base: the layer whose weights these are.
        block_size: numbers that share a scale.
        double_quantisation: whether the scales are kept in eight bits too.
    """

    packed: Tensor

    def __init__(self, base: Linear, *, block_size: int, double_quantisation: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.double_quantisation = double_quantisation
        self.dtype = base.weight.dtype
        packed, scales = encode(base.weight, block_size)
        self.register_buffer("packed", packed)
        if double_quantisation:
            codes, seconds, mean = encode_scales(scales)
            self.register_buffer("scale_codes", codes)
            self.register_buffer("scale_scales", seconds)
            self.register_buffer("scale_mean", mean)
        else:
            self.register_buffer("scales", scales)
        self.bias = base.bias

    @property
    def weight(self) -> Float[Tensor, "O I"]:
        """The matrix the codes stand for, made anew at each call, in the type the layer had."""
        parts: Any = self  # buffers
        scales = (
            decode_scales(parts.scale_codes, parts.scale_scales, parts.scale_mean)
            if self.double_quantisation
            else parts.scales
        )
        whole = decode(self.packed, scales, (self.out_features, self.in_features))
        return whole.to(self.dtype)

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """As a linear layer; the gradient goes to `x` alone."""
        y: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """See `llm.models.adapters.base.Replacement`."""
        return linear(self.weight, self.bias)


class _Product(torch.autograd.Function):
    """``x @ weight.T`` that decodes the weight again for the backward pass and keeps nothing of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: NF4Linear) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return F.linear(x, layer.weight.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        return (grad @ ctx.layer.weight.to(grad.dtype)).to(ctx.dtype), None
