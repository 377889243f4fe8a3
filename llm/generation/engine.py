"""Text from a model: prompts in, completions out, one at a time or as a batch, whole or as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from llm.generation.sampling import Settings, randomness, sample
from llm.generation.text import TextStream
from llm.models.cache import KVCache
from llm.models.evaluating import evaluating
from llm.types import Batch, ConfigError, LanguageModel, Tokenizer


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    Attributes:
        text: the answer, without the stop text or stop token that ended it.
        ids: every token sampled, a final stop token and the tokens of a stop text included.
        log_probs: of each of `ids`, in nats, under the model itself (before temperature and truncation).
        finish_reason: ``stop`` at a stop token or text, ``length`` at `max_new_tokens` or the end of the
            model's context.
        n_prompt_tokens: length of the prompt.
    """

    text: str
    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    n_prompt_tokens: int


class Generator:
    """Writes with one model. Threads may share it: a call keeps its state to itself.

    Args:
        model: a `LanguageModel`; it is moved to `device`.
        tokenizer: decodes what is written; its end-of-document id ends a completion.
        device: where to compute.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, device: torch.device | str = "cpu"
    ) -> None:
        self.tokenizer, self.device = tokenizer, torch.device(device)
        self.model = model.to(self.device)

    def generate(self, prompts: Sequence[Sequence[int]], settings: Settings) -> list[Completion]:
        """Completions of several prompts, computed together.

        Prompt i draws with seed ``settings.seed + i``; its completion is the one it would have alone.

        Raises:
            ConfigError: a prompt longer than the model's context, or empty without a token to start from.
        """
        if not prompts:
            return []
        rows = self._rows(prompts, settings)
        for _ in self._run(rows, settings):
            pass
        return [row.completion() for row in rows]

    def stream(self, ids: Sequence[int], settings: Settings) -> Iterator[str | Completion]:
        """Pieces of text as they become final, never a part of a character, then the `Completion`.

        The pieces join to the completion's text. Closing the iterator ends the generation.

        Raises:
            ConfigError: as `generate`, and before the first piece.
        """
        rows = self._rows([ids], settings)
        return self._stream(rows, settings)

    def _stream(self, rows: list[_Row], settings: Settings) -> Iterator[str | Completion]:
        for _ in self._run(rows, settings):
            if rows[0].piece:
                yield rows[0].piece
        yield rows[0].completion()

    def _rows(self, prompts: Sequence[Sequence[int]], settings: Settings) -> list[_Row]:
        eos, limit = self.tokenizer.eos_id, self.model.max_seq_len
        stop_ids = frozenset(settings.stop_ids) | ({eos} if eos is not None else frozenset())
        rows = []
        for prompt, state in zip(prompts, randomness(settings.seed, len(prompts)), strict=True):
            # A document starts where another one ended.
            ids = list(prompt) or ([eos] if eos is not None else [])
            if not ids:
                raise ConfigError("prompt", "", "is empty, and this tokenizer has no token to start from")
            if len(ids) > limit:
                mend = f"the model reads at most max_seq_len={limit} tokens; shorten it"
                raise ConfigError("prompt", f"({len(ids)} tokens)", mend)
            # The last token written is never read, so it may lie one past the end of the context.
            n_new = min(settings.max_new_tokens, limit - len(ids) + 1)
            rows.append(_Row(ids, n_new, stop_ids, state, TextStream(self.tokenizer, settings.stop)))
        return rows

    def _run(self, rows: list[_Row], settings: Settings) -> Iterator[None]:
        """Writes one token of every unfinished row per iteration."""
        longest = max(len(row.prompt) for row in rows)
        capacity = longest + max(row.n_new for row in rows) - 1
        tokens, padding = _left_padded([row.prompt for row in rows], capacity)
        tokens = tokens.to(self.device)
        padding = None if padding is None else padding.to(self.device)
        cache = KVCache(capacity)
        while True:
            logits = self._next_logits(tokens, padding, cache)
            ids, log_probs = sample(logits, settings, [row.randomness for row in rows])
            for row, token, log_prob in zip(rows, ids.tolist(), log_probs.tolist(), strict=True):
                row.push(token, log_prob)
            yield
            going = [i for i, row in enumerate(rows) if row.finish_reason is None]
            if not going:
                return
            if len(going) < len(rows):  # those that are done no longer cost anything
                rows = [rows[i] for i in going]
                kept = torch.tensor(going, device=self.device)
                cache.select(kept)
                ids = ids[kept]
                padding = None if padding is None else padding[kept]
            tokens = ids[:, None]

    def _next_logits(self, tokens: Tensor, padding: Tensor | None, cache: KVCache) -> Tensor:
        """Scores [B, V] of the token after the last one."""
        seen = None if padding is None else padding[:, : cache.length + tokens.shape[1]]
        with evaluating(self.model):
            hidden = self.model.hidden(Batch(tokens, padding=seen), cache)
            return self.model.head(hidden[:, -1])


class _Row:
    """One prompt on its way to a completion."""

    def __init__(
        self,
        prompt: list[int],
        n_new: int,
        stop_ids: frozenset[int],
        state: torch.Generator,
        stream: TextStream,
    ) -> None:
        self.prompt, self.n_new, self.stop_ids = prompt, n_new, stop_ids
        self.randomness, self.stream = state, stream
        self.ids: list[int] = []
        self.log_probs: list[float] = []
        self.piece = ""
        self.finish_reason: Literal["stop", "length"] | None = None

    def push(self, token: int, log_prob: float) -> None:
        self.ids.append(token)
        self.log_probs.append(log_prob)
        if token in self.stop_ids:
            self.piece, self.finish_reason = self.stream.finish(), "stop"
            return
        self.piece = self.stream.push(token)
        if not self.stream.stopped and len(self.ids) == self.n_new:
            self.piece += self.stream.finish()
            self.finish_reason = "length"
        if self.stream.stopped:
            self.finish_reason = "stop"

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        return Completion(
            self.stream.text, tuple(self.ids), tuple(self.log_probs), self.finish_reason, len(self.prompt)
        )


def _left_padded(prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Tensor, Tensor | None]:
    """Ids [B, longest] with the prompts' ends aligned, and where tokens are [B, capacity].

    None in place of the latter when all prompts are equally long: no mask is then needed.
    """
    lengths = [len(prompt) for prompt in prompts]
    longest = max(lengths)
    tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    if min(lengths) == longest:
        return tokens, None
    starts = torch.tensor([longest - length for length in lengths])
    return tokens, torch.arange(capacity) >= starts[:, None]
