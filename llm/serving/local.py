"""A checkpoint of this project behind the server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from llm.generation.engine import Completion, Generator
from llm.generation.sampling import Settings
from llm.serving.base import Finish, Piece, TokenScore
from llm.tokenizers.base import opening_ids
from llm.tokenizers.template import template_for
from llm.types import ConfigError, Conversation, LanguageModel, Tokenizer

KEY = re.compile(r"[0-9a-f]{8,}|\d{4}-?\d{2}-?\d{2}.*")
"""A folder named by a fingerprint or a time: the one above it bears the name that people know."""


class LocalEngine:
    """Implements `llm.serving.base.TextEngine`.

    Args:
        model: Its context is what prompt and answer share.
        tokenizer: The one the model was trained with.
        device: Where to compute.
        name: What clients call the model.
        created: When its weights were written, in seconds since 1970.
        chats: Whether it was taught to answer.

    Raises:
        ConfigError: it is said to chat, and its tokenizer has no chat markers.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        device: torch.device | str,
        *,
        name: str,
        created: int,
        chats: bool,
    ) -> None:
        self.name, self.created, self.chats = name, created, chats
        self.max_seq_len, self.vocab_size = model.max_seq_len, tokenizer.vocab_size
        self._generator = Generator(model, tokenizer, device)
        self._tokenizer = tokenizer
        self._template = template_for(tokenizer) if chats else None

    def prompt_ids(self, text: str) -> list[int]:
        """The ids of a text; an empty one starts a new document."""
        if text:
            return [*opening_ids(self._tokenizer), *self._tokenizer.encode(text)]
        if self._tokenizer.eos_id is None:
            raise ConfigError("prompt", "", "is empty, and this tokenizer has no token to start from")
        return [self._tokenizer.eos_id]

    def chat_ids(self, conversation: Conversation) -> list[int]:
        """The ids of a conversation and of the opening of the assistant's turn."""
        assert self._template is not None
        return self._template.render(conversation, add_generation_prompt=True)[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self._tokenizer.decode(ids)

    def stream(self, ids: Sequence[int], settings: Settings, *, chat: bool) -> Iterator[Piece | Finish]:
        """Pieces of text as they become final; the tokens' log-probabilities come with the last of them."""
        stop_ids = self._template.stop_ids if chat and self._template else ()
        stream = self._generator.stream(ids, replace(settings, stop_ids=stop_ids))
        for part in stream:
            if isinstance(part, Completion):
                yield Piece("", self._scores(part, stop_ids))
                yield Finish(part.finish_reason, len(part.ids))
            else:
                yield Piece(part)

    def _scores(self, completion: Completion, stop_ids: Sequence[int]) -> tuple[TokenScore, ...]:
        """Each token of the answer with its log-probability; the token that ends it is no part of it."""
        pairs = list(zip(completion.ids, completion.log_probs, strict=True))
        if pairs and pairs[-1][0] in {*stop_ids, self._tokenizer.eos_id}:
            pairs.pop()
        return tuple(TokenScore(self._tokenizer.decode([token]), log_prob) for token, log_prob in pairs)


def name_of(checkpoint: Path) -> str:
    """What to call the model in a checkpoint's directory: the name of its run, or of its stage."""
    place = checkpoint.resolve()
    while place.parent != place and (
        re.match(r"step_\d+\Z|checkpoints\Z", place.name) or KEY.fullmatch(place.name)
    ):
        place = place.parent
    return re.sub(r"[^\w.-]+", "-", place.name).strip("-") or "model"
