"""What the server asks of a model: text in, ids out, and pieces of an answer as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

from llm.generation.sampling import Settings
from llm.types import Conversation

FinishReason = Literal["stop", "length"]


class TokenScore(NamedTuple):
    """One generated token and the logarithm (nats) of the probability the model gave it."""

    text: str
    logprob: float


class Piece(NamedTuple):
    """The next bit of an answer: text that may be shown at once, and the tokens that became final with it."""

    text: str
    scores: tuple[TokenScore, ...] = ()


class Finish(NamedTuple):
    """The end of an answer: why it ended, and how many tokens the model generated for it."""

    reason: FinishReason
    n_tokens: int


class TextEngine(Protocol):
    """A served model. `stream` is called in a worker thread, at most `max_concurrent` at the same time.

    name: what clients call the model. max_seq_len: prompt and answer together, in tokens. chats: whether
    it has a chat template; without one, only plain completion is served.
    """

    name: str
    created: int
    max_seq_len: int
    vocab_size: int
    chats: bool

    def prompt_ids(self, text: str) -> list[int]:
        """The ids of a text to be continued."""
        ...

    def chat_ids(self, conversation: Conversation) -> list[int]:
        """The ids of a conversation, up to where the assistant's turn begins."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids (a client may send a prompt as ids and want it echoed)."""
        ...

    def stream(self, ids: Sequence[int], settings: Settings, *, chat: bool) -> Iterator[Piece | Finish]:
        """Pieces of the answer and, last of all, one `Finish`. Closing the iterator ends the generation."""
        ...
