"""T5's first weights: each matrix by the width of what it reads."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from llm.models.attention.multi_head import MultiHeadAttention
from llm.models.base import Initialized


@torch.no_grad()
def t5(model: nn.Module, generator: torch.Generator, *, std: float, n_layers: int) -> None:  # noqa: ARG001
    """Sets every parameter and buffer, as Mesh TensorFlow does for T5 (Raffel et al. 2020, section 3.1).

    A matrix is normal with a standard deviation of one over the root of its inputs; token embeddings have
    one (less where the model multiplies them); tables of relative positions that of a matrix that reads the
    stream. Query rows are smaller by what the attention does not scale its scores by: T5 does not scale them
    at all, and has the root of a head's width in its first queries. Drawn on the generator's device.
    """
    made: Any = model
    tokens = made.embedding
    for module in model.modules():
        if isinstance(module, nn.Linear):
            _draw(module, module.in_features**-0.5, generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            std = 1 / made.embedding_scale if module is tokens else tokens.embedding_dim**-0.5
            _draw(module, std, generator)
        elif module is not model and isinstance(module, Initialized):
            module.init_weights(generator)
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            groups = module.qkv.weight.unflatten(0, (-1, module.queries_per_kv + 2, module.head_dim))
            groups[:, : module.queries_per_kv] *= 1 / (module.scale * math.sqrt(module.head_dim))


def _draw(module: nn.Linear | nn.Embedding, std: float, generator: torch.Generator) -> None:
    drawn = torch.empty(module.weight.shape, device=generator.device)
    module.weight.copy_(drawn.normal_(0.0, std, generator=generator))
