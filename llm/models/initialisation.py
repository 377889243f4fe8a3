"""The first weights of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from llm.models.base import Initialized


@torch.no_grad()
def gpt2(model: nn.Module, generator: torch.Generator, *, std: float, n_layers: int) -> None:
    """Sets every parameter and buffer, as GPT-2 does (Radford et al. 2019, section 2.3).

    Matrices and embeddings are normal with `std`; those that write into the stream (``row`` in the model's
    plan) are smaller by ``sqrt(2 * n_layers)``, so that the stream's variance does not grow with depth. The
    numbers are drawn on the generator's device: the same on every device the model may be on.
    """
    scaled = std / math.sqrt(2 * n_layers)
    published: Any = model
    plan: Mapping[str, str] = published.parallel_plan()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            drawn = torch.empty(module.weight.shape, device=generator.device)
            drawn.normal_(0.0, scaled if plan.get(name) == "row" else std, generator=generator)
            module.weight.copy_(drawn)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
        elif module is not model and isinstance(module, Initialized):
            module.init_weights(generator)
