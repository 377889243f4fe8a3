"""Which linear layers an adapter stands beside, chosen by their names in the model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from llm.models.adapters.base import Linear, Replacement
from llm.models.adapters.merge import merged
from llm.types import ConfigError

Make = Callable[[Linear, torch.Generator], Replacement]


def linear_names(model: nn.Module) -> list[str]:
    """Names of the linear layers an adapter may change, as ``blocks.0.attention.qkv``.

    Not the head that scores tokens: it is often the embedding too, and adapters leave both alone (Hu et al.
    2021, section 4.2, adapt attention only).
    """
    return [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and "." in name]


def chosen(model: nn.Module, patterns: Sequence[str], *, key: str = "targets") -> list[str]:
    """The linear layers that one of `patterns` names, in the model's order.

    Args:
        model: without adapters.
        patterns: names, whole or from any dot on, with ``*`` for anything: ``attention.qkv`` is that of every
            block, ``blocks.0.*`` all of the first.
        key: the config key that a mistake is reported under.

    Raises:
        ConfigError: there are no patterns, or one of them names no layer.
    """
    names = linear_names(model)
    found: set[str] = set()
    for pattern in patterns:
        hits = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")}
        if not hits:
            mend = f"{pattern} names no linear layer; there are {_kinds(names)}"
            raise ConfigError(key, list(patterns), mend)
        found |= hits
    if not found:
        raise ConfigError(key, list(patterns), f"name at least one linear layer; there are {_kinds(names)}")
    return [name for name in names if name in found]


def replaced(model: nn.Module, names: Sequence[str], make: Make, *, seed: int) -> nn.Module:
    """`model` with ``make(layer, generator)`` in the place of each named linear layer, in place.

    Each layer draws from a generator of its own, which follows from `seed` and the layer's name: what else is
    adapted does not matter.
    """
    for name in names:
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        layer = model.get_submodule(name)
        assert isinstance(layer, Linear)
        model.set_submodule(name, make(layer, generator))
    return model


def frozen(model: nn.Module) -> nn.Module:
    """`model` with nothing trainable; adapters of earlier training have become part of its weights."""
    return merged(model).requires_grad_(False)


def _kinds(names: Sequence[str]) -> str:
    """The names without what differs from block to block."""
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names))
