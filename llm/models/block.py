"""One layer of a transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llm.models.base import Attention, FeedForward, Mask
from llm.models.masks import DocumentBlocks

Placement = Literal["pre", "post", "output", "sandwich"]


class Block(nn.Module):
    """Attention, then feed-forward, each added to the stream x. Where the norms stand:

    ========  ==========================  ====================================================
    pre       ``x + f(norm(x))``          GPT-2 (Radford et al. 2019, section 2.3), LLaMA
    post      ``norm(x + f(x))``          Vaswani et al. 2017, section 3.1
    output    ``x + norm(f(x))``          OLMo 2 (OLMo team 2025, section 3.1)
    sandwich  ``x + norm(f(norm(x)))``    Ding et al. 2021, "CogView", section 2.4; Gemma 2
    ========  ==========================  ====================================================

    With `parallel` both parts read the same x (Wang, Komatsuzaki 2021; GPT-NeoX, Black et al. 2022, section
    2.1). Between attention and feed-forward a decoder that reads an encoder's output has `cross_attention`
    (Vaswani et al. 2017, section 3.1). What any part returns is dropped with probability `dropout` while
    training.
    """

    attention: Attention
    cross_attention: Attention | None
    feed_forward: FeedForward

    def __init__(
        self,
        *,
        attention: Attention,
        feed_forward: FeedForward,
        norm: Callable[[], nn.Module],
        cross_attention: Attention | None = None,
        placement: Placement = "pre",
        parallel: bool = False,
        dropout: float,
    ) -> None:
        super().__init__()
        assert cross_attention is None or not parallel, "no architecture has both"
        self.attention_norm = norm()
        self.attention = attention
        self.cross_attention_norm = norm() if cross_attention is not None else None
        self.cross_attention = cross_attention
        self.feed_forward_norm = norm()
        self.feed_forward = feed_forward
        sandwich = placement == "sandwich"
        self.attention_output_norm = norm() if sandwich else None
        self.cross_attention_output_norm = norm() if sandwich and cross_attention is not None else None
        self.feed_forward_output_norm = norm() if sandwich else None
        self.placement, self.parallel, self.dropout = placement, parallel, dropout

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        positions: Int[Tensor, "#B T"],
        mask: Mask | DocumentBlocks | None,
        cache: Any = None,
        context: Float[Tensor, "B C D"] | None = None,
        context_mask: Bool[Tensor, "#B 1 T C"] | None = None,
        context_cache: Any = None,
    ) -> Float[Tensor, "B T D"]:
        """The stream after this layer; arguments as in `llm.models.base.Attention`.

        `context` and what begins with it are for the cross-attention, the others for the attention.
        """

        def attend(x: Tensor) -> Tensor:
            return self.attention(x, positions=positions, mask=cast(Any, mask), cache=cache)

        mixed = self._result(attend, x, self.attention_norm, self.attention_output_norm)
        if self.parallel:
            return x + mixed + self._feed(x)
        x = self._joined(x, mixed, self.attention_norm)
        if self.cross_attention is not None and self.cross_attention_norm is not None:

            def look_up(x: Tensor) -> Tensor:
                assert self.cross_attention is not None
                return self.cross_attention(
                    x, positions=positions, mask=context_mask, cache=context_cache, context=context
                )

            norm = self.cross_attention_norm
            x = self._joined(x, self._result(look_up, x, norm, self.cross_attention_output_norm), norm)
        return self._joined(x, self._feed(x), self.feed_forward_norm)

    def _feed(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self._result(self.feed_forward, x, self.feed_forward_norm, self.feed_forward_output_norm)

    def _result(
        self, part: Callable[[Tensor], Tensor], x: Tensor, norm: nn.Module, output_norm: nn.Module | None
    ) -> Float[Tensor, "B T D"]:
        """What a part adds to the stream, with the norms before and behind it."""
        y = part(norm(x) if self.placement in ("pre", "sandwich") else x)
        if self.placement == "output":
            y = norm(y)
        if output_norm is not None:
            y = output_norm(y)
        return F.dropout(y, self.dropout, self.training) if self.dropout else y

    def _joined(self, x: Tensor, added: Tensor, norm: nn.Module) -> Float[Tensor, "B T D"]:
        joined: Tensor = x + added
        return norm(joined) if self.placement == "post" else joined
