"""One AdamW step against the paper's algorithm in float64, and against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from llm.optimizers.adamw import adamw


def parameters() -> list[tuple[str, nn.Parameter]]:
    generator = torch.Generator().manual_seed(0)
    made = [
        ("embedding", nn.Parameter(torch.randn(7, 5, generator=generator))),
        ("kernel", nn.Parameter(torch.randn(2, 3, 4, generator=generator))),
        ("gain", nn.Parameter(torch.randn(5, generator=generator))),
        ("frozen", nn.Parameter(torch.randn(3, 3, generator=generator), requires_grad=False)),
    ]
    for _, p in made[:-1]:
        p.grad = torch.randn(p.shape, generator=generator)
    return made


def reference(p: np.ndarray, grads: list[np.ndarray], decay: float) -> np.ndarray:
    """Loshchilov & Hutter 2019, algorithm 2, the green lines."""
    lr, b1, b2, eps = 3e-2, 0.9, 0.99, 1e-6
    m = v = np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        update = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - lr * (update + decay * p)
    return p


def test_steps_equal_the_algorithm_in_float64() -> None:
    named = parameters()
    before = {name: p.detach().double().numpy().copy() for name, p in named}
    optimizer = adamw(iter(named), lr=3e-2, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.5)
    for _ in range(3):
        optimizer.step()
    for name, p in named[:-1]:
        assert p.grad is not None
        gradient = p.grad.double().numpy()
        decay = 0.5 if p.ndim >= 2 else 0.0
        expected = reference(before[name], [gradient] * 3, decay)
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=0, atol=1e-6)
        assert not np.allclose(expected, reference(before[name], [gradient] * 3, 0.5 - decay), atol=1e-4)


def test_a_step_equals_torch() -> None:
    ours, theirs = parameters(), parameters()
    adamw(ours, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1).step()
    for _, p in theirs[:-1]:
        decay = 0.1 if p.ndim >= 2 else 0.0
        plain = torch.optim.AdamW(
            [p], lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay, foreach=False
        )
        plain.step()
    for (name, mine), (_, other) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6, msg=name)


def test_frozen_parameters_have_no_place_in_it() -> None:
    named = parameters()
    held = {id(p) for group in adamw(named).param_groups for p in group["params"]}
    assert held == {id(p) for _, p in named[:-1]}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_fused_only_where_torch_has_it(device: str) -> None:
    made = adamw([("w", nn.Parameter(torch.zeros(2, 2, device=device)))])
    assert bool(made.defaults["fused"]) is (device == "cpu")
