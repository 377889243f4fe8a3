"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), with decay on matrices only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

Beta = Annotated[float, Field(ge=0, lt=1)]


def adamw(
    named_parameters: Iterable[tuple[str, Tensor]],
    *,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    betas: tuple[Beta, Beta] = (0.9, 0.95),
    eps: Annotated[float, Field(gt=0)] = 1e-8,
    weight_decay: Annotated[float, Field(ge=0)] = 0.1,
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of a model.

    Weight decay pulls matrices (embeddings included) to zero, and leaves biases and norm gains, which
    have one dimension, alone: shrinking a gain changes the function, not just its complexity
    (the recipe of GPT-3, Brown et al. 2020, as nanoGPT spells it).

    Args:
        named_parameters: ``model.named_parameters()``; sharded tensors (DTensor) are fine.
        lr: Learning rate at multiplier 1 of the schedule.
        betas: Decay rates of the running mean of the gradient and of its square.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled decay: each step multiplies a matrix by ``1 - lr * weight_decay``.

    Returns:
        The optimizer, its state still empty.
    """
    trainable = [p for _, p in named_parameters if p.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2]
    vectors = [p for p in trainable if p.ndim < 2]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((matrices, weight_decay), (vectors, 0.0))
        if params
    ]
    # One fused pass over memory instead of ten; torch has that kernel for floats on these devices.
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in trainable)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused or None)
