"""muP against the tables of the paper (arXiv 2203.03466), written out by hand."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from llm.models.decoder import Decoder
from llm.models.parametrization.base import Width
from llm.models.parametrization.mup import MuP
from llm.optimizers.adamw import adamw
from llm.optimizers.groups import with_rates
from llm.types import Batch, ConfigError
from tests.models.composition import SMALL, ids, load_part, presets, small

BASE = SMALL["d_model"]
AT_HOME = partial(MuP, base_d_model=BASE)
FROM_HALF = partial(MuP, base_d_model=BASE // 2)


def learn(model: Decoder, optimizer: torch.optim.Optimizer, steps: int = 3) -> list[float]:
    tokens = ids(2, 13)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(Batch(tokens[:, :-1])).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("preset", presets())
def test_at_the_bases_width_nothing_differs_by_a_bit(preset: str) -> None:
    usual, ours = small(preset), small(preset, parametrization=AT_HOME)
    assert ours.learning_rates() == {}
    for (name, a), b in zip(usual.named_parameters(), ours.parameters(), strict=True):
        assert torch.equal(a, b), name
    losses = [
        learn(m, with_rates(adamw, m.learning_rates())(m.named_parameters())) for m in (usual, ours)
    ]  # fmt: skip
    assert losses[0] == losses[1]
    for (name, a), b in zip(usual.named_parameters(), ours.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("preset", presets())
def test_away_from_it_every_family_learns(preset: str) -> None:
    model = small(preset, d_model=2 * BASE, parametrization=AT_HOME)
    rates = model.learning_rates()
    assert set(rates) < {name for name, _ in model.named_parameters()}
    losses = learn(model, with_rates(partial(adamw, lr=1e-2), rates)(model.named_parameters()), 5)
    assert losses[-1] < losses[0]


def grown(preset: str, **overrides: Any) -> tuple[dict[str, float], dict[str, float], Decoder]:
    """By name: the deviation of a model over that of the usual one, and the learning rates."""
    usual = small(preset, **overrides)
    ours = small(preset, parametrization=FROM_HALF, **overrides)
    theirs = dict(usual.named_parameters())
    ratios = {
        name: float(parameter.detach().std() / theirs[name].detach().std())
        for name, parameter in ours.named_parameters()
        if parameter.ndim >= 2
    }
    return ratios, dict(ours.learning_rates()), ours


def test_table_8() -> None:
    ratios, rates, model = grown("llama", n_layers=1, n_kv_heads=2, d_ff=80, bias=True)
    hidden = [f"attention.{n}" for n in ("qkv", "out")] + [
        f"feed_forward.{n}" for n in ("gate", "up", "down")
    ]
    assert ratios == pytest.approx(
        {
            "embedding.weight": 1.0,
            "unembedding.weight": 1.0,
            **{f"blocks.0.{name}.weight": 2**-0.5 for name in hidden},
        },
        rel=1e-5,
    )
    assert rates == {f"blocks.0.{name}.weight": 0.5 for name in hidden}  # no bias, no gain, no embedding
    attention: Any = model.blocks[0]
    assert attention.attention.scale == math.sqrt(4) / 8  # heads of 4 in the base, of 8 here
    stream = torch.randn(3, BASE)
    assert model.unembedding is not None
    torch.testing.assert_close(model.head(stream), stream @ model.unembedding.weight.T / 2)


def test_what_reads_a_fixed_width_is_the_bases_and_what_writes_one_is_an_output() -> None:
    ratios, rates, _ = grown("mixtral", n_layers=1, feed_forward=_experts(d_expert=40))
    assert ratios["blocks.0.feed_forward.router.weight"] == pytest.approx(0.5)
    assert rates["blocks.0.feed_forward.router.weight"] == 0.5
    assert ratios["blocks.0.feed_forward.experts.3.down.weight"] == pytest.approx(1.0)
    assert "blocks.0.feed_forward.experts.3.down.weight" not in rates
    ratios, rates, model = grown("deepseek_v3", n_layers=1)
    assert ratios["blocks.0.attention.key_value.weight"] == pytest.approx(1.0)
    assert rates["blocks.0.attention.latent.weight"] == 0.5
    attention: Any = model.blocks[0]
    assert attention.attention.scale == 1 / math.sqrt(32 + 16)  # its heads do not grow


def _experts(**keys: Any) -> Any:
    return partial(load_part("feed_forward", "experts"), **keys)


def test_d_ff_and_heads_of_the_base_can_be_said() -> None:
    width = Width(96, 8, 4, d_ff=100)
    assert MuP(width, base_d_model=48).base == Width(48, 8, 4, d_ff=50)
    assert MuP(width, base_d_model=48, base_n_heads=4).base == Width(48, 4, 2, d_ff=50)
    said = MuP(width, base_d_model=48, base_n_heads=2, base_head_dim=12, base_d_ff=100)
    assert said.base == Width(48, 2, 1, head_dim=12, d_ff=100)
    model = small(
        "decoder", d_model=96, n_heads=8, parametrization=partial(MuP, base_d_model=48, base_n_heads=4)
    )
    attention: Any = model.blocks[0]
    assert attention.attention.scale == 1 / math.sqrt(12)  # more heads, not wider ones


def test_embeddings_that_are_scaled_keep_their_size() -> None:
    narrow, wide = (small("gemma2", parametrization=FROM_HALF, d_model=d, head_dim=8, n_heads=d // 8)
                    for d in (48, 384))  # fmt: skip
    assert narrow.embedding_scale == wide.embedding_scale == math.sqrt(24)


def test_it_is_table_3_under_another_name() -> None:
    """Table 3 has no multipliers: a smaller first head and a smaller learning rate for it instead."""
    ours = small("llama", n_kv_heads=2, bias=True, parametrization=FROM_HALF)
    theirs = small("llama", n_kv_heads=2, bias=True)
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        theirs.unembedding.weight.div_(2)
    for block in theirs.layers():
        block.attention.scale = math.sqrt(4) / 8
    matrices = [p for n, p in theirs.named_parameters() if p.ndim == 2 and n != "embedding.weight"]
    rest = [p for n, p in theirs.named_parameters() if p.ndim < 2 or n == "embedding.weight"]
    groups = [{"params": matrices, "lr": 2e-3}, {"params": rest, "lr": 4e-3}]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-20, weight_decay=0.0)
    made = with_rates(partial(adamw, lr=4e-3, eps=1e-20, weight_decay=0.0), ours.learning_rates())
    assert learn(ours, made(ours.named_parameters()), 8) == pytest.approx(
        learn(theirs, reference, 8), rel=1e-4
    )


@pytest.mark.parametrize(
    ("preset", "overrides", "base", "says"),
    [
        ("llama", {}, {"base_d_model": 50}, "not divisible by n_heads=6; nearest: 48, 54"),
        ("llama", {}, {"base_d_model": 42}, "rotary positions turn pairs"),
        ("qwen3", {"head_dim": 8}, {"base_d_model": 20}, "leaves 2.5 heads"),
        ("llama", {}, {"base_d_model": 32, "base_n_heads": 5}, "not divisible"),
    ],
)
def test_a_base_that_cannot_be(preset: str, overrides: Any, base: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        small(preset, parametrization=partial(MuP, **base), **overrides)
    assert (raised.value.key, raised.value.value) == ("base_d_model", base["base_d_model"])
