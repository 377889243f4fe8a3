"""Attention whose keys and values come from a small common vector a token: multi-head latent attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from llm.models.base import Mask, Norm, Rotate, Sizes
from llm.models.cache import LayerCache
from llm.types import ConfigError

Count = Annotated[int, Field(gt=0)]


class LatentAttention(nn.Module):
    """Multi-head latent attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1; V3, section 2.1.1).

    Each token leaves a latent vector of `d_latent` numbers, from which all heads' keys and values are made,
    and one rotated key of `rotary_dim` numbers that all heads share; only these two are remembered. A query
    head is `plain_dim` numbers that are not turned and `rotary_dim` that are. The model's position must turn
    `rotary_dim` numbers: ``model.position.rotary_dim``.

    Args:
        sizes: of the model; `n_kv_heads` means nothing here.
        rotate: turns queries and keys by their places.
        norm: of the latent vectors, called like the model's.
        d_latent: width of what keys and values are made from.
        d_query_latent: width of what queries are made from; None makes them from the stream.
        plain_dim: width of the part of a query and key head that is not turned.
        rotary_dim: width of the part that is.
        value_dim: width of a value head.
        scale: multiplies the scores; None for one over the root of ``plain_dim + rotary_dim``.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        rotate: Rotate,
        norm: Norm,
        d_latent: Count = 512,
        d_query_latent: Count | None = 1536,
        plain_dim: Count = 128,
        rotary_dim: Count = 64,
        value_dim: Count = 128,
        scale: Annotated[float, Field(gt=0)] | None = None,
    ) -> None:
        super().__init__()
        self.check_arguments(rotary_dim=rotary_dim)
        if not sizes.causal:
            raise ConfigError("attention", "latent", "reads backwards only, so no encoder; take multi_head")
        self.n_heads, self.dropout, self.rotate = sizes.n_heads, sizes.dropout, rotate
        self.d_latent, self.plain_dim = d_latent, plain_dim
        self.rotary_dim, self.value_dim = rotary_dim, value_dim
        self.scale = scale or 1 / math.sqrt(plain_dim + rotary_dim)
        width = sizes.n_heads * (plain_dim + rotary_dim)
        self.query_down: nn.Linear | None = None
        self.query_norm: nn.Module | None = None
        if d_query_latent is not None:
            self.query_down = nn.Linear(sizes.d_model, d_query_latent, bias=sizes.bias)
            self.query_norm = norm(d_query_latent, bias=False)
        self.query = nn.Linear(d_query_latent or sizes.d_model, width, bias=False)
        self.latent = nn.Linear(sizes.d_model, d_latent + rotary_dim, bias=sizes.bias)
        self.latent_norm = norm(d_latent, bias=False)
        self.key_value = nn.Linear(d_latent, sizes.n_heads * (plain_dim + value_dim), bias=False)
        self.out = nn.Linear(sizes.n_heads * value_dim, sizes.d_model, bias=sizes.bias)

    @staticmethod
    def check_arguments(*, rotary_dim: int) -> None:
        """Refuses an odd number of turned numbers."""
        if rotary_dim % 2:
            raise ConfigError("rotary_dim", rotary_dim, "rotary positions turn pairs; make it even")

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        positions: Int[Tensor, "#B T"],
        mask: Mask | None,
        cache: LayerCache | None = None,
        context: Float[Tensor, "B C D"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """See `llm.models.base.Attention`; there is no latent attention to a `context`."""
        assert context is None, "latent attention reads its own stream only"
        source = x
        if self.query_down is not None and self.query_norm is not None:
            source = self.query_norm(self.query_down(x))
        q = self.query(source).unflatten(-1, (-1, self.plain_dim + self.rotary_dim))
        q_plain, q_turned = q.split([self.plain_dim, self.rotary_dim], -1)
        q_turned = self.rotate(q_turned, positions)

        latent, key = self.latent(x).split([self.d_latent, self.rotary_dim], -1)
        latent = self.latent_norm(latent)[:, None]
        key = self.rotate(key[:, :, None], positions).transpose(1, 2)  # [B, 1, T, rotary_dim]
        if cache is not None:
            latent, key = cache.append(latent, key)

        made = self.key_value(latent[:, 0]).unflatten(-1, (-1, self.plain_dim + self.value_dim))
        k_plain, v = made.transpose(1, 2).split([self.plain_dim, self.value_dim], -1)
        q = torch.cat((q_plain, q_turned), -1)
        k = torch.cat((k_plain, key.expand(-1, k_plain.shape[1], -1, -1)), -1)
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k,
            v,
            attn_mask=mask if mask is None or mask.dtype == torch.bool else mask.to(q.dtype),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and q.shape[1] > 1,
            scale=self.scale,
        )
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y

    def parallel_plan(self) -> Mapping[str, str]:
        """Heads are split over ranks; the latent vectors are whole on each."""
        return {"query": "column", "key_value": "column", "out": "row"}

    def mixing_flops(self, context_tokens: float) -> float:
        """A dot product of whole heads and a weighted sum of value heads per attended token."""
        width = self.plain_dim + self.rotary_dim + self.value_dim
        return 2.0 * context_tokens * self.n_heads * width
