"""Which tokens are scored, and what is read to score them.

Two things make a log-likelihood right or wrong: where the prompt ends inside the tokens (`boundary`), and
what happens to texts longer than the model's context (`windows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llm.types import Tokenizer


class Window(NamedTuple):
    """A stretch of tokens read in one go; of its predictions those from `first` on count."""

    begin: int
    first: int
    end: int


def boundary(tokenizer: Tokenizer, prompt: str, whole: Sequence[int]) -> int:
    """How many tokens at the start of `whole` belong to the prompt alone.

    `whole` are the ids of prompt + continuation encoded together, as the model met such text in training.
    A token that carries the end of the prompt and the start of the continuation counts as continuation:
    it cannot be given to the model without giving the answer away.

    Args:
        tokenizer: what encoded `whole`.
        prompt: the text before the continuation.
        whole: ids of the prompt and the continuation, encoded as one text.

    Returns:
        An index into `whole`; tokens from there on are scored.
    """
    alone = tokenizer.encode(prompt)
    if list(whole[: len(alone)]) == alone:
        return len(alone)
    shared = 0
    while shared < min(len(alone), len(whole)) and alone[shared] == whole[shared]:
        shared += 1
    # The two encodings part before the prompt ends. Tokens after that may still be prompt only.
    best = shared
    for end in range(shared + 1, len(whole) + 1):
        text = tokenizer.decode(whole[:end])
        if len(text) > len(prompt):
            break
        if prompt.startswith(text):
            best = end
    return best


def windows(first: int, n_tokens: int, max_inputs: int) -> Iterator[Window]:
    """Stretches of at most `max_inputs` inputs that score each token from `first` on exactly once.

    A short text is one window. A long prompt loses its beginning. A continuation longer than the context
    is scored in halves, so that each of its tokens still sees at least half a context::

        tokens   0 1 2 3 4 5 6 7 8 9     max_inputs=4, first=1 (r read, p read and predicted, P predicted)
                 r p p p P               predicts 1 2 3 4
                     r r r p P           predicts 5 6
                         r r r p P       predicts 7 8
                           r r r r P     predicts 9

    Args:
        first: index of the first token to score, at least 1: something must come before it.
        n_tokens: tokens in all.
        max_inputs: the model's context.
    """
    assert first >= 1
    step = max(1, max_inputs // 2)
    while first < n_tokens:
        end = min(n_tokens, max(first + step, max_inputs + 1))
        yield Window(max(0, end - 1 - max_inputs), first, end)
        first = end
