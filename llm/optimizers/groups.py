"""Learning rates that differ between parameters, for any optimizer and without its knowing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

MakeOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]


def with_rates(make: MakeOptimizer, rates: Mapping[str, float]) -> MakeOptimizer:
    """`make`, with some parameters' learning rates multiplied.

    The groups that `make` forms are split by multiplier. Weight decay is divided by it: what a step takes off
    a weight is ``lr * weight_decay`` of it, and stays what it is without the multiplier (as in the authors'
    package ``mup``; "independent" decay: Wortsman et al. 2023, arXiv 2309.14322, section 3.2.2).

    Args:
        make: an `optimizer` component.
        rates: multipliers by parameter name, as a model publishes them; others have 1. They are derived for
            optimizers of Adam's kind, whose step does not depend on the size of a gradient.
    """
    if not rates:
        return make

    def made(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        named = list(named_parameters)
        optimizer = make(named)
        of = {id(parameter): rates.get(name, 1.0) for name, parameter in named}
        optimizer.param_groups[:] = [part for group in optimizer.param_groups for part in _split(group, of)]
        return optimizer

    return made


def _split(group: Mapping[str, Any], rates: Mapping[int, float]) -> list[dict[str, Any]]:
    """One group for each multiplier; that of 1 is first, because the first group's rate is what is logged."""
    parameters = group["params"]
    found = {rates[id(parameter)] for parameter in parameters}
    parts = []
    for rate in sorted(found, key=lambda rate: (rate != 1.0, rate)):
        mine = [place for place, parameter in enumerate(parameters) if rates[id(parameter)] == rate]
        part = {**group, "params": [parameters[place] for place in mine], "lr": group["lr"] * rate}
        if "weight_decay" in group:
            part["weight_decay"] = group["weight_decay"] / rate
        if "param_names" in group:
            part["param_names"] = [group["param_names"][place] for place in mine]
        parts.append(part)
    return parts
