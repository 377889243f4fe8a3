"""Which sequences a training step sees: a pure function of the seed, so any step can be rebuilt.

Nothing is remembered between calls. Resuming at step 1,000 is asking for batch 1,000, and the split over
ranks and micro-batches changes who computes a sequence, never which sequences a step has. The order is over
all sequences of the corpus, however many shards they are in, and a very long one takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import groupby
from typing import Protocol, overload, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from llm.types import Batch, ConfigError, Dataset

LARGEST_OFFSET = 1 << 31

MOST_SORTED = 1 << 24
"""Sequences whose order is sorted in memory (24 bytes each while it is done); above, it is computed."""

N_ROUNDS = 8


@runtime_checkable
class Shiftable(Protocol):
    """A dataset whose sequences' boundaries can be moved: each epoch then cuts the corpus elsewhere."""

    def shifted(self, offset: int) -> Dataset:
        """The same data cut `offset` places later, with the same number of sequences."""
        ...


@runtime_checkable
class SelfOrdered(Protocol):
    """A dataset that says itself which of its sequences come when, as a mixture of several does."""

    def drawn(self, numbers: range, batch_size: int, seed: int) -> Batch:
        """The sequences of these numbers; step s has s * batch_size up to (s + 1) * batch_size."""
        ...


class Loader:
    """Batches of a dataset in a fresh random order each epoch.

    Sequences are numbered on for ever: step s has numbers s * batch_size up to (s + 1) * batch_size. Number g
    is in epoch g // len(dataset), and that epoch's permutation says which sequence it is. So a step may cross
    the end of an epoch, no batch is short, and every epoch holds every sequence once.

    Args:
        dataset: what to draw from. A `Shiftable` one is also shifted by a random offset each epoch; a
            `SelfOrdered` one is asked for the numbers themselves.
        batch_size: sequences (or pairs) in an optimizer step, over all ranks and micro-batches.
        seed: of the order.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ConfigError("batch_size", batch_size, "must be at least 1")
        assert len(dataset) > 0, "an empty dataset is refused where it is loaded"
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self._order = lru_cache(maxsize=2)(order)  # a step may cross the end of an epoch

    def batch(self, step: int, micro: int = 0, n_micro: int = 1, rank: int = 0, world: int = 1) -> Batch:
        """The part of step `step` that rank `rank` of `world` computes in micro-batch `micro` of `n_micro`.

        Raises:
            ConfigError: when there are fewer sequences than ranks times micro-batches.
        """
        numbers = self._numbers(step, micro, n_micro, rank, world)
        if isinstance(self.dataset, SelfOrdered):
            return self.dataset.drawn(numbers, self.batch_size, self.seed)
        return self.sequences(numbers)

    def sequences(self, numbers: Sequence[int]) -> Batch:
        """The sequences of these numbers, in ascending order."""
        drawn = [self._index(number) for number in numbers]
        if not isinstance(self.dataset, Shiftable):
            return self.dataset.batch([index for _, index in drawn])
        parts = []
        for epoch, group in groupby(drawn, key=lambda pair: pair[0]):
            shifted = self.dataset.shifted(self._offset(epoch))
            parts.append(shifted.batch([index for _, index in group]))
        return joined(parts)

    def indices(
        self, step: int, micro: int = 0, n_micro: int = 1, rank: int = 0, world: int = 1
    ) -> list[tuple[int, int]]:
        """Epoch and number of each sequence of `batch`, in order."""
        return [self._index(number) for number in self._numbers(step, micro, n_micro, rank, world)]

    def _numbers(self, step: int, micro: int, n_micro: int, rank: int, world: int) -> range:
        assert 0 <= micro < n_micro
        assert 0 <= rank < world
        n_shards = n_micro * world
        if self.batch_size < n_shards:
            mend = f"fewer than {world} processes times {n_micro} micro-batches; give at least {n_shards}"
            raise ConfigError("batch_size", self.batch_size, mend)
        shard = micro * world + rank
        first, last = (self.batch_size * edge // n_shards for edge in (shard, shard + 1))
        return range(step * self.batch_size + first, step * self.batch_size + last)

    def _index(self, number: int) -> tuple[int, int]:
        epoch, place = divmod(number, len(self.dataset))
        return epoch, self._order(len(self.dataset), self.seed, epoch)(place)

    def _offset(self, epoch: int) -> int:
        return int(_bits(1, self.seed, epoch, 1)[0] % LARGEST_OFFSET)


class InOrder(Sequence[Batch]):
    """Every sequence of a dataset once, in its order, in batches made when they are asked for.

    Args:
        dataset: what to read.
        batch_size: sequences in a batch; the last one may be smaller.
        limit: stop after this many sequences; None for all.
    """

    def __init__(self, dataset: Dataset, batch_size: int, limit: int | None = None) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.n = min(len(dataset), limit or len(dataset))

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        starts = range(0, self.n, self.batch_size)[index]
        if isinstance(starts, range):
            return [self._from(start) for start in starts]
        return self._from(starts)

    def _from(self, start: int) -> Batch:
        return self.dataset.batch(range(start, min(start + self.batch_size, self.n)))


def order(n: int, seed: int, epoch: int) -> Callable[[int], int]:
    """From a place in an epoch to the number of the sequence that stands there, each of `n` at one place."""
    if n > MOST_SORTED:
        return Feistel(n, _bits(N_ROUNDS, seed, epoch, 2).tolist())
    sorted_order = permutation(n, seed, epoch)
    return lambda place: int(sorted_order[place])


class Feistel:
    """A pseudo-random permutation of 0 ... n - 1 that needs no memory: any place is computed by itself.

    A Feistel network of `len(keys)` rounds (Luby and Rackoff 1988) permutes the numbers of an even count of
    bits. Where it leads to n or beyond, it is applied again, until it leads back below n (cycle walking,
    Black and Rogaway 2002, section 3): on average fewer than four times, for the bits hold at most 4 n
    numbers.

    Args:
        n: how many numbers, two at least.
        keys: one of 64 bits a round.
    """

    def __init__(self, n: int, keys: Sequence[int]) -> None:
        assert n > 1
        self._n, self._keys = n, tuple(keys)
        self._half = -(-(n - 1).bit_length() // 2)
        self._mask = (1 << self._half) - 1

    def __call__(self, place: int) -> int:
        """The number at `place`."""
        assert 0 <= place < self._n
        number = self._network(place)
        while number >= self._n:
            number = self._network(number)
        return number

    def _network(self, number: int) -> int:
        left, right = number >> self._half, number & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._mask)
        return left << self._half | right


def _mixed(word: int) -> int:
    """64 bits of which each depends on each bit of `word`: splitmix64's finish (Steele et al. 2014)."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of `n` sequences in an epoch.

    Sorts raw random bits instead of calling numpy's `permutation`: numpy promises the same bits in every
    version, and does not promise the same permutation (NEP 19), and a published run has to stay rebuildable.
    """
    order = np.argsort(_bits(n, seed, epoch, 0), kind="stable")
    order.setflags(write=False)
    return order


def _bits(n: int, seed: int, epoch: int, stream: int) -> NDArray[np.uint64]:
    # Numbers above 32 bits become two words each, so a fixed count of words keeps different seeds apart.
    words = [seed % 2**32, seed // 2**32 % 2**32, epoch, stream]
    return np.asarray(np.random.PCG64(words).random_raw(n), dtype=np.uint64)


def joined(parts: Sequence[Batch]) -> Batch:
    """Batches of one length, as one."""
    if len(parts) == 1:
        return parts[0]

    def together(name: str) -> torch.Tensor | None:
        found = [value for part in parts if (value := getattr(part, name)) is not None]
        return torch.cat(found) if found else None

    return Batch(**{field.name: together(field.name) for field in fields(Batch)})  # type: ignore[arg-type]
