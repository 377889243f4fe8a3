"""Four bits: the sixteen values from the normal distribution, coding against plain arithmetic."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

from llm.models.adapters import nf4
from llm.models.adapters.nf4 import NF4, NF4Linear


def test_the_sixteen_values_follow_from_the_normal_distribution() -> None:
    """Quantiles at even steps up to the offset of the paper's code, eight above zero and seven below."""
    offset = 0.5 * ((1 - 1 / 32) + (1 - 1 / 30))
    quantile = NormalDist().inv_cdf
    above = [quantile(offset + (0.5 - offset) * n / 8) for n in range(8)]
    below = [-quantile(offset + (0.5 - offset) * n / 7) for n in range(7)]
    values = sorted([*above, 0.0, *below])
    expected = [value / max(values) for value in values]
    assert pytest.approx(expected, abs=1e-6) == NF4


def by_hand(values: np.ndarray, block_size: int) -> np.ndarray:
    """Every number by itself, in float64: its block's largest, the nearest of the sixteen."""
    flat = values.astype(np.float64).ravel()
    found = np.empty_like(flat)
    for start in range(0, len(flat), block_size):
        block = flat[start : start + block_size]
        scale = np.abs(block).max()
        for place, value in enumerate(block, start):
            found[place] = (
                0.0 if scale == 0 else min(NF4, key=lambda level: abs(level - value / scale)) * scale
            )
    return found.reshape(values.shape)


@pytest.mark.parametrize(("shape", "block_size"), [((6, 64), 64), ((5, 13), 64), ((7, 9), 4), ((1, 1), 2)])
def test_decoded_numbers_are_the_nearest(shape: tuple[int, int], block_size: int) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    packed, scales = nf4.encode(values, block_size)
    n = math.prod(shape)
    assert (packed.dtype, len(packed)) == (torch.uint8, -(-n // block_size) * block_size // 2)
    assert len(scales) == -(-n // block_size)
    decoded = nf4.decode(packed, scales, shape)
    np.testing.assert_allclose(decoded.numpy(), by_hand(values.numpy(), block_size), rtol=1e-6, atol=0)


def test_the_first_code_of_a_byte_is_in_its_high_half() -> None:
    packed, scales = nf4.encode(torch.tensor([-3.0, 3.0, 0.0, 1.32]), 4)
    assert packed.tolist() == [0x0F, 0x7C]
    assert scales.tolist() == [3.0]


def test_zeros_and_what_has_few_numbers_stay() -> None:
    packed, scales = nf4.encode(torch.zeros(70), 64)
    assert not nf4.decode(packed, scales, (70,)).any()
    levels = torch.tensor(NF4).repeat(8) * 0.37
    packed, scales = nf4.encode(levels, 64)
    torch.testing.assert_close(nf4.decode(packed, scales, (128,)), levels)


def test_scales_in_eight_bits_are_near_the_scales() -> None:
    scales = torch.rand(600, generator=torch.Generator().manual_seed(2)) + 2
    codes, seconds, mean = nf4.encode_scales(scales)
    assert (codes.dtype, len(codes), len(seconds)) == (torch.uint8, 600, 3)
    decoded = nf4.decode_scales(codes, seconds, mean)
    # three bits behind the point: a sixteenth of the distance from the mean
    assert ((decoded - scales).abs() <= (scales - mean).abs() / 16 + 1e-6).all()
    assert not torch.equal(decoded, scales)
    same = nf4.encode_scales(torch.full((5,), 1.5))
    assert torch.equal(nf4.decode_scales(*same), torch.full((5,), 1.5))


def layer(double: bool, bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, NF4Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(256, 192, bias=bias, dtype=dtype).requires_grad_(False)
    return plain, NF4Linear(plain, block_size=64, double_quantisation=double)


@pytest.mark.parametrize(("double", "bits"), [(False, 4.5), (True, 4.127)])
def test_what_a_weight_costs_and_how_far_it_moves(double: bool, bits: float) -> None:
    plain, quantised = layer(double)
    n_bytes = sum(buffer.nbytes for buffer in quantised.buffers())
    assert 8 * n_bytes / plain.weight.numel() == pytest.approx(bits, abs=0.01)
    error = (quantised.weight - plain.weight).norm() / plain.weight.norm()
    assert 0.02 < error < 0.12
    assert not next(iter(quantised.buffers())).is_floating_point()


@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_is_that_of_the_decoded_matrix(bias: bool) -> None:
    _, quantised = layer(True, bias)
    x = torch.randn(3, 5, 256, requires_grad=True)
    weight = quantised.weight
    (quantised(x) ** 2).sum().backward()
    ours, x.grad = x.grad, None
    (nn.functional.linear(x, weight, quantised.bias) ** 2).sum().backward()
    torch.testing.assert_close(ours, x.grad)


def test_nothing_in_full_width_is_kept_for_the_backward_pass() -> None:
    _, quantised = layer(True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        quantised(torch.randn(2, 256, requires_grad=True))
    assert max(kept, default=0) < 192 * 256


def test_it_works_in_narrow_numbers() -> None:
    x = torch.randn(4, 256, requires_grad=True)
    _, quantised = layer(True)
    with torch.autocast("cpu", torch.bfloat16):
        y = quantised(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], quantised.weight.sum(0), rtol=0.02, atol=0.02)
    plain, narrow = layer(True, dtype=torch.bfloat16)
    assert narrow(x.bfloat16()).dtype == torch.bfloat16
    assert narrow.merged().weight.dtype == plain.weight.dtype


def test_it_can_be_made_without_storage() -> None:
    with torch.device("meta"):
        made = NF4Linear(nn.Linear(128, 64), block_size=64, double_quantisation=True)
    made = made.to_empty(device="cpu")
    made.load_state_dict(NF4Linear(nn.Linear(128, 64), block_size=64, double_quantisation=True).state_dict())
    assert made(torch.randn(2, 128)).isfinite().all()
