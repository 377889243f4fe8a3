"""A mixture of experts against a loop over tokens in float64, its balance against transformers'."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llm.models.balancing import Routing, max_over_mean, noting, taken
from llm.models.base import Sizes
from llm.models.feed_forward.experts import MixtureOfExperts
from llm.models.feed_forward.gated import GatedMLP
from llm.types import ConfigError

D = 12
EXPERT = partial(GatedMLP, activation="silu")
DEEPSEEK = {
    "n_experts": 8,
    "n_active": 3,
    "gate": "sigmoid",
    "n_groups": 4,
    "n_active_groups": 2,
    "n_shared": 2,
    "scaling": 2.5,
}


def mixture(seed: int = 0, layer: int = 0, **arguments: Any) -> MixtureOfExperts:
    torch.manual_seed(seed)
    sizes = Sizes(D, 2, 2, 2, 10, 32, False, 0.0, layer=layer)
    made = MixtureOfExperts(sizes, expert=EXPERT, **{"n_experts": 4, "n_active": 2, **arguments})
    if getattr(made, "selection_bias", None) is not None:
        made.selection_bias.copy_(torch.randn(made.n_experts) * 0.3)
    return made


def by_hand(part: MixtureOfExperts, x: Tensor) -> np.ndarray:
    """Token by token and expert by expert, in float64."""

    def numpy(tensor: Tensor) -> np.ndarray:
        return tensor.detach().double().numpy()

    def gated(mlp: Any, token: np.ndarray) -> np.ndarray:
        opened = numpy(mlp.gate.weight) @ token
        return numpy(mlp.down.weight) @ (opened / (1 + np.exp(-opened)) * (numpy(mlp.up.weight) @ token))

    results = []
    for token in numpy(x).reshape(-1, D):
        logits = numpy(part.router.weight) @ token
        scores = np.exp(logits) / np.exp(logits).sum()
        if part.gate == "sigmoid":
            scores = 1 / (1 + np.exp(-logits))
        ranked = scores if part.selection_bias is None else scores + numpy(part.selection_bias)
        groups = ranked.reshape(part.n_groups, -1)
        best = np.argsort(-np.sort(groups, 1)[:, -2:].sum(1))[: part.n_active_groups]
        is_open = np.repeat(np.isin(np.arange(part.n_groups), best), groups.shape[1])
        chosen = np.argsort(-np.where(is_open, ranked, -np.inf))[: part.n_active]
        weights = scores[chosen] / (scores[chosen].sum() if part.normalised else 1.0) * part.scaling
        total = sum(w * gated(part.experts[e], token) for w, e in zip(weights, chosen, strict=True))
        results.append(total if part.shared is None else total + gated(part.shared, token))
    return np.stack(results).reshape(x.shape)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"normalised": False},
        {"n_active": 1, "normalised": False},
        {"n_experts": 3, "n_active": 3},
        {"gate": "sigmoid"},
        DEEPSEEK,
    ],
)
def test_the_formula(arguments: dict[str, Any]) -> None:
    part, x = mixture(**arguments), torch.randn(3, 7, D) * 2
    np.testing.assert_allclose(part(x).detach(), by_hand(part, x), rtol=0, atol=5e-6)


def test_gradients_are_those_of_a_loop() -> None:
    """The look-up by sorted experts against plain sums with torch's own derivatives."""
    part, x = mixture(), torch.randn(2, 5, D, requires_grad=True)
    wanted = torch.randn(2, 5, D)

    def loop() -> Tensor:
        tokens = x.view(-1, D)
        weights, chosen = part._route(tokens)
        rows = [
            sum(
                weights[n, k] * part.experts[int(chosen[n, k])](tokens[n][None, None])[0, 0] for k in range(2)
            )
            for n in range(len(tokens))
        ]
        return torch.stack(rows).view_as(x)

    tensors = [x, *part.parameters()]
    ours = torch.autograd.grad((part(x) * wanted).sum(), tensors)
    theirs = torch.autograd.grad((loop() * wanted).sum(), tensors, allow_unused=True)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            mine, torch.zeros_like(mine) if other is None else other, rtol=0, atol=1e-5
        )


def test_no_token_is_dropped_and_an_idle_expert_has_a_gradient() -> None:
    part = mixture(n_experts=5, n_active=1)
    torch.nn.init.zeros_(part.router.weight)
    with torch.no_grad():
        part.router.weight[3] = 1.0
    x = torch.rand(2, 9, D)  # all to expert 3
    np.testing.assert_allclose(part(x).detach(), part.experts[3](x).detach(), rtol=0, atol=1e-6)
    part(x).sum().backward()
    assert all(p.grad is not None for p in part.parameters())
    assert not part.experts[0].up.weight.grad.any()


# ----------------------------------------------------------------------------- balance


def routed(part: MixtureOfExperts, *inputs: Tensor) -> Any:
    with noting([part]):
        for x in inputs:
            part(x)
        return taken([part])


def test_the_loss_is_transformers() -> None:
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    part, x = mixture(n_experts=6, n_active=2, balance_loss=0.01), torch.randn(4, 8, D)
    logits = part.router(x.view(-1, D))
    theirs = load_balancing_loss_func((logits,), 6, 2) / 2  # it counts a token once for each of its experts
    found = routed(part, x)
    torch.testing.assert_close(found.unevenness, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.loss, 0.01 * theirs, rtol=0, atol=1e-7)
    mine, other = (torch.autograd.grad(t, part.router.weight)[0] for t in (found.loss, 0.01 * theirs))
    assert mine.abs().max() > 1e-6
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-8)


def test_even_use_is_one_and_a_single_expert_is_the_worst() -> None:
    even = Routing(torch.full((4,), 2.0), torch.full((4,), 4), torch.tensor(0.0), 8)
    assert even.unevenness() == 1
    assert max_over_mean([even.counts]) == 1
    worst = Routing(torch.tensor([8.0, 0, 0, 0]), torch.tensor([8, 0, 0, 0]), torch.tensor(0.0), 8)
    assert worst.unevenness() == 4
    assert max_over_mean([even.counts, worst.counts]) == 4


def test_several_forward_passes_are_one_lot() -> None:
    part, x = mixture(balance_loss=1.0), torch.randn(6, 4, D)
    whole, parts = routed(part, x), routed(part, x[:2], x[2:])
    torch.testing.assert_close(parts.loss, whole.loss, rtol=0, atol=1e-6)
    assert torch.equal(parts.counts[0], whole.counts[0])
    assert whole.counts[0].sum() == 6 * 4 * 2


def test_z_loss() -> None:
    part, x = mixture(z_loss=0.5), torch.randn(2, 6, D)
    logits = (x.double() @ part.router.weight.double().T).detach().numpy()
    expected = 0.5 * np.mean(np.log(np.exp(logits).sum(-1)) ** 2)
    assert routed(part, x).loss.item() == pytest.approx(expected, abs=1e-6)


def test_nothing_is_noted_unless_asked_or_without_gradients() -> None:
    part, x = mixture(), torch.randn(2, 6, D)
    part(x)
    assert part.noted is None
    with torch.no_grad():
        assert routed(part, x) is None
    assert taken([]) is None


def test_the_bias_moves_towards_the_idle() -> None:
    part = mixture(gate="sigmoid", bias_speed=0.01)
    before = part.selection_bias.clone()
    part.rebalance(torch.tensor([10, 0, 5, 5]))
    torch.testing.assert_close(part.selection_bias - before, torch.tensor([-0.01, 0.01, 0.0, 0.0]))
    assert "selection_bias" in part.state_dict()
    part.router.requires_grad_(False)
    before = part.selection_bias.clone()
    part.rebalance(torch.tensor([10, 0, 5, 5]))
    assert torch.equal(part.selection_bias, before)


def test_a_softmax_gate_has_no_bias() -> None:
    with pytest.raises(ConfigError, match="gate=softmax") as caught:
        mixture(bias_speed=0.001)
    assert caught.value.key == "bias_speed"
    mixture().rebalance(torch.tensor([1, 2, 3, 4]))


def test_first_layers_may_have_no_router() -> None:
    assert not mixture(dense_layers=1).routes
    assert mixture(dense_layers=1, layer=1).routes
