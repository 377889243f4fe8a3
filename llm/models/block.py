"""One layer of a transformer."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llm.models.base import Attention, FeedForward


class Block(nn.Module):
    """Attention, then feed-forward, each on a normalised copy of the stream and added back to it.

    Pre-normalisation as in GPT-2 (Radford et al. 2019, section 2.3) and LLaMA. What either part returns is
    dropped with probability `dropout` while training.
    """

    attention: Attention
    feed_forward: FeedForward

    def __init__(
        self,
        *,
        attention: Attention,
        feed_forward: FeedForward,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward = feed_forward
        self.dropout = dropout

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        positions: Int[Tensor, "#B T"],
        mask: Bool[Tensor, "#B 1 T S"] | None,
        cache: Any = None,
    ) -> Float[Tensor, "B T D"]:
        """The stream after this layer; arguments as in `llm.models.base.Attention`."""
        mixed = self.attention(self.attention_norm(x), positions=positions, mask=mask, cache=cache)
        x = x + self._drop(mixed)
        return x + self._drop(self.feed_forward(self.feed_forward_norm(x)))

    def _drop(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x
