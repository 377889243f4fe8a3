"""What generation remembers of a token, measured on a cache without memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from llm.models.cache import KVCache
from llm.parallelism.precision import Precision
from llm.planning.rehearsal import materialised, origins, shortened
from llm.planning.trace import Trace
from llm.types import Batch, LanguageModel


@dataclass(frozen=True)
class CacheSize:
    """Bytes of the cache of one sequence.

    Attributes:
        per_token: of a token that all layers remember.
        needed: of a whole sequence, where a layer with a sliding window needs that many tokens only.
        taken: of a whole sequence, as `llm.models.cache` stores it today.
    """

    per_token: int
    needed: int
    taken: int


def cache_size(model: nn.Module, seq_len: int, precision: Precision) -> CacheSize:
    """Measures the cache that a sequence of `seq_len` tokens takes; what crosses from an encoder is left out.

    Args:
        model: on the meta device; it is left as it is.
        seq_len: the longest a sequence gets.
        precision: which the cache has, too.
    """
    small, repeats = shortened(model)
    one, all_ = (_by_layer(copy.deepcopy(small), n, precision) for n in (1, seq_len))
    needed = per_token = taken = 0
    for path, like in origins(model, repeats).items():
        if path.startswith("blocks."):
            layer = int(like.rpartition(".")[2])
            window = _window(model.get_submodule(path)) or seq_len
            per_token, taken = per_token + one[layer], taken + all_[layer]
            needed += one[layer] * min(window, seq_len)
    return CacheSize(per_token, needed, taken)


def _by_layer(model: nn.Module, n_tokens: int, precision: Precision) -> list[int]:
    """Bytes of each layer of a cache that has room for `n_tokens` and has read them."""
    with Trace() as trace, torch.no_grad():
        materialised(model, None)
        model.eval()
        cache, reader = KVCache(n_tokens), cast(LanguageModel, model)
        with trace.watching(model), precision.autocast(torch.device("cpu")):
            tokens = torch.zeros((1, n_tokens), dtype=torch.int64)
            source = tokens[:, :1] if hasattr(model, "start_id") else None
            reader.hidden(Batch(tokens, source=source), cache)
        return [cache[layer].nbytes for layer in range(len(reader.blocks))]


def _window(block: nn.Module) -> int | None:
    for module in block.modules():
        if isinstance(window := getattr(module, "window", None), int):
            return window
    return None
