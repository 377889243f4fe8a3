"""Norms against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from llm.models.norms import LayerNorm, RMSNorm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_torchs(dtype: torch.dtype):
    ours, theirs = RMSNorm(24, eps=1e-3), nn.RMSNorm(24, eps=1e-3)
    x = torch.randn(3, 5, 24) * 3
    with torch.no_grad():
        ours.weight.uniform_()
        theirs.weight.copy_(ours.weight)
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    xs = [x.to(dtype).requires_grad_() for _ in range(2)]
    ys = [ours(xs[0]), theirs(xs[1])]
    for y in ys:
        y.square().sum().backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    assert ys[0].dtype == dtype
    torch.testing.assert_close(ys[0], ys[1], **tolerance)
    if dtype is torch.float32:
        torch.testing.assert_close(xs[0].grad, xs[1].grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)


def test_rms_norm_takes_its_statistics_in_float32():
    x, norm = (torch.randn(50, 256) * 3).to(torch.bfloat16), RMSNorm(256).to(torch.bfloat16)
    exact = torch.nn.functional.rms_norm(x.double(), (256,), None, 1e-5)
    # Half a unit in the last of eight binary digits, and what float32 adds.
    assert ((norm(x).double() - exact) / exact).abs().max() <= 2**-8 + 1e-5


def test_biases_as_asked():
    assert LayerNorm(4, bias=False).bias is None
    assert LayerNorm(4, bias=True).bias is not None
    assert [name for name, _ in RMSNorm(4, bias=True).named_parameters()] == ["weight"]
