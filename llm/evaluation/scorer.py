"""A model that answers requests: batched log-likelihoods of continuations, and generations.

The likelihood of a continuation is the sum over its tokens of log p(token | all before). Where a
prompt ends inside the tokens and what happens to texts longer than the context is told in `spans`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from llm.evaluation.spans import boundary, windows
from llm.generation.engine import Generator
from llm.generation.sampling import Settings
from llm.models.evaluating import evaluating
from llm.models.likelihood import target_log_probs
from llm.tokenizers.base import opening_ids
from llm.tokenizers.template import template_for
from llm.types import (
    IGNORE,
    Batch,
    ChatTemplate,
    Conversation,
    LanguageModel,
    Message,
    Request,
    Response,
    Tokenizer,
)

BATCH_TOKENS = 8192
"""Tokens of one forward pass, padding included: the work of a training batch, without its gradients."""

HEAD_TOKENS = 4096
"""Places whose logits exist at once: with a vocabulary of 50,000 that is 0.8 GB in float32."""


GENERATIONS = 32
"""Prompts answered at once; each holds a cache of keys and values."""


@dataclass(frozen=True)
class _Piece:
    request: int
    tokens: list[int]
    first: int  # index in `tokens` of the first scored one, at least 1


class Scorer:
    """Answers `Request`s with a model and its tokenizer.

    Args:
        model: a causal language model (`llm.types.LanguageModel`); left as it was found.
        tokenizer: the one the model was trained with.
        batch_tokens: tokens of one forward pass, padding included.
        cache: where an exam may keep what it prepares (tokenized text); a temporary folder when None.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        batch_tokens: int = BATCH_TOKENS,
        cache: Path | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._batch_tokens = batch_tokens
        self._chat: ChatTemplate | None = None
        if cache is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="llm-evaluation-")  # as long as this lives
            cache = Path(self._temporary.name)
        self.cache = cache
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))

    @property
    def chat(self) -> ChatTemplate:
        """The chat template of the tokenizer.

        Raises:
            ConfigError: when the tokenizer has no chat markers.
        """
        if self._chat is None:
            self._chat = template_for(self.tokenizer)
        return self._chat

    @property
    def max_seq_len(self) -> int:
        """The model's context in tokens."""
        return self.model.max_seq_len

    def respond(
        self, requests: Sequence[Request], advance: Callable[[int], object] = lambda _: None
    ) -> list[Response]:
        """Answers in the order of the requests; `advance` is told of each request done.

        Raises:
            ConfigError: a conversation for a tokenizer without chat markers.
        """
        responses = [Response()] * len(requests)
        scored = [i for i, request in enumerate(requests) if request.continuation is not None]
        written = [i for i, request in enumerate(requests) if request.continuation is None]
        with evaluating(self.model):
            for i, response in zip(
                scored, self._likelihoods([requests[i] for i in scored], advance), strict=True
            ):
                responses[i] = response
            for i, response in zip(
                written, self._generations([requests[i] for i in written], advance), strict=True
            ):
                responses[i] = response
        return responses

    def tokens(self, request: Request) -> tuple[list[int], int]:
        """Ids of the prompt and continuation, and the index of the first id that is scored.

        A text prompt that is empty starts from the document separator; without one (a plain character
        vocabulary) the very first token has nothing before it and stays unscored. A conversation ends
        with the assistant's turn, whose text and closing marker are scored, as in training.
        """
        assert request.continuation is not None
        if isinstance(request.prompt, str):
            ids = self.tokenizer.encode(request.prompt + request.continuation)
            first = boundary(self.tokenizer, request.prompt, ids)
            if opening := opening_ids(self.tokenizer):
                return [*opening, *ids], first + len(opening)
            if first == 0 and self.tokenizer.eos_id is not None:
                return [self.tokenizer.eos_id, *ids], 1
            return ids, max(first, 1)
        turns: Conversation = (*request.prompt, Message("assistant", request.continuation))
        ids, mask = self.chat.render(turns)
        end = len(mask)
        while end and not mask[end - 1]:  # what follows the turn (a newline in ChatML) has no loss
            end -= 1
        first = end
        while first and mask[first - 1]:
            first -= 1
        return ids[:end], max(first, 1)

    # ------------------------------------------------------------------ log-likelihoods

    def _likelihoods(self, requests: Sequence[Request], advance: Callable[[int], object]) -> list[Response]:
        pieces: list[_Piece] = []
        left = [0] * len(requests)
        for number, request in enumerate(requests):
            ids, first = self.tokens(request)
            for window in windows(first, len(ids), self.max_seq_len):
                pieces.append(_Piece(number, ids[window.begin : window.end], window.first - window.begin))
                left[number] += 1
        sums, counts = [0.0] * len(requests), [0] * len(requests)
        advance(sum(n == 0 for n in left))  # empty continuations: nothing to score
        for group in _groups(pieces, self._batch_tokens):
            for piece, total in zip(group, self._score(group), strict=True):
                sums[piece.request] += total
                counts[piece.request] += len(piece.tokens) - piece.first
                left[piece.request] -= 1
                if not left[piece.request]:
                    advance(1)
        return [Response(log_likelihood=s, n_tokens=n) for s, n in zip(sums, counts, strict=True)]

    def _score(self, group: Sequence[_Piece]) -> list[float]:
        """Summed log-probability of each piece's scored tokens, right-padded into one batch."""
        width = max(len(piece.tokens) for piece in group) - 1
        tokens = torch.zeros((len(group), width), dtype=torch.long)
        targets = torch.full((len(group), width), IGNORE, dtype=torch.long)
        for row, piece in enumerate(group):
            n = len(piece.tokens) - 1
            tokens[row, :n] = torch.tensor(piece.tokens[:-1])
            targets[row, piece.first - 1 : n] = torch.tensor(piece.tokens[piece.first :])
        # Padding is on the right, where a causal model cannot see it from any scored place.
        return self.log_probs(Batch(tokens=tokens, targets=targets)).tolist()

    def log_probs(self, batch: Batch) -> Float[Tensor, " B"]:
        """Summed log-probability in nats of each row's targets (float64; rows without targets are 0).

        Only places with a target go through the output head: in an exam most places are prompt.
        """
        with evaluating(self.model):
            found = target_log_probs(self.model, batch.to(self.device), head_tokens=HEAD_TOKENS)
        return found.cpu().double().sum(-1)

    # ------------------------------------------------------------------ generations

    def _generations(self, requests: Sequence[Request], advance: Callable[[int], object]) -> list[Response]:
        """Greedy: an exam asks what the model says, not what it might say."""
        responses = [Response()] * len(requests)
        prompts = [self.prompt_tokens(request.prompt) for request in requests]
        order = sorted(
            range(len(requests)),
            key=lambda i: (requests[i].max_new_tokens, prompts[i][1], -len(prompts[i][0])),
        )
        generator = Generator(self.model, self.tokenizer, self.device)
        for (n_new, stop), numbers in groupby(
            order, key=lambda i: (requests[i].max_new_tokens, prompts[i][1])
        ):
            settings = Settings(max_new_tokens=n_new, temperature=0.0, stop_ids=stop)
            for group in _chunks(list(numbers), GENERATIONS):
                # Room to answer: a long prompt loses its beginning.
                room = max(1, self.max_seq_len - n_new)
                written = generator.generate([prompts[i][0][-room:] for i in group], settings)
                for i, completion in zip(group, written, strict=True):
                    responses[i] = Response(n_tokens=len(completion.ids), text=completion.text)
                advance(len(group))
        return responses

    def prompt_tokens(self, prompt: str | Conversation) -> tuple[list[int], tuple[int, ...]]:
        """Ids to go on from, and the ids that end what follows."""
        if isinstance(prompt, str):
            eos = self.tokenizer.eos_id
            stop = () if eos is None else (eos,)
            return [*opening_ids(self.tokenizer), *self.tokenizer.encode(prompt)] or list(stop), stop
        ids, _ = self.chat.render(prompt, add_generation_prompt=True)
        return ids, self.chat.stop_ids


def _groups(pieces: Sequence[_Piece], batch_tokens: int) -> Iterator[list[_Piece]]:
    """Pieces of like length together, longest first: little padding, and a lack of memory shows at once."""
    group: list[_Piece] = []
    for piece in sorted(pieces, key=lambda p: -len(p.tokens)):
        if group and (len(group) + 1) * (len(group[0].tokens) - 1) > batch_tokens:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _chunks(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
