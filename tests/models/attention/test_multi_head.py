"""Attention against the formula in float64, with its own layout of the fused matrix."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from llm.models.attention.multi_head import MultiHeadAttention
from llm.models.base import Sizes

D, HEADS, WIDTH = 24, 6, 4


def _attention(n_kv_heads: int, bias: bool = True) -> MultiHeadAttention:
    sizes = Sizes(D, 1, HEADS, n_kv_heads, None, 16, bias, 0.0)
    return MultiHeadAttention(sizes, rotate=lambda heads, positions: heads)


def _formula(attention: MultiHeadAttention, x: Tensor, source: Tensor, allowed: Tensor) -> Tensor:
    """Softmax(q k / sqrt(d)) v, head by head, in float64."""
    w, b = attention.qkv.weight.double(), attention.qkv.bias.double()
    n = attention.queries_per_kv
    heads = []
    for head in range(HEADS):
        group, within = divmod(head, n)
        rows = [group * (n + 2) + within, group * (n + 2) + n, group * (n + 2) + n + 1]
        q, k, v = (
            data @ w[row * WIDTH : (row + 1) * WIDTH].T + b[row * WIDTH : (row + 1) * WIDTH]
            for data, row in zip((x, source, source), rows, strict=True)
        )
        scores = (q @ k.transpose(1, 2) / math.sqrt(WIDTH)).masked_fill(~allowed, -math.inf)
        heads.append(scores.softmax(-1) @ v)
    return torch.cat(heads, -1) @ attention.out.weight.double().T + attention.out.bias.double()


@pytest.mark.parametrize("n_kv_heads", [6, 3, 2, 1])
def test_self_attention_is_the_formula(n_kv_heads: int):
    attention, x = _attention(n_kv_heads), torch.randn(2, 7, D)
    causal = torch.ones(7, 7).tril().bool()
    mixed = attention(x, positions=torch.arange(7)[None], mask=None)
    torch.testing.assert_close(
        mixed.double(), _formula(attention, x.double(), x.double(), causal), rtol=0, atol=1e-5
    )


def test_a_mask_is_obeyed():
    attention, x = _attention(2), torch.randn(2, 7, D)
    band = torch.ones(7, 7).tril().triu(-2).bool()
    mixed = attention(x, positions=torch.arange(7)[None], mask=band[None, None])
    torch.testing.assert_close(
        mixed.double(), _formula(attention, x.double(), x.double(), band), rtol=0, atol=1e-5
    )


def test_cross_attention_sees_the_whole_context():
    attention, x, context = _attention(3), torch.randn(2, 5, D), torch.randn(2, 9, D)
    everything = torch.ones(5, 9).bool()
    mixed = attention(x, positions=torch.arange(5)[None], mask=None, context=context)
    expected = _formula(attention, x.double(), context.double(), everything)
    torch.testing.assert_close(mixed.double(), expected, rtol=0, atol=1e-5)


def test_equal_parts_of_the_matrix_hold_whole_groups():
    """Half of the rows of `qkv` and half of the columns of `out` are an attention by themselves."""
    whole, x = _attention(2, bias=False), torch.randn(2, 7, D)
    total = torch.zeros(2, 7, D)
    for half in (0, 1):
        part = _attention(2, bias=False)
        part.qkv.weight = torch.nn.Parameter(whole.qkv.weight.chunk(2, 0)[half])
        part.out.weight = torch.nn.Parameter(whole.out.weight.chunk(2, 1)[half])
        total += part(x, positions=torch.arange(7)[None], mask=None)
    torch.testing.assert_close(total, whole(x, positions=torch.arange(7)[None], mask=None), rtol=0, atol=1e-5)


def test_weights_are_dropped_while_training_only():
    """With one value for every place, what comes out shows the sum of the weights that were kept."""
    sizes = Sizes(D, 1, HEADS, HEADS, None, 64, False, 0.5)
    attention = MultiHeadAttention(sizes, rotate=lambda heads, positions: heads)
    x = torch.randn(1, 1, D).expand(1, 64, D)
    where = {"positions": torch.arange(64)[None], "mask": None}
    whole, dropped = attention.eval()(x, **where), attention.train()(x, **where)
    torch.testing.assert_close(whole, whole[:, :1].expand_as(whole))
    assert (dropped - whole).abs().max() > 0.01
