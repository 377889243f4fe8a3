"""Documents packed into training sequences by best-fit-decreasing: cut only where they are too long.

Concatenating cuts nearly every document somewhere, and the model is asked to go on from a beginning it does
not see. Here a document longer than a sequence is cut into pieces of a sequence's length, and pieces are put
into sequences whole, the longest first, each where the least room is left over (Ding et al. 2024, "Fewer
Truncations Improve Language Modeling", https://arxiv.org/abs/2404.10830, section 3). Hardly anything stays
empty: the short documents of a large corpus fill the gaps of the long ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from llm.data.mapped import Tokens
from llm.types import IGNORE, Batch, ConfigError

Integers = NDArray[np.int64]
AT_ONCE = 1 << 24


class BestFitTokens:
    """Sequences of whole documents and pieces of long ones. Implements `llm.types.Dataset`.

    Every token of the corpus is a target exactly once. A document reads the token ahead of it, the end of the
    document before (of the last, for the first), then its own but the last::

        corpus     a1 a2 a3 E b1 E           E ends a document
        sequence   E a1 a2 a3 E b1 .         seq_len = 7
        targets    a1 a2 a3 E b1 E -         - is IGNORE: no loss there

    Args:
        tokens: of the whole corpus, one document after the other.
        bounds: where each document begins in them, and the end of the last.
        seq_len: tokens in a sequence.
        overlap: tokens that a further piece of a long document repeats, as context without loss.
        bytes_per_target: UTF-8 bytes of text per token.
        document_mask: whether a batch says which tokens belong together, so that a model keeps pieces apart.
    """

    def __init__(
        self,
        tokens: Tokens,
        bounds: Integers,
        seq_len: int,
        *,
        overlap: int = 0,
        bytes_per_target: float | None = None,
        document_mask: bool = False,
    ) -> None:
        if seq_len < 1:
            raise ConfigError("seq_len", seq_len, "must be at least 1")
        assert 0 <= overlap < seq_len
        self.tokens, self.seq_len, self.overlap = tokens, seq_len, overlap
        self._bytes_per_target, self._document_mask = bytes_per_target, document_mask
        self._starts, self._lengths, self._goes_on = pieces(bounds, seq_len, overlap)
        self._order, self._edges = best_fit_decreasing(self._lengths, seq_len)

    def __len__(self) -> int:
        return len(self._edges) - 1

    @property
    def n_targets(self) -> int:
        """Tokens with loss in all sequences: those of the corpus."""
        return int(self._lengths.sum()) - self.overlap * int(self._goes_on.sum())

    @property
    def n_padding(self) -> int:
        """Places in all sequences that hold nothing."""
        return len(self) * self.seq_len - int(self._lengths.sum())

    @property
    def bytes_per_target(self) -> float | None:
        """UTF-8 bytes of text per token: turns nats per token into bits per byte."""
        return self._bytes_per_target

    def batch(self, indices: Sequence[int]) -> Batch:
        """The sequences `indices`: tokens and targets of `seq_len` each."""
        shape = (len(indices), self.seq_len)
        tokens = np.zeros(shape, dtype=np.int64)
        targets = np.full(shape, IGNORE, dtype=np.int64)
        documents = np.full(shape, self.seq_len, dtype=np.int64)
        for row, index in enumerate(indices):
            assert 0 <= index < len(self), f"sequence {index} of {len(self)}"
            place = 0
            inside = self._order[self._edges[index] : self._edges[index + 1]]
            for number, piece in enumerate(inside):
                read = self._read(int(self._starts[piece]), int(self._lengths[piece]))
                end = place + len(read) - 1
                context = self.overlap if self._goes_on[piece] else 0
                tokens[row, place:end] = read[:-1]
                targets[row, place + context : end] = read[1 + context :]
                documents[row, place:end] = number
                place = end
        return Batch(
            tokens=torch.from_numpy(tokens),
            targets=torch.from_numpy(targets),
            documents=torch.from_numpy(documents) if self._document_mask else None,
        )

    def _read(self, start: int, length: int) -> NDArray[np.integer]:
        """The token ahead of a piece and the piece; the last one is ahead of the first."""
        if start:
            return self.tokens[start - 1 : start + length]
        return np.concatenate([self.tokens[len(self.tokens) - 1 : len(self.tokens)], self.tokens[:length]])


def pieces(
    bounds: Integers, seq_len: int, overlap: int = 0
) -> tuple[Integers, NDArray[np.int32], NDArray[np.bool_]]:
    """Start and length of each piece, and whether it goes on from a piece before, in the corpus's order.

    A document of at most `seq_len` tokens is one piece. Of a longer one, each piece has `seq_len` tokens and
    the last what is left; all but the first repeat `overlap` tokens.
    """
    lengths, step = np.diff(bounds), seq_len - overlap
    n_pieces = 1 + np.maximum(0, -(-(lengths - seq_len) // step))
    number = np.arange(n_pieces.sum()) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)
    starts = np.repeat(bounds[:-1], n_pieces) + number * step
    left = np.repeat(bounds[1:], n_pieces) - starts
    return starts, np.minimum(left, seq_len).astype(np.int32), number > 0


def best_fit_decreasing(lengths: NDArray[np.integer], capacity: int) -> tuple[Integers, Integers]:
    """Puts items into bins: the longest item first, each into the fullest bin that still has room for it.

    All items of a length are placed together, and all bins of a room are looked up together. A bin that is
    the best for one item is the best for the next of that length too, as long as it has room, so that a step
    fills many bins at once. There are at most as many steps as items, and at most about ``capacity ** 2 /
    2``; sorting is the rest.

    Args:
        lengths: of the items, from 1 to `capacity`.
        capacity: of a bin.

    Returns:
        The numbers of the items, bin after bin, and where each bin begins among them, with the end of the
        last.
    """
    assert not len(lengths) or (lengths.min() > 0 and lengths.max() <= capacity)
    order = np.argsort(-lengths, kind="stable")
    counts = np.bincount(lengths, minlength=capacity + 1)
    bin_of = np.empty(len(lengths), dtype=np.int64)
    rooms: list[list[Integers]] = [[] for _ in range(capacity + 1)]
    any_room = 0  # bit r is set where bins with room r are
    n_bins = place = 0

    def keep(room: int, bins: Integers) -> None:
        nonlocal any_room
        if room and len(bins):
            rooms[room].append(bins)
            any_room |= 1 << room

    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            enough = any_room >> length
            if enough:
                room = length + (enough & -enough).bit_length() - 1
                bins = rooms[room].pop()
                any_room &= ~(0 if rooms[room] else 1 << room)
            else:
                room, needed = capacity, -(-left // (capacity // length))
                bins = np.arange(n_bins, n_bins + needed)
                n_bins += needed
            each = room // length
            n = min(left, each * len(bins))
            full, rest = divmod(n, each)
            used = full + bool(rest)
            bin_of[place : place + n] = np.repeat(bins[:used], each)[:n]
            keep(room - each * length, bins[:full])
            keep(room - rest * length, bins[full:used])
            keep(room, bins[used:])
            place, left = place + n, left - n
    by_bin = np.argsort(bin_of, kind="stable")
    edges = np.concatenate([[0], np.cumsum(np.bincount(bin_of, minlength=n_bins))])
    return order[by_bin], edges


def bounds_by_end(tokens: Tokens, end_id: int) -> Integers:
    """Where documents begin, for tokens that are read from end to end: behind each `end_id`."""
    found = [np.zeros(1, np.int64)]
    for start in range(0, len(tokens), AT_ONCE):
        found.append(np.flatnonzero(tokens[start : start + AT_ONCE] == end_id) + start + 1)
    bounds = np.concatenate(found)
    return bounds if bounds[-1] == len(tokens) else np.append(bounds, len(tokens))
