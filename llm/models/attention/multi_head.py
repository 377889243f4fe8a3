"""Softmax attention with as many key and value heads as the model asks for."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llm.models.base import Rotate, Sizes
from llm.models.cache import LayerCache


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention, causal unless attending to a `context`.

    Vaswani et al. 2017, section 3.2. With ``n_kv_heads < n_heads`` several query heads share a key and
    value head: grouped-query attention (Ainslie et al. 2023, section 2.2), multi-query when it is 1.

    One matrix makes queries, keys and values. Its rows are ordered by key-value head, each group holding
    the group's query heads, then its key, then its value, `head_dim` rows each:

        q0 q1 k0 v0 | q2 q3 k1 v1        (n_heads=4, n_kv_heads=2)

    so a split of the rows into equal parts (tensor parallelism) keeps groups whole.
    """

    def __init__(self, sizes: Sizes, *, rotate: Rotate) -> None:
        super().__init__()
        self.head_dim = sizes.head_dim
        self.n_heads = sizes.n_heads
        self.queries_per_kv = sizes.n_heads // sizes.n_kv_heads
        self.dropout = sizes.dropout
        self.rotate = rotate
        width = (sizes.n_heads + 2 * sizes.n_kv_heads) * self.head_dim
        self.qkv = nn.Linear(sizes.d_model, width, bias=sizes.bias)
        self.out = nn.Linear(sizes.d_model, sizes.d_model, bias=sizes.bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        positions: Int[Tensor, "#B T"],
        mask: Bool[Tensor, "#B 1 T S"] | None,
        cache: LayerCache | None = None,
        context: Float[Tensor, "B C D"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """See `llm.models.base.Attention`. With a `context`, keys and values come from it, unrotated."""
        if context is None:
            q, k, v = self._self_qkv(x, positions)
            if cache is not None:
                k, v = cache.append(k, v)
        else:
            q, k, v = self._cross_qkv(x, context)
        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            # A single new token sees all that is cached; the flag would hide all but the first.
            is_causal=mask is None and context is None and q.shape[-2] > 1,
            enable_gqa=self.queries_per_kv > 1,
        )
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y

    def _self_qkv(
        self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values as [B, heads, T, head_dim], in the order of the matrix's groups."""
        n, rows = self.queries_per_kv, x.shape[:2]
        # Head counts are read off the result (-1), so that a rank holding some of the groups works too.
        groups = self.qkv(x).view(*rows, -1, n + 2, self.head_dim)
        # One rotation for queries and keys together, as [B, T, groups * (n + 1), head_dim].
        qk = self.rotate(groups[..., : n + 1, :].flatten(2, 3), positions)
        qk = qk.view(*rows, -1, n + 1, self.head_dim)
        q, k, v = qk[..., :n, :].flatten(2, 3), qk[..., n, :], groups[..., n + 1, :]
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def _cross_qkv(
        self, x: Float[Tensor, "B T D"], context: Float[Tensor, "B C D"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of `x`, keys and values of `context`."""
        n = self.queries_per_kv

        def heads(source: Tensor) -> Tensor:
            mixed: Tensor = self.qkv(source)
            return mixed.view(*source.shape[:2], -1, n + 2, self.head_dim)

        q, kv = heads(x)[..., :n, :].flatten(2, 3), heads(context)
        return q.transpose(1, 2), kv[..., n, :].transpose(1, 2), kv[..., n + 1, :].transpose(1, 2)

    def parallel_plan(self) -> Mapping[str, str]:
        """Heads are split over ranks; `out` joins them."""
        return {"qkv": "column", "out": "row"}

    def mixing_flops(self, context_tokens: float) -> float:
        """A dot product and a weighted sum per head and attended token: ``4 * d_model`` each."""
        return 4.0 * context_tokens * self.n_heads * self.head_dim
