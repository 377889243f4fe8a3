"""Rotary positions against complex numbers in float64."""

from __future__ import annotations

import numpy as np
import torch

from llm.models.base import Sizes
from llm.models.positions import LearnedPosition, NoPosition, RotaryPosition

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
