"""From a stream of token ids to a stream of text that never has to be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from llm.types import Tokenizer

REPLACEMENT = "\ufffd"
"""What a decoder writes for bytes that are not (yet) a character."""


class TextStream:
    """Turns ids into text piece by piece.

    Text is held back while it may still change: an unfinished UTF-8 character, or the beginning of a stop
    text. The pieces of `push` and `finish` join to `text`.

    Args:
        tokenizer: decodes the ids.
        stop: texts that end the stream; the text ends before the one that is complete first.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._longest = max(map(len, self._stop), default=0)
        self._ids: list[int] = []
        # Decoding starts at `_start`, one finished piece back, because a tokenizer may treat the first id
        # it sees specially; ids before `_read` are already in `_decoded`.
        self._start = self._read = 0
        self._decoded = ""
        self._emitted = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """All text emitted so far."""
        return self._decoded[: self._emitted]

    def fork(self) -> TextStream:
        """A stream that goes on from here by itself."""
        other = copy(self)
        other._ids = list(self._ids)
        return other

    def push(self, token: int) -> str:
        """Takes one id; returns the text that has become final, often empty."""
        assert not self.stopped
        self._ids.append(token)
        before = self._tokenizer.decode(self._ids[self._start : self._read])
        after = self._tokenizer.decode(self._ids[self._start :])
        if after.endswith(REPLACEMENT) or len(after) <= len(before):
            return ""
        self._decoded += after[len(before) :]
        self._start, self._read = self._read, len(self._ids)
        return self._emit(final=False)

    def finish(self) -> str:
        """Returns what was held back: nothing more will come to complete it."""
        if self.stopped:
            return ""
        before = self._tokenizer.decode(self._ids[self._start : self._read])
        self._decoded += self._tokenizer.decode(self._ids[self._start :])[len(before) :]
        self._read = len(self._ids)
        return self._emit(final=True)

    def _emit(self, *, final: bool) -> str:
        # A stop text may begin in what was held back, never in what was emitted.
        found = [at for stop in self._stop if (at := self._decoded.find(stop, self._emitted)) >= 0]
        if found:
            self.stopped = True
            self._decoded = self._decoded[: min(found)]
        held = 0 if final or self.stopped else self._unfinished_stop()
        piece = self._decoded[self._emitted : len(self._decoded) - held]
        self._emitted += len(piece)
        return piece

    def _unfinished_stop(self) -> int:
        """Length of the longest end of the text that a stop text begins with."""
        pending = self._decoded[self._emitted :]
        for length in range(min(self._longest - 1, len(pending)), 0, -1):
            if any(stop.startswith(pending[-length:]) for stop in self._stop):
                return length
        return 0
