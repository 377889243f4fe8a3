from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from llm.optimizers.adamw import adamw
from llm.optimizers.groups import with_rates

RATES = {"hidden": 0.25, "gain": 2.0, "not there": 0.1}


def parameters() -> list[tuple[str, nn.Parameter]]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"hidden": (4, 3), "table": (5, 3), "gain": (3,), "bias": (4,)}
    made = [(name, nn.Parameter(torch.randn(shape, generator=generator))) for name, shape in shapes.items()]
    for _, parameter in made:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return made


def test_each_parameter_moves_at_its_own_rate_and_decays_at_the_common_one() -> None:
    ours, theirs = parameters(), parameters()
    optimizer = with_rates(partial(adamw, lr=1e-2, weight_decay=0.5), RATES)(iter(ours))
    for _ in range(3):
        optimizer.step()
    for name, parameter in theirs:
        rate, decay = RATES.get(name, 1.0), 0.5 if parameter.ndim == 2 else 0.0
        one = torch.optim.Adam([parameter], lr=1e-2 * rate, betas=(0.9, 0.95))
        for _ in range(3):
            with torch.no_grad():
                parameter.mul_(1 - 1e-2 * decay)  # whatever the rate
            one.step()
    for (name, mine), (_, other) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6, msg=name)


def test_the_rate_that_is_logged_is_the_configs() -> None:
    optimizer = with_rates(partial(adamw, lr=1e-2), {"hidden": 0.25})(parameters())
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 0.25e-2, 1e-2]
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(held)) == 4


def test_without_rates_the_optimizer_is_its_own() -> None:
    assert with_rates(adamw, {}) is adamw


def test_names_stay_with_their_parameters() -> None:
    named = parameters()

    def by_name(pairs: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(list(pairs), lr=1.0)

    optimizer = with_rates(by_name, RATES)(named)
    of = dict(named)
    for group in optimizer.param_groups:
        assert [
            of[name] is parameter
            for name, parameter in zip(group["param_names"], group["params"], strict=True)
        ]
        assert {RATES.get(name, 1.0) for name in group["param_names"]} == {group["lr"]}


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_state_goes_on_across_a_split(rate: float) -> None:
    """Groups are the optimizer's own from then on: saving and loading its state works as ever."""
    named = parameters()
    make = with_rates(partial(adamw, lr=1e-2), {"hidden": rate})
    first, second = make(named), make(named)
    first.step()
    second.load_state_dict(first.state_dict())
    assert second.state_dict()["state"].keys() == first.state_dict()["state"].keys() == {0, 1, 2, 3}
