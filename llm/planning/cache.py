"""What generation remembers of a token, measured on a cache without memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from llm.models.cache import KVCache
from llm.parallelism.precision import Precision
from llm.planning.rehearsal import materialised, naming, origins, shortened
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

    per_token: float
    needed: int
    taken: int


def cache_size(model: nn.Module, seq_len: int, precision: Precision) -> CacheSize:
    """Measures the cache that a sequence of `seq_len` tokens takes.

    Args:
        model: on the meta device; it is left as it is.
        seq_len: the longest a sequence gets.
        precision: which the cache has, too.
    """
    small, repeats = shortened(model)
    copied = copy.deepcopy(small)
    with Trace() as trace, torch.no_grad():
        materialised(copied, None)
        copied.eval()
        cache, reader = KVCache(seq_len), cast(LanguageModel, copied)
        with trace.watching(copied), naming(trace, copied):
            tokens = torch.zeros((1, 1), dtype=torch.int64)
            source = tokens if hasattr(copied, "start_id") else None
            trace.segment = ("start", "")
            with precision.autocast(
                torch.device("cpu")
            ):  # which keeps narrow copies of weights until its end
                reader.hidden(Batch(tokens, source=source), cache)
            with_it = trace.live()
            del cache
            left = trace.live()  # such as what a mixture notes of its load
    by_block = {block: size - left.get(block, 0) for block, size in with_it.items()}
    needed = per_token = taken = 0.0
    for path, like in origins(model, repeats).items():
        size = by_block.get(like, 0)
        window = _window(model.get_submodule(path))
        taken += size
        per_token += size / seq_len
        needed += size * min(window or seq_len, seq_len) / seq_len
    return CacheSize(per_token, round(needed), round(taken))


def _window(block: nn.Module) -> int | None:
    for module in block.modules():
        if isinstance(window := getattr(module, "window", None), int):
            return window
    return None
