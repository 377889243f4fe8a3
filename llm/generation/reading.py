"""A model that reads: a batch of prompts first, then one token of each sequence at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llm.generation.sampling import Settings
from llm.models.cache import KVCache, StaticCache
from llm.models.evaluating import evaluating
from llm.types import Batch, LanguageModel

Step = Callable[[Batch, KVCache], Tensor]
"""From what is read next to the scores [B, V] of the token after it."""

ROUND = 64
"""A static cache's capacity is a multiple of it, so that a compiled step serves prompts of many lengths."""


class Reader:
    """Reads on behalf of a generation, and remembers in a cache.

    A model with an encoder reads the prompts there, and its decoder starts from ``model.start_id``.

    Args:
        model: a `LanguageModel`.
        prompts: ids, none of them empty.
        n_new: tokens that will be written after the longest prompt, at most.
        settings: the kind of cache, and whether to keep account of the tokens that were `seen`.
        device: where to compute.
        step: how to read one more token; `scores` of the model when None.

    Attributes:
        seen: which ids each sequence holds [B, V]; None unless a repetition is penalised.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        n_new: int,
        settings: Settings,
        device: torch.device,
        step: Step | None = None,
    ) -> None:
        self.model, self.device = model, device
        self._step = step
        self._n_rows = len(prompts)
        self._penalises = settings.repetition_penalty != 1
        self.seen: Bool[Tensor, "B V"] | None = None
        start = start_id(model)
        written = prompts if start is None else [[start]] * len(prompts)
        capacity = max(map(len, written)) + n_new - 1
        self._cache = KVCache(capacity)
        if settings.cache == "static":
            capacity = -(-capacity // ROUND) * ROUND
            self._cache = StaticCache(capacity)
        tokens, padding = left_padded(written, capacity)
        self._first = Batch(tokens.to(device))
        self._padding = None if padding is None else padding.to(device)
        if start is not None:
            source, source_padding = right_padded(prompts)
            self._first = Batch(self._first.tokens, source=source, source_padding=source_padding).to(device)

    def start(self) -> Float[Tensor, "B V"]:
        """Reads the prompts; scores of the first token to write."""
        tokens = self._first.tokens
        padding = self._seen_padding(tokens.shape[1])
        with evaluating(self.model):
            logits = scores(self.model, replace(self._first, padding=padding), self._cache)
        if self._penalises:
            self.seen = torch.zeros_like(logits, dtype=torch.bool)
            if padding is None:
                self.seen.scatter_(1, tokens, True)
            else:  # padding is no token: it repeats the row's last one here
                self.seen.scatter_(1, torch.where(padding, tokens, tokens[:, -1:]), True)
        return logits

    def read(self, ids: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Reads one token of each sequence; scores of the next."""
        tokens = ids[:, None]
        if self.seen is not None:
            self.seen.scatter_(1, tokens, True)
        batch = Batch(tokens, padding=self._seen_padding(1))
        with evaluating(self.model):
            if self._step is not None:
                return self._step(batch, self._cache)
            return scores(self.model, batch, self._cache)

    def select(self, rows: Sequence[int]) -> None:
        """Goes on with these sequences, in this order; one may be taken several times."""
        if list(rows) == list(range(self._n_rows)):
            return
        self._n_rows = len(rows)
        kept = torch.tensor(rows, device=self.device)
        self._cache.select(kept)
        if self._padding is not None:
            self._padding = self._padding.index_select(0, kept)
        if self.seen is not None:
            self.seen = self.seen.index_select(0, kept)

    def _seen_padding(self, n_new: int) -> Bool[Tensor, "B S"] | None:
        return None if self._padding is None else self._padding[:, : self._cache.columns(n_new)]


def scores(model: LanguageModel, batch: Batch, cache: KVCache) -> Float[Tensor, "B V"]:
    """Of the token after the last one."""
    return model.head(model.hidden(batch, cache)[:, -1])


def start_id(model: LanguageModel) -> int | None:
    """What the decoder of a model with an encoder starts from; None for a model without one."""
    start: int | None = getattr(model, "start_id", None)
    return start


def left_padded(
    rows: Sequence[Sequence[int]], capacity: int
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B S"] | None]:
    """Ids with the rows' ends aligned, and where tokens are [B, capacity].

    None in place of the latter when all rows are equally long: no mask is then needed.
    """
    lengths = [len(row) for row in rows]
    longest = max(lengths)
    tokens = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])
    if min(lengths) == longest:
        return tokens, None
    starts = torch.tensor([longest - length for length in lengths])
    return tokens, torch.arange(capacity) >= starts[:, None]


def right_padded(
    rows: Sequence[Sequence[int]],
) -> tuple[Int[Tensor, "B C"], Bool[Tensor, "B C"] | None]:
    """Ids with the rows' beginnings aligned, and where tokens are; None when all rows are equally long."""
    lengths = [len(row) for row in rows]
    longest = max(lengths)
    tokens = torch.tensor([list(row) + [0] * (longest - len(row)) for row in rows])
    if min(lengths) == longest:
        return tokens, None
    return tokens, torch.arange(longest) < torch.tensor(lengths)[:, None]
