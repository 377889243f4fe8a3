"""Softmax attention with as many key and value heads as the model asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from llm.models.base import Mask, Norm, Rotate, Sizes
from llm.models.cache import ContextCache, LayerCache
from llm.models.masks import DocumentBlocks

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
FLEX_HEAD_DIM = 16
"""The narrowest head that FlexAttention's kernel takes."""


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention, causal unless in an encoder or attending to a `context`.

    Vaswani et al. 2017, section 3.2. With ``n_kv_heads < n_heads`` several query heads share a key and
    value head: grouped-query attention (Ainslie et al. 2023, section 2.2), multi-query when it is 1.

    One matrix makes queries, keys and values. Its rows are ordered by key-value head, each group holding
    the group's query heads, then its key, then its value, `head_dim` rows each:

        q0 q1 k0 v0 | q2 q3 k1 v1        (n_heads=4, n_kv_heads=2)

    so a split of the rows into equal parts (tensor parallelism) keeps groups whole.

    Args:
        sizes: of the model.
        rotate: turns queries and keys by their places.
        window: a token looks at itself and the ``window - 1`` before it (Beltagy et al. 2020, "Longformer",
            section 3.1; Jiang et al. 2023, "Mistral 7B", section 2); None for all before it.
        full_every: with a `window`, every so many layers see everything (Gemma 2, section 2).
        qk_norm: normalises queries and keys, before they are turned (Henry et al. 2020, "Query-Key
            Normalization"); called like the model's norm.
        qk_norm_over: ``head``, each head by itself with one common scale (Qwen 3), or ``all`` heads together
            (OLMo 2, section 3).
        soft_cap: scores s become ``soft_cap * tanh(s / soft_cap)`` (Gemma 2, section 2).
        scale: multiplies the scores; None for one over the root of the width of a head (of the base's head,
            where the model's parametrization has one: see `Sizes.base_head_dim`).
        sinks: each head has a learned score for attending to nothing (GPT-OSS; Xiao et al. 2023, arXiv
            2309.17453, section 3.3, "zero sink").
        qkv_bias: whether queries, keys and values have biases; None as the model's `bias`.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        rotate: Rotate,
        window: Count | None = None,
        full_every: Count | None = None,
        qk_norm: Norm | None = None,
        qk_norm_over: Literal["head", "all"] = "head",
        soft_cap: Positive | None = None,
        scale: Positive | None = None,
        sinks: bool = False,
        qkv_bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = sizes.head_dim
        self.n_heads = sizes.n_heads
        self.queries_per_kv = sizes.n_heads // sizes.n_kv_heads
        self.dropout = sizes.dropout
        self.causal = sizes.causal
        self.rotate = rotate
        self.window = None if full_every and (sizes.layer + 1) % full_every == 0 else window
        self.soft_cap = soft_cap
        self.scale = (scale or 1 / math.sqrt(sizes.base_head_dim)) * (sizes.base_head_dim / self.head_dim)
        self.sinks = nn.Parameter(torch.zeros(self.n_heads)) if sinks else None
        width = (sizes.n_heads + 2 * sizes.n_kv_heads) * self.head_dim
        self.qkv = nn.Linear(sizes.d_model, width, bias=sizes.bias if qkv_bias is None else qkv_bias)
        self.out = nn.Linear(sizes.n_heads * self.head_dim, sizes.d_model, bias=sizes.bias)
        self.q_norm: nn.Module | None = None
        self.k_norm: nn.Module | None = None
        self.norm_dims = 1 if qk_norm_over == "head" else 2
        if qk_norm is not None:
            each = qk_norm_over == "head"
            self.q_norm = qk_norm(self.head_dim * (1 if each else sizes.n_heads), bias=False)
            self.k_norm = qk_norm(self.head_dim * (1 if each else sizes.n_kv_heads), bias=False)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        positions: Int[Tensor, "#B T"],
        mask: Mask | DocumentBlocks | None,
        cache: LayerCache | ContextCache | None = None,
        context: Float[Tensor, "B C D"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """See `llm.models.base.Attention`. With a `context`, keys and values come from it, unrotated."""
        if isinstance(mask, DocumentBlocks):
            mixed = mask.attend(
                *self._self_qkv(x, positions), scale=self.scale, window=self.window, soft_cap=self.soft_cap
            )
        elif context is None:
            q, k, v = self._self_qkv(x, positions)
            if isinstance(cache, LayerCache):
                k, v = cache.append(k, v, window=self.window)
                mask = cache.visible(mask)
            mask = within_window(mask, q.shape[-2], k.shape[-2], self.window, x.device, causal=self.causal)
            # A single new token sees all that is cached; the flag would hide all but the first.
            mixed = self._mixed(q, k, v, mask, is_causal=mask is None and self.causal and q.shape[-2] > 1)
        else:
            assert not isinstance(cache, LayerCache)
            mixed = self._mixed(*self._cross_qkv(x, context, cache), mask, is_causal=False)
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y

    @property
    def block_masks(self) -> bool:
        """Whether `DocumentBlocks` will do: torch's kernel drops no weights, has no sinks, wants wide heads.

        A subclass that mixes in its own way has to say so itself.
        """
        drops = self.dropout > 0 and self.training
        fits = self.sinks is None and not drops and self.head_dim >= FLEX_HEAD_DIM
        return fits and type(self).forward is MultiHeadAttention.forward

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, *, is_causal: bool) -> Tensor:
        """Values, weighted by how queries and keys match, as [B, H, T, head_dim]."""
        if self.soft_cap is not None or self.sinks is not None:
            return self._written_out(q, k, v, mask, is_causal)
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask if mask is None or mask.dtype == torch.bool else mask.to(q.dtype),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
            scale=self.scale,
            enable_gqa=self.queries_per_kv > 1,
        )

    def _self_qkv(
        self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values as [B, heads, T, head_dim], in the order of the matrix's groups."""
        n, rows = self.queries_per_kv, x.shape[:2]
        # Head counts are read off the result (-1), so that a rank holding some of the groups works too.
        groups = self.qkv(x).view(*rows, -1, n + 2, self.head_dim)
        if self.q_norm is not None:
            groups = self._normalised(groups)
        # One rotation for queries and keys together, as [B, T, groups * (n + 1), head_dim].
        qk = self.rotate(groups[..., : n + 1, :].flatten(2, 3), positions)
        qk = qk.view(*rows, -1, n + 1, self.head_dim)
        q, k, v = qk[..., :n, :].flatten(2, 3), qk[..., n, :], groups[..., n + 1, :]
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def _normalised(self, groups: Float[Tensor, "B T G N d"]) -> Float[Tensor, "B T G N d"]:
        """Queries and keys normalised, values left alone."""
        assert self.q_norm is not None
        assert self.k_norm is not None
        q, k, v = torch.split(groups, [self.queries_per_kv, 1, 1], 3)
        if self.norm_dims == 1:
            return torch.cat((self.q_norm(q), self.k_norm(k), v), 3)
        return torch.cat((_together(self.q_norm, q), _together(self.k_norm, k), v), 3)

    def _cross_qkv(
        self, x: Float[Tensor, "B T D"], context: Float[Tensor, "B C D"], cache: ContextCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of `x`, keys and values of `context`: of the cache, once they are in it."""
        n = self.queries_per_kv

        def heads(source: Tensor) -> Tensor:
            mixed: Tensor = self.qkv(source).view(*source.shape[:2], -1, n + 2, self.head_dim)
            return mixed if self.q_norm is None else self._normalised(mixed)

        def looked_up() -> tuple[Tensor, ...]:
            made = heads(context)
            return made[..., n, :].transpose(1, 2), made[..., n + 1, :].transpose(1, 2)

        q = heads(x)[..., :n, :].flatten(2, 3).transpose(1, 2)
        k, v = looked_up() if cache is None else cache.once(looked_up)
        return q, k, v

    def _written_out(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, is_causal: bool) -> Tensor:
        """The same sum in single steps, for scores that torch's kernel does not know: [B, H, T, head_dim]."""
        if self.queries_per_kv > 1:
            k, v = (t.repeat_interleave(self.queries_per_kv, 1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) * self.scale
        if self.soft_cap is not None:
            scores = self.soft_cap * torch.tanh(scores / self.soft_cap)
        if is_causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        if self.sinks is not None:
            nothing = self.sinks.to(scores.dtype)[:, None, None].expand(*scores.shape[:-1], 1)
            scores = torch.cat((scores, nothing), -1)
        weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)[..., : k.shape[-2]]
        return F.dropout(weights, self.dropout, self.training) @ v

    def init_weights(self, generator: torch.Generator) -> None:  # noqa: ARG002
        """Sinks start at a score of zero."""
        if self.sinks is not None:
            nn.init.zeros_(self.sinks)

    def parallel_plan(self) -> Mapping[str, str]:
        """Heads are split over ranks; `out` joins them."""
        return {"qkv": "column", "out": "row"}

    def mixing_flops(self, context_tokens: float) -> float:
        """A dot product and a weighted sum per head and attended token: ``4 * n_heads * head_dim``."""
        seen = context_tokens if self.window is None else min(context_tokens, self.window)
        return 4.0 * seen * self.n_heads * self.head_dim


def within_window(
    mask: Mask | None,
    n_queries: int,
    n_keys: int,
    window: int | None,
    device: torch.device,
    *,
    causal: bool = True,
) -> Mask | None:
    """`mask`, and nothing further off than `window` tokens; a plain causal mask when it is None.

    Without `causal`, as in an encoder, what lies ahead is as near as what lies behind.
    """
    if window is None or n_keys <= window:
        return mask
    columns = torch.arange(n_keys, device=device)
    rows = columns[n_keys - n_queries :, None]
    near = columns > rows - window
    if not causal:
        near &= columns < rows + window
    if mask is None:
        return (near & (columns <= rows) if causal else near)[None, None]
    return mask & near if mask.dtype == torch.bool else mask.masked_fill(~near, -torch.inf)


def _together(norm: nn.Module, heads: Float[Tensor, "B T G N d"]) -> Float[Tensor, "B T G N d"]:
    """All heads normalised as one vector."""
    normed: Tensor = norm(heads.flatten(2))
    return normed.view_as(heads)
