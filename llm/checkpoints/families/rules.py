"""How tensors are named and laid out elsewhere: rules that hold in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Config = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """Our tensors' names by pattern, theirs by replacement, and how to go from one form to the other.

    Attributes:
        ours: a regular expression for the whole name.
        theirs: one or more names, with groups of `ours` as ``\\1``.
        join: from their tensors and our config to our tensor.
        split: back.
    """

    ours: str
    theirs: Sequence[str]
    join: Callable[[Sequence[Tensor], Config], Tensor] = lambda parts, _: parts[0]
    split: Callable[[Tensor, Config], Sequence[Tensor]] = lambda tensor, _: [tensor]

    def names(self, ours: str) -> list[str] | None:
        """Their names of our tensor; None when this rule is not about it."""
        match = re.fullmatch(self.ours, ours)
        return [match.expand(name) for name in self.theirs] if match else None


def _groups(config: Config) -> int:
    return int(config.get("n_kv_heads") or config["n_heads"])


def unflat(tensor: Tensor, *sizes: int) -> Tensor:
    """The rows as so many groups (of so many groups) of rows."""
    return tensor.reshape(*sizes, -1, *tensor.shape[1:])


def join_qkv(parts: Sequence[Tensor], config: Config) -> Tensor:
    """Queries, keys, values as one matrix ordered by key-value head (see `MultiHeadAttention`)."""
    return torch.cat([unflat(part, _groups(config)) for part in parts], 1).flatten(0, 1)


def split_qkv(tensor: Tensor, config: Config) -> Sequence[Tensor]:
    """Back to queries, keys and values."""
    queries_per_kv = config["n_heads"] // _groups(config)
    groups = unflat(tensor, _groups(config), queries_per_kv + 2)
    return [part.flatten(0, 2).contiguous() for part in torch.split(groups, [queries_per_kv, 1, 1], 1)]


def qkv(theirs: str, parameter: str = "weight|bias") -> Rule:
    """Three matrices of theirs, named by replacing ``*`` by q, k and v, and our one."""
    names = [theirs.replace("*", letter) for letter in "qkv"]
    return Rule(rf"blocks\.(\d+)\.attention\.qkv\.({parameter})", names, join_qkv, split_qkv)


def renamed(prefix: str, **names: str) -> list[Rule]:
    """``blocks.N.OURS.PARAMETER`` is ``PREFIX.N.THEIRS.PARAMETER``."""
    return [
        Rule(rf"blocks\.(\d+)\.{ours.replace('__', '[.]')}\.(weight|bias)", [rf"{prefix}.\1.{theirs}.\2"])
        for ours, theirs in names.items()
    ]
