"""How many parameters a model has and how much work a token is, without running or allocating it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from llm.models.decoder import Decoder

Model = TypeVar("Model", bound=nn.Module)


def on_meta(make_model: Callable[[], Model]) -> Model:
    """Builds a model whose tensors have shapes and no storage, however large it is."""
    with torch.device("meta"):
        return make_model()


def count_parameters(model: nn.Module) -> int:
    """Numbers that training changes or could change; a tensor used in two places counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def parameters_by_part(model: nn.Module) -> dict[str, int]:
    """`count_parameters` divided over embedding, position, attention, feed_forward, norm and unembedding."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        path = name.split(".")
        part = path[2] if path[0] == "blocks" else path[0]
        counts["norm" if part.endswith("norm") else part] += parameter.numel()
    return dict(counts)


def flops_per_token(model: Decoder, context_tokens: float) -> float:
    """Forward floating-point operations for one token; training costs three times as much.

    Two for each weight of a matrix (a multiplication and an addition), the head's included, and what each
    attention needs to look at `context_tokens` (Kaplan et al. 2020, table 1). Norms, activations and
    look-ups are left out, as is usual: they are less than a hundredth.

    Args:
        model: may be on the meta device.
        context_tokens: tokens attended to: ``seq_len`` for what kernels without causal skipping compute and
            published numbers count, ``(seq_len + 1) / 2`` for what a causal model needs.
    """
    matrices = sum(2 * m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    if model.unembedding is None:
        matrices += 2 * model.embedding.weight.numel()
    mixing = sum(block.attention.mixing_flops(context_tokens) for block in model.layers())
    return float(matrices + mixing)
