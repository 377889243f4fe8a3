"""Feed-forward parts against their formulas in float64 numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from llm.models.base import Sizes
from llm.models.feed_forward.gated import GatedMLP
from llm.models.feed_forward.mlp import MLP


def _sizes(d_model: int = 12, d_ff: int | None = None, bias: bool = False) -> Sizes:
    return Sizes(d_model, 1, 2, 2, d_ff, 8, bias, 0.0)


def _numpy(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [tensor.detach().double().numpy() for tensor in tensors]


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu"])
def test_gelu(activation: str):
    part, x = MLP(_sizes(bias=True), activation=activation), torch.randn(2, 3, 12) * 3
    inputs, up, up_bias, down, down_bias = _numpy(
        x, part.up.weight, part.up.bias, part.down.weight, part.down.bias
    )
    inner = inputs @ up.T + up_bias
    if activation == "gelu_tanh":
        gate = 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
    else:
        gate = 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    np.testing.assert_allclose(part(x).detach(), inner * gate @ down.T + down_bias, rtol=0, atol=2e-6)
    assert part.up.out_features == 48


def test_swiglu():
    part, x = GatedMLP(_sizes(d_ff=20)), torch.randn(2, 3, 12) * 3
    inputs, gate, up, down = _numpy(x, part.gate.weight, part.up.weight, part.down.weight)
    opened = inputs @ gate.T
    expected = opened / (1 + np.exp(-opened)) * (inputs @ up.T) @ down.T
    np.testing.assert_allclose(part(x).detach(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu"])
def test_geglu(activation: str):
    part, x = GatedMLP(_sizes(d_ff=20), activation=activation), torch.randn(2, 3, 12) * 3
    inputs, gate, up, down = _numpy(x, part.gate.weight, part.up.weight, part.down.weight)
    opened = inputs @ gate.T
    if activation == "gelu_tanh":
        share = 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (opened + 0.044715 * opened**3)))
    else:
        share = 0.5 * (1 + np.vectorize(math.erf)(opened / math.sqrt(2)))
    expected = opened * share * (inputs @ up.T) @ down.T
    np.testing.assert_allclose(part(x).detach(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("activation", "power"), [("relu", 1), ("relu_squared", 2)])
def test_relu(activation: str, power: int):
    part, x = MLP(_sizes(), activation=activation), torch.randn(2, 3, 12) * 3
    inputs, up, down = _numpy(x, part.up.weight, part.down.weight)
    expected = np.maximum(inputs @ up.T, 0) ** power @ down.T
    np.testing.assert_allclose(part(x).detach(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("d_model", "multiple_of", "d_ff"), [(192, 32, 512), (4096, 256, 11008), (96, 1, 256), (100, 1, 267)]
)
def test_swiglu_inner_width(d_model: int, multiple_of: int, d_ff: int):
    with torch.device("meta"):
        part = GatedMLP(_sizes(d_model), multiple_of=multiple_of)
    assert part.up.out_features == d_ff
