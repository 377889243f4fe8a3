"""Windows, soft caps, sinks, normalised queries: against float64 numpy, and against transformers."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from llm.models.attention.latent import LatentAttention
from llm.models.attention.multi_head import MultiHeadAttention
from llm.models.base import Sizes
from llm.models.cache import LayerCache
from llm.models.norms import RMSNorm
from tests.models.composition import load_part, small
from tests.models.contract import check_cache, check_causality, check_padding

D, HEADS, WIDTH, KV = 24, 6, 4, 2
NORM = partial(RMSNorm, eps=1e-3)


def still(heads: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """No positions."""
    return heads


def numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def attention(layer: int = 0, **arguments: Any) -> MultiHeadAttention:
    torch.manual_seed(0)
    sizes = Sizes(D, 4, HEADS, KV, None, 32, True, 0.0, layer=layer)
    made = MultiHeadAttention(sizes, rotate=still, **arguments)
    for parameter in made.parameters():
        if parameter.ndim == 1:  # norms and sinks that are all the same would hide mistakes
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return made


def rms(x: np.ndarray, weight: torch.Tensor) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * numpy(weight)


def by_hand(
    part: MultiHeadAttention,
    x: torch.Tensor,
    *,
    window: int | None = None,
    soft_cap: float | None = None,
    scale: float | None = None,
    qk_norm: str = "",
    sinks: bool = False,
) -> np.ndarray:
    """One head and one query after the other."""
    n_tokens, n = x.shape[1], HEADS // KV
    made = numpy(x) @ numpy(part.qkv.weight).T + numpy(part.qkv.bias)
    groups = made.reshape(*x.shape[:2], KV, n + 2, WIDTH)
    q, k, v = groups[..., :n, :], groups[..., n, :], groups[..., n + 1, :]
    q = q.reshape(*x.shape[:2], HEADS, WIDTH)
    if qk_norm == "head":
        q, k = rms(q, part.q_norm.weight), rms(k, part.k_norm.weight)
    elif qk_norm == "all":
        q = rms(q.reshape(*x.shape[:2], -1), part.q_norm.weight).reshape(q.shape)
        k = rms(k.reshape(*x.shape[:2], -1), part.k_norm.weight).reshape(k.shape)
    mixed = np.zeros_like(q)
    for row in range(len(x)):
        for head in range(HEADS):
            for place in range(n_tokens):
                first = 0 if window is None else max(place - window + 1, 0)
                seen = slice(first, place + 1)
                scores = k[row, seen, head // n] @ q[row, place, head] * (scale or 1 / math.sqrt(WIDTH))
                if soft_cap is not None:
                    scores = soft_cap * np.tanh(scores / soft_cap)
                nothing = math.exp(numpy(part.sinks)[head]) if sinks else 0.0
                weights = np.exp(scores) / (np.exp(scores).sum() + nothing)
                mixed[row, place, head] = weights @ v[row, seen, head // n]
    flat = mixed.reshape(*x.shape[:2], -1)
    return flat @ numpy(part.out.weight).T + numpy(part.out.bias)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "window": ({"window": 3}, {"window": 3}),
    "window of one": ({"window": 1}, {"window": 1}),
    "window beyond the sequence": ({"window": 50}, {}),
    "layer with a window": ({"window": 3, "full_every": 2, "layer": 0}, {"window": 3}),
    "layer without": ({"window": 3, "full_every": 2, "layer": 1}, {}),
    "soft cap": ({"soft_cap": 0.3}, {"soft_cap": 0.3}),
    "sinks": ({"sinks": True}, {"sinks": True}),
    "scale": ({"scale": 1.7}, {"scale": 1.7}),
    "norm of each head": ({"qk_norm": NORM}, {"qk_norm": "head"}),
    "norm of all heads": ({"qk_norm": NORM, "qk_norm_over": "all"}, {"qk_norm": "all"}),
    "everything": (
        {"window": 4, "soft_cap": 0.5, "sinks": True, "scale": 1.2, "qk_norm": NORM},
        {"window": 4, "soft_cap": 0.5, "sinks": True, "scale": 1.2, "qk_norm": "head"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_formula(name: str) -> None:
    arguments, expected = CASES[name]
    part, x = attention(**arguments), torch.randn(2, 9, D) * 2
    ours = part(x, positions=torch.arange(9)[None], mask=None)
    np.testing.assert_allclose(ours.detach(), by_hand(part, x, **expected), rtol=0, atol=5e-6)
    if expected:
        assert np.abs(ours.detach().numpy() - by_hand(part, x)).max() > 1e-3


def test_sinks_are_those_of_gpt_oss() -> None:
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

    part, x = attention(sinks=True), torch.randn(2, 7, D)
    part.num_key_value_groups = HEADS // KV  # type: ignore[assignment]
    q, k, v = part._self_qkv(x, torch.arange(7)[None])
    causal = torch.full((7, 7), -torch.inf).triu(1)[None, None]
    theirs, _ = eager_attention_forward(part, q, k, v, causal, part.scale)
    expected = part.out(theirs.flatten(2))
    ours = part(x, positions=torch.arange(7)[None], mask=None)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad(y.square().sum(), part.sinks)[0] for y in (ours, expected)]
    assert gradients[0].abs().min() > 0
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_it_keeps_an_attentions_promises(name: str) -> None:
    """Causal, and the same with a cache and with padding, in a model whose layers differ where they may."""
    arguments = {key: value for key, value in CASES[name][0].items() if key != "layer"}
    part = load_part("attention", "multi_head")
    part.keywords.update(arguments)
    model = small("decoder", n_kv_heads=2, attention=part).eval()
    check_causality(model)
    check_cache(model)
    check_padding(model)


# ----------------------------------------------------------------------------- latent attention


def latent(**arguments: Any) -> LatentAttention:
    torch.manual_seed(0)
    sizes = Sizes(D, 1, 3, 3, None, 32, False, 0.0)
    widths = {"d_latent": 10, "d_query_latent": 8, "plain_dim": 6, "rotary_dim": 4, "value_dim": 5}
    return LatentAttention(sizes, rotate=arguments.pop("rotate", still), norm=NORM, **(widths | arguments))


def turned(heads: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Something that depends on places: halves rotated by a tenth of the place."""
    angle = positions.to(heads.dtype)[..., None, None] * 0.1
    a, b = heads.chunk(2, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1)


@pytest.mark.parametrize("d_query_latent", [None, 8])
def test_latent_attention_is_the_papers(d_query_latent: int | None) -> None:
    """DeepSeek-V2, equations 9 to 19 in float64, one head and one query after the other."""
    part, x = latent(d_query_latent=d_query_latent, rotate=turned), torch.randn(2, 7, D) * 2
    ours = part(x, positions=torch.arange(7)[None], mask=None)

    def turn(heads: np.ndarray) -> np.ndarray:
        return numpy(turned(torch.from_numpy(heads), torch.arange(7)[None]))

    h = numpy(x)
    source = h
    if d_query_latent is not None:
        source = rms(h @ numpy(part.query_down.weight).T, part.query_norm.weight)
    q = (source @ numpy(part.query.weight).T).reshape(2, 7, 3, 10)
    made = h @ numpy(part.latent.weight).T
    c, k_turned = rms(made[..., :10], part.latent_norm.weight), turn(made[..., None, 10:])[:, :, 0]
    kv = (c @ numpy(part.key_value.weight).T).reshape(2, 7, 3, 11)
    q_turned = turn(q[..., 6:])
    mixed = np.zeros((2, 7, 3, 5))
    for row, head, place in np.ndindex(2, 3, 7):
        scores = kv[row, : place + 1, head, :6] @ q[row, place, head, :6]
        scores = (scores + k_turned[row, : place + 1] @ q_turned[row, place, head]) / math.sqrt(10)
        weights = np.exp(scores - scores.max())
        mixed[row, place, head] = weights / weights.sum() @ kv[row, : place + 1, head, 6:]
    expected = mixed.reshape(2, 7, -1) @ numpy(part.out.weight).T
    np.testing.assert_allclose(ours.detach(), expected, rtol=0, atol=5e-6)


def test_latent_attention_remembers_latents_and_not_heads() -> None:
    part, cache = latent(), LayerCache(20)
    with torch.no_grad():
        part(torch.randn(2, 7, D), positions=torch.arange(7)[None], mask=None, cache=cache)
    held = sum(stored[..., :1, :].numel() for stored in cache._storage) // 2
    assert held == 10 + 4  # a token's d_latent and rotary_dim, of 3 * (6 + 4 + 5) numbers in heads
    assert [(stored.shape[1], stored.shape[-1]) for stored in cache._storage] == [(1, 10), (1, 4)]
