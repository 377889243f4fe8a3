"""Where documents end in a row of token ids, for masks that keep each document to itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm.types import Tokenizer

Bools = NDArray[np.bool_]
Ends = Callable[[NDArray[Any]], Bools]
"""From token ids to the same number of flags: True where a document ends with this token."""


class AfterId:
    """A document ends with the id that stands for the end of a text."""

    def __init__(self, end_id: int) -> None:
        self.end_id = end_id

    def __call__(self, ids: NDArray[Any]) -> Bools:
        """True at that id."""
        found: Bools = ids == self.end_id
        return found


class AfterBlankLine:
    """A document ends with the blank line behind it, all of whose newlines belong to it.

    ``a \\n \\n \\n b``: the last newline ends the document, whether the newlines are three tokens or one. A
    token of which only the beginning is a blank line ends none.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        texts = [tokenizer.decode([number]) for number in range(tokenizer.vocab_size)]
        self._starts = np.array([text.startswith("\n") for text in texts])
        self._is_all = np.array([bool(text) and not text.strip("\n") for text in texts])
        self._newlines = np.array([len(text) - len(text.rstrip("\n")) for text in texts])

    def __call__(self, ids: NDArray[Any]) -> Bools:
        """True at the last token of a blank line; the last of all ids has none behind it to tell."""
        behind = self._newlines[ids]
        # Two newlines in this token, or one that is all of it behind one of the token before.
        joined = np.zeros(len(ids), dtype=np.bool_)
        joined[1:] = self._is_all[ids[1:]] & (behind[:-1] > 0)
        ends: Bools = (behind >= 2) | joined
        ends[:-1] &= ~self._starts[ids[1:]]
        return ends


def numbered(ends: Bools) -> NDArray[np.int64]:
    """The number of each token's document, from 0: ``0 0 1 1 1 2`` for ends at the second and fifth."""
    numbers = np.zeros(len(ends), dtype=np.int64)
    numbers[1:] = np.cumsum(ends[:-1])
    return numbers
