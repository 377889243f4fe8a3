"""What clients get back: OpenAI's JSON objects of completions and chat completions, whole or in chunks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm.serving.base import FinishReason, TokenScore


@dataclass
class Choice:
    """One finished answer."""

    index: int
    text: str = ""
    scores: list[TokenScore] = field(default_factory=list)
    reason: FinishReason = "length"
    n_tokens: int = 0


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Token counts of one request, over all its choices."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class Shape(Protocol):
    """The form of one kind of answer. scored: whether the client asked for log-probabilities."""

    scored: bool

    def whole(self, choices: Sequence[Choice], counts: dict[str, int]) -> dict[str, Any]:
        """The answer in one object."""
        ...

    def first(self, index: int) -> dict[str, Any] | None:
        """The chunk that opens a choice, where there is one."""
        ...

    def delta(self, index: int, text: str, scores: Sequence[TokenScore]) -> dict[str, Any]:
        """A chunk with the next piece of text."""
        ...

    def last(self, index: int, reason: FinishReason) -> dict[str, Any]:
        """The chunk that closes a choice."""
        ...

    def totals(self, counts: dict[str, int]) -> dict[str, Any]:
        """The chunk of the token counts."""
        ...


class _Envelope:
    """The fields all objects of one answer share."""

    prefix = ""
    name = ""
    chunk_name = ""

    def __init__(self, model: str, *, scored: bool) -> None:
        self.model, self.scored = model, scored
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())

    def _object(self, name: str, choices: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
        head = {"id": self.id, "object": name, "created": self.created, "model": self.model}
        return {**head, "system_fingerprint": None, "choices": list(choices), **more}

    def totals(self, counts: dict[str, int]) -> dict[str, Any]:
        """The chunk without choices that ends a stream asked for with ``include_usage``."""
        return self._object(self.chunk_name, [], usage=counts)


class ChatShape(_Envelope):
    """``chat.completion`` and ``chat.completion.chunk``."""

    prefix, name, chunk_name = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def whole(self, choices: Sequence[Choice], counts: dict[str, int]) -> dict[str, Any]:
        """The answer in one object."""
        shown = [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": self._scores(choice.scores),
                "finish_reason": choice.reason,
            }
            for choice in choices
        ]
        return self._object(self.name, shown, usage=counts)

    def first(self, index: int) -> dict[str, Any]:
        """The chunk that opens a choice and tells its role."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def delta(self, index: int, text: str, scores: Sequence[TokenScore]) -> dict[str, Any]:
        """A chunk with the next piece of text."""
        return self._chunk(index, {"content": text}, scores=scores)

    def last(self, index: int, reason: FinishReason) -> dict[str, Any]:
        """The chunk that closes a choice."""
        return self._chunk(index, {}, reason=reason)

    def _chunk(
        self,
        index: int,
        delta: dict[str, str],
        *,
        scores: Sequence[TokenScore] = (),
        reason: FinishReason | None = None,
    ) -> dict[str, Any]:
        logprobs = self._scores(scores) if scores else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._object(self.chunk_name, [choice])

    def _scores(self, scores: Sequence[TokenScore]) -> dict[str, Any] | None:
        if not self.scored:
            return None
        content = [
            {
                "token": score.text,
                "logprob": score.logprob,
                "bytes": list(score.text.encode("utf-8", "replace")),
                "top_logprobs": [],
            }
            for score in scores
        ]
        return {"content": content, "refusal": None}


class CompletionShape(_Envelope):
    """``text_completion``, whole and in chunks of the same form."""

    prefix, name, chunk_name = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, *, scored: bool) -> None:
        super().__init__(model, scored=scored)
        self._offsets: dict[int, int] = {}

    def whole(self, choices: Sequence[Choice], counts: dict[str, int]) -> dict[str, Any]:
        """The answer in one object."""
        shown = [self._choice(choice.index, choice.text, choice.scores, choice.reason) for choice in choices]
        return self._object(self.name, shown, usage=counts)

    def first(self, index: int) -> None:  # noqa: ARG002 - the chat's counterpart needs it
        """Nothing opens a plain completion."""
        return

    def delta(self, index: int, text: str, scores: Sequence[TokenScore]) -> dict[str, Any]:
        """A chunk with the next piece of text."""
        return self._object(self.chunk_name, [self._choice(index, text, scores, None)])

    def last(self, index: int, reason: FinishReason) -> dict[str, Any]:
        """The chunk that closes a choice."""
        return self._object(self.chunk_name, [self._choice(index, "", (), reason)])

    def _choice(
        self, index: int, text: str, scores: Sequence[TokenScore], reason: FinishReason | None
    ) -> dict[str, Any]:
        logprobs = self._scores(index, scores) if self.scored else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _scores(self, index: int, scores: Sequence[TokenScore]) -> dict[str, Any]:
        """Parallel lists, with where each token begins in the text of its choice."""
        offsets = []
        for score in scores:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(score.text)
        return {
            "tokens": [score.text for score in scores],
            "token_logprobs": [score.logprob for score in scores],
            "top_logprobs": None,
            "text_offset": offsets,
        }
