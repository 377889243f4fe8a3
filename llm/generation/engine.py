"""Text from a model: prompts in, completions out, one at a time or as a batch, whole or as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor

from llm.generation.beams import Search, search
from llm.generation.reading import Reader, left_padded, right_padded, scores, start_id
from llm.generation.sampling import Settings, likeliest, randomness, sample
from llm.generation.text import TextStream
from llm.models.cache import KVCache
from llm.models.evaluating import evaluating
from llm.models.likelihood import target_log_probs
from llm.types import IGNORE, Batch, ConfigError, LanguageModel, Tokenizer


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    Attributes:
        text: the answer, without the stop text or stop token that ended it.
        ids: every token sampled, a final stop token and the tokens of a stop text included.
        log_probs: of each of `ids`, in nats, under the model itself (before temperature and truncation).
        finish_reason: ``stop`` at a stop token or text, ``length`` at `max_new_tokens` or the end of the
            model's context.
        n_prompt_tokens: length of the prompt, with the end that it gets for an encoder.
        top_log_probs: for each of `ids`, the likeliest tokens in its place, likeliest first, as pairs of id
            and log-probability; empty unless the settings ask for them.
        score: by which a beam search preferred it; None without one.
    """

    text: str
    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    n_prompt_tokens: int
    top_log_probs: tuple[tuple[tuple[int, float], ...], ...] = ()
    score: float | None = None


class Generator:
    """Writes with one model. Threads may share it: a call keeps its state to itself.

    Args:
        model: a `LanguageModel`, with an encoder that reads the prompts or without; it is moved to `device`.
        tokenizer: decodes what is written; its end-of-document id ends a completion.
        device: where to compute.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, device: torch.device | str = "cpu"
    ) -> None:
        self.tokenizer, self.device = tokenizer, torch.device(device)
        self.model = model.to(self.device)
        self._compiled: Any = None

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

    def log_probs(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Of each token of the continuations, in nats, each after its prompt and its own beginning.

        Raises:
            ConfigError: prompt and continuation are longer than the model's context; an empty prompt.
        """
        rows = self._rows(prompts, Settings())
        limit, start = self.model.max_seq_len, start_id(self.model)
        # Row by row: what the model reads, and which of the next tokens count.
        reads = [
            [*(row.prompt if start is None else [start]), *c]
            for row, c in zip(rows, continuations, strict=True)
        ]
        for ids in reads:
            if len(ids) - 1 > limit:
                mend = f"the model reads at most max_seq_len={limit} tokens; shorten it"
                raise ConfigError("prompt", f"({len(ids)} tokens)", mend)
        tokens, padding = left_padded(reads, max(map(len, reads)))
        counts = torch.tensor([len(c) for c in continuations])
        places = torch.arange(tokens.shape[1] - 1)
        targets = tokens[:, 1:].masked_fill(places < len(places) - counts[:, None], IGNORE)
        source, source_padding = (None, None) if start is None else right_padded([row.prompt for row in rows])
        batch = Batch(
            tokens[:, :-1],
            targets,
            padding=None if padding is None else padding[:, :-1],
            source=source,
            source_padding=source_padding,
        )
        with evaluating(self.model):
            found = target_log_probs(self.model, batch.to(self.device)).tolist()
        return [tuple(row[len(row) - len(c) :]) for row, c in zip(found, continuations, strict=True)]

    def _stream(self, rows: list[_Row], settings: Settings) -> Iterator[str | Completion]:
        for _ in self._run(rows, settings):
            if rows[0].piece:
                yield rows[0].piece
        yield rows[0].completion()

    def _rows(self, prompts: Sequence[Sequence[int]], settings: Settings) -> list[_Row]:
        eos, limit = self.tokenizer.eos_id, self.model.max_seq_len
        starts = start_id(self.model)
        stop_ids = frozenset(settings.stop_ids) | ({eos} if eos is not None else frozenset())
        rows = []
        for prompt, state in zip(prompts, randomness(settings.seed, len(prompts)), strict=True):
            # A document starts where another one ended.
            ids = list(prompt) or ([eos] if eos is not None else [])
            if starts is not None and eos is not None and ids[-1] != eos:
                ids.append(eos)  # the end of all that an encoder was taught to read
            if not ids:
                raise ConfigError("prompt", "", "is empty, and this tokenizer has no token to start from")
            if len(ids) > limit:
                mend = f"the model reads at most max_seq_len={limit} tokens; shorten it"
                raise ConfigError("prompt", f"({len(ids)} tokens)", mend)
            # The last token written is never read, so it may lie one past the end of the context.
            n_read = len(ids) if starts is None else 1
            n_new = min(settings.max_new_tokens, limit - n_read + 1)
            rows.append(_Row(ids, n_new, stop_ids, state, TextStream(self.tokenizer, settings.stop)))
        return rows

    def _run(self, rows: list[_Row], settings: Settings) -> Iterator[None]:
        """Writes one token of every unfinished row per iteration; with beams, all there is in one."""
        prompts, n_new = [row.prompt for row in rows], max(row.n_new for row in rows)
        step = self._step() if settings.compile else None
        reader = Reader(self.model, prompts, n_new, settings, self.device, step)
        if settings.n_beams > 1:
            self._search(reader, rows, settings)
            yield
            return
        logits = reader.start()
        while True:
            ids, log_probs = sample(logits, settings, [row.randomness for row in rows], reader.seen)
            tops = likeliest(logits, settings.top_log_probs) if settings.top_log_probs else [()] * len(rows)
            for row, *written in zip(rows, ids.tolist(), log_probs.tolist(), tops, strict=True):
                row.push(*written)
            yield
            going = [i for i, row in enumerate(rows) if row.finish_reason is None]
            if not going:
                return
            if len(going) < len(rows):  # those that are done no longer cost anything
                rows = [rows[i] for i in going]
                ids = ids[going]
                reader.select(going)
            logits = reader.read(ids)

    def _search(self, reader: Reader, rows: list[_Row], settings: Settings) -> None:
        """Writes the best beam of each row."""
        searches = [
            Search(row.n_new, row.stop_ids, row.stream.fork() if settings.stop else None, settings)
            for row in rows
        ]
        search(reader, searches, settings)
        for row, one in zip(rows, searches, strict=True):
            best, piece = one.answers[0], ""
            tops = best.top_log_probs or ((),) * len(best.ids)
            for token, log_prob, top in zip(best.ids, best.log_probs, tops, strict=True):
                row.push(token, log_prob, top)
                piece += row.piece
            row.piece, row.score = piece, best.score(settings.length_penalty)

    def _step(self) -> Callable[[Batch, KVCache], Tensor]:
        """The step of one token, compiled the first time that it is asked for."""
        if self._compiled is None:
            self._compiled = torch.compile(partial(scores, self.model))
        return cast("Callable[[Batch, KVCache], Tensor]", self._compiled)


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
        self.top_log_probs: list[tuple[tuple[int, float], ...]] = []
        self.piece = ""
        self.score: float | None = None
        self.finish_reason: Literal["stop", "length"] | None = None

    def push(self, token: int, log_prob: float, top: tuple[tuple[int, float], ...] = ()) -> None:
        self.ids.append(token)
        self.log_probs.append(log_prob)
        if top:
            self.top_log_probs.append(top)
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
            self.stream.text,
            tuple(self.ids),
            tuple(self.log_probs),
            self.finish_reason,
            len(self.prompt),
            tuple(self.top_log_probs),
            self.score,
        )
