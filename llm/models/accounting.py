"""How many parameters a model has and how much work a token is, without running or allocating it.

Everything here takes any model of the project, on any device; the meta device is enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn

from llm.models.adapters.nf4 import NF4Linear
from llm.models.encoder_decoder import EncoderDecoder

PARTS = (
    "embedding",
    "positions",
    "attention",
    "feed-forward",
    "experts",
    "shared experts",
    "router",
    "norms",
    "head",
    "other",
)
"""Kinds of parameters, in the order a token meets them."""


@dataclass
class Part:
    """What one kind of parameters comes to in a model.

    Attributes:
        parameters: their number; a tensor used in two places counts once, in the first.
        active: those that work on a token: of a mixture's experts, as many as are active.
        flops: forward floating-point operations a token.
    """

    parameters: int = 0
    active: int = 0
    flops: float = 0.0


def count_parameters(model: nn.Module) -> int:
    """Numbers a model has learned, frozen and four-bit ones included; one used in two places counts once."""
    packed = (m.in_features * m.out_features for m in model.modules() if isinstance(m, NF4Linear))
    return sum(parameter.numel() for parameter in model.parameters()) + sum(packed)


def count_trained(model: nn.Module) -> int:
    """Those of them that training changes: all, or an adapter's."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def flops_per_token(model: nn.Module, context_tokens: float) -> float:
    """Forward floating-point operations for one token; training costs three times as much.

    Two for each weight of a matrix that works on the token (a multiplication and an addition), the head's
    included, and what each attention needs to look at `context_tokens` (Kaplan et al. 2020, table 1). Of a
    mixture's experts only the active ones count. Norms, activations and look-ups are left out, as is usual:
    they are less than a hundredth.

    Args:
        model: may be on the meta device.
        context_tokens: tokens attended to: ``seq_len`` for what kernels without causal skipping compute and
            published numbers count, ``(seq_len + 1) / 2`` for what a causal model needs. Of an
            encoder-decoder model: the tokens of its source, and of its target; the mean over both is given.
    """
    if isinstance(model, EncoderDecoder):
        return model.forward_flops(context_tokens, context_tokens) / (2 * context_tokens)
    return float(sum(part.flops for part in parts(model, context_tokens).values()))


def parts(model: nn.Module, context_tokens: float = 0.0) -> dict[str, Part]:
    """Parameters and work by kind, those of `PARTS` that the model has.

    Args:
        model: as in `flops_per_token`.
        context_tokens: as there.
    """
    found = {name: Part() for name in PARTS}
    for path, owner, shape, share in _parameters(model):
        part = found[_kind(path, owner)]
        size = math.prod(shape)
        part.parameters += size
        part.active += int(size * share)
        if len(shape) >= 2 and not isinstance(owner[-1], nn.Embedding):
            part.flops += 2.0 * float(size * share)
    if getattr(model, "unembedding", True) is None:  # the head scores with the embeddings
        found["head"].flops += 2.0 * _embedding(model).weight.numel()
    for module in model.modules():
        if callable(mixing := getattr(module, "mixing_flops", None)):
            found["attention"].flops += mixing(context_tokens)
    return {name: part for name, part in found.items() if part.parameters or part.flops}


def active_parameters(model: nn.Module) -> int:
    """Parameters that work on one token: all but those of the experts that it is not sent to."""
    return sum(part.active for part in parts(model).values())


def _embedding(model: nn.Module) -> nn.Embedding:
    embedding: Any = model.get_submodule("embedding")
    assert isinstance(embedding, nn.Embedding)
    return embedding


def _parameters(
    model: nn.Module,
) -> Iterator[tuple[list[str], list[nn.Module], tuple[int, ...], Fraction]]:
    """Each parameter once: its path, the modules along it, its shape, and the share of tokens it works on.

    A four-bit matrix is one, though torch knows its codes only.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, NF4Linear):
            shapes[f"{name}.weight"] = (module.out_features, module.in_features)
    for name, shape in shapes.items():
        path = name.split(".")
        owners, share = [model], Fraction(1)
        for step in path[:-1]:
            owner = owners[-1]
            if step == "experts" and hasattr(owner, "n_experts") and hasattr(owner, "n_active"):
                share *= Fraction(int(owner.n_active), int(owner.n_experts))  # type: ignore[arg-type]
            owners.append(owner.get_submodule(step))
        if path[-1] == "experts":  # all experts' matrices in one tensor
            share *= Fraction(int(owners[-1].n_active), int(owners[-1].n_experts))  # type: ignore[arg-type]
        yield path, owners, shape, share


def _kind(path: list[str], owners: list[nn.Module]) -> str:
    """By the nearest thing that says what it is: the module itself, then what it is part of."""
    owner = owners[-1]
    if "norm" in type(owner).__name__.lower():
        return "norms"
    for name, kind in (("router", "router"), ("experts", "experts"), ("shared", "shared experts")):
        if name in path and any(hasattr(module, "n_experts") for module in owners):
            return kind
    if any(callable(getattr(module, "mixing_flops", None)) for module in owners):
        return "attention"
    if "feed_forward" in path:
        return "feed-forward"
    if any("position" in step for step in path):
        return "positions"
    if isinstance(owner, nn.Embedding):
        return "embedding"
    return "head" if {"unembedding", "head"} & set(path) else "other"
