"""Positions against numpy in float64, and against transformers' formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from llm.models import rope_scaling
from llm.models.base import Sizes
from llm.models.positions import (
    AlibiPosition,
    LearnedPosition,
    NoPosition,
    RotaryPosition,
    SinusoidalPosition,
)
from llm.types import ConfigError

SIZES = Sizes(
    d_model=24, n_layers=1, n_heads=3, n_kv_heads=3, d_ff=None, max_seq_len=40, bias=False, dropout=0.0
)


def test_rotation_is_a_complex_multiplication():
    position = RotaryPosition(SIZES, theta=100.0)
    x, places = torch.randn(2, 4, 3, 8), torch.tensor([[0, 1, 2, 39], [5, 5, 9, 0]])
    half = x.double().numpy()
    pairs = half[..., :4] + 1j * half[..., 4:]
    angles = places.numpy()[:, :, None, None] * 100.0 ** (-2 * np.arange(4) / 8)
    turned = pairs * np.exp(1j * angles)
    expected = torch.from_numpy(np.concatenate([turned.real, turned.imag], -1)).float()
    torch.testing.assert_close(position.rotate(x, places), expected, rtol=0, atol=2e-5)


def test_only_distances_matter():
    position = RotaryPosition(SIZES)
    q, k = torch.randn(1, 1, 3, 8), torch.randn(1, 1, 3, 8)

    def score(i: int, j: int) -> torch.Tensor:
        turned = [position.rotate(x, torch.tensor([[place]])) for x, place in ((q, i), (k, j))]
        return (turned[0] * turned[1]).sum(-1)

    torch.testing.assert_close(score(7, 3), score(27, 23), rtol=0, atol=1e-5)
    assert (score(7, 3) - score(7, 4)).abs().max() > 1e-3


def test_tables_are_not_saved():
    assert RotaryPosition(SIZES).state_dict() == {}


def test_learned_adds_the_row_of_each_place():
    position = LearnedPosition(SIZES)
    x, places = torch.randn(2, 3, 24), torch.tensor([[0, 1, 2], [7, 7, 39]])
    assert torch.equal(position.embed(x, places), x + position.table.weight[places])


def test_none_changes_nothing():
    x, heads = torch.randn(1, 3, 24), torch.randn(1, 3, 3, 8)
    assert NoPosition(SIZES).embed(x, torch.arange(3)[None]) is x
    assert NoPosition(SIZES).rotate(heads, torch.arange(3)[None]) is heads


def test_sinusoids_are_the_papers():
    position = SinusoidalPosition(SIZES, theta=100.0)
    places = torch.tensor([[0, 3, 39]])
    added = position.embed(torch.zeros(1, 3, 24), places)[0].double().numpy()
    angles = places[0].numpy()[:, None] * 100.0 ** (-np.arange(12) / 11)
    np.testing.assert_allclose(added, np.concatenate([np.sin(angles), np.cos(angles)], -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_heads", [1, 2, 4, 6, 12, 20])
def test_alibi_is_blooms(n_heads: int):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    sizes = replace(SIZES, d_model=2 * n_heads, n_heads=n_heads, n_kv_heads=n_heads)
    bias = AlibiPosition(sizes).bias(3, 4, torch.device("cpu"))
    theirs = build_alibi_tensor(
        torch.ones(1, 7), n_heads, torch.float32
    )  # [H, 1, S]: from the first place on
    rows = torch.arange(3, 7)[:, None]
    seen = torch.arange(7) <= rows
    expected = theirs - theirs[:, 0, rows]
    torch.testing.assert_close(bias[:, seen], expected[:, seen], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        ("linear", {"factor": 3.0}, {"factor": 3.0}),
        ("dynamic", {"factor": 2.0, "original_seq_len": 16}, {"factor": 2.0}),
        (
            "llama3",
            {
                "factor": 8.0,
                "original_seq_len": 16,
                "low_frequency_factor": 1.0,
                "high_frequency_factor": 4.0,
            },
            {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        ),
        ("yarn", {"factor": 4.0, "original_seq_len": 16}, {"factor": 4.0}),
        (
            "yarn",
            {
                "factor": 4.0,
                "original_seq_len": 16,
                "beta_fast": 16.0,
                "beta_slow": 2.0,
                "attention_factor": 1.5,
            },
            {"factor": 4.0, "beta_fast": 16, "beta_slow": 2, "attention_factor": 1.5},
        ),
    ],
)
def test_scaled_frequencies_are_transformers(kind: str, ours: dict, theirs: dict):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theta, width, longest = 500.0, 16, 40
    original = 16 if kind == "dynamic" else 40
    config = LlamaConfig(hidden_size=width, num_attention_heads=1, max_position_embeddings=original)
    config.rope_parameters = {"rope_type": kind, "rope_theta": theta, **theirs}
    config.rope_parameters["original_max_position_embeddings"] = 16
    expected, expected_factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=longest)
    plain = theta ** -(torch.arange(0, width, 2) / width)
    name = "ntk" if kind == "dynamic" else kind
    found, factor = getattr(rope_scaling, name)(plain, theta=theta, max_seq_len=longest, **ours)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert factor == pytest.approx(expected_factor)
    assert (found - plain).abs().max() > 1e-4


def test_part_of_a_head_is_turned():
    position = RotaryPosition(SIZES, rotary_fraction=0.5)
    x, places = torch.randn(1, 2, 3, 8), torch.tensor([[3, 5]])
    narrow = RotaryPosition(replace(SIZES, head_dim=4))
    turned = position.rotate(x, places)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    torch.testing.assert_close(turned[..., :4], narrow.rotate(x[..., :4], places), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rotary_dim": 3}, "rotary_dim=3: turns 3 of 8 numbers, which are no pairs"),
        ({"rotary_fraction": 0.1}, "rotary_fraction=0.1: turns 0 of 8 numbers, which are no pairs"),
    ],
)
def test_what_cannot_be_turned(arguments: dict, message: str):
    with pytest.raises(ConfigError) as error:
        RotaryPosition(SIZES, **arguments)
    assert str(error.value) == message
