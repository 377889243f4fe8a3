"""Adapters folded into the weights they stand beside: a plain model again."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from llm.models.adapters.base import Replacement


def is_adapted(model: nn.Module) -> bool:
    """Whether a linear layer of `model` is replaced by an adapter's or a quantised one."""
    return any(isinstance(module, Replacement) for module in model.modules())


@torch.no_grad()
def merged(model: nn.Module) -> nn.Module:
    """A copy of `model` with plain linear layers throughout and all weights trainable.

    Quantised layers become what their codes stand for. Tensors that no adapter changes are shared with
    `model`, not copied. A model without adapters is given back as it is.
    """
    if not is_adapted(model):
        return model
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach()) for p in model.parameters()}
    memo |= {id(b): b for b in model.buffers()}
    # What a part noted of its last batch may hang on a graph, and such a tensor cannot be copied.
    noted = (value for module in model.modules() for value in vars(module).values())
    memo |= {id(value): value.detach() for value in noted if isinstance(value, torch.Tensor)}
    plain = copy.deepcopy(model, memo)
    replacements = [(name, m) for name, m in plain.named_modules() if isinstance(m, Replacement)]
    for name, module in replacements:
        # The outermost one knows what is inside it, which has left the model with it.
        if not any(name.startswith(f"{outer}.") for outer, _ in replacements):
            plain.set_submodule(name, module.merged())
    return plain


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """The layer of a matrix, [out, in], and a bias, [out]."""
    rows, columns = weight.shape
    layer = nn.Linear(columns, rows, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach())
    return layer
