"""Token rows of different lengths, tokenised once and kept in flat arrays.

A list of Python lists costs some 40 bytes a token; this costs 3 to 5, and a batch is a few slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llm.data.packing import Ids, id_dtype
from llm.types import IGNORE, Batch

MULTIPLE = 8
"""Batches are padded to a multiple of this: kernels like it, and fewer different shapes occur."""


class RowBuilder:
    """Collects rows for a `Rows`."""

    def __init__(self, vocab_size: int) -> None:
        self._dtype = id_dtype(vocab_size)
        self._ids: list[NDArray[Any]] = []
        self._mask: list[NDArray[np.bool_]] = []

    def add(self, ids: Sequence[int], mask: Sequence[bool]) -> None:
        """Appends one row: ids, and which of them are to be learned. What follows the last is left out."""
        loss = np.array(mask, dtype=np.bool_)
        assert loss[1:].any(), "a row needs a target"
        end = int(np.flatnonzero(loss)[-1]) + 1
        self._ids.append(np.array(ids[:end], dtype=self._dtype))
        self._mask.append(loss[:end])

    def rows(self) -> Rows:
        """All rows so far."""
        lengths = np.array([len(row) for row in self._ids], dtype=np.int64)
        return Rows(
            np.concatenate([np.empty(0, self._dtype), *self._ids]),
            np.concatenate([np.empty(0, np.bool_), *self._mask]),
            np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        )


class Rows:
    """Row i is ``ids[offsets[i] : offsets[i + 1]]``, with `mask` beside it, True where there is loss."""

    def __init__(self, ids: Ids, mask: NDArray[np.bool_], offsets: NDArray[np.int64]) -> None:
        self.ids, self.mask, self.offsets = ids, mask, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def batch(self, numbers: Sequence[int], seq_len: int) -> Batch:
        """The rows `numbers`, padded at the end to the longest, up to a whole `MULTIPLE`, at most `seq_len`.

        Padding is id 0 with target IGNORE; causal attention never looks at it from a real token. ``<`` below
        is the row's prompt, whose targets are IGNORE too::

            ids       <  <  <  a  b  .      tokens    <  <  <  a  0  0
            mask      -  -  -  x  x  x      targets   -  -  a  b  .  -
        """
        starts, ends = self.offsets[:-1][list(numbers)], self.offsets[1:][list(numbers)]
        longest = int((ends - starts).max()) - 1
        length = min(-(-longest // MULTIPLE) * MULTIPLE, seq_len)
        assert length >= longest, f"a row of {longest} tokens in sequences of {seq_len}"
        tokens = np.zeros((len(numbers), length), dtype=np.int64)
        targets = np.full((len(numbers), length), IGNORE, dtype=np.int64)
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            n = end - start - 1
            tokens[row, :n] = self.ids[start : end - 1]
            learned = self.mask[start + 1 : end]
            targets[row, :n][learned] = self.ids[start + 1 : end][learned]
        return Batch(tokens=torch.from_numpy(tokens), targets=torch.from_numpy(targets))
