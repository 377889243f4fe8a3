"""The loader: each epoch everything once, any step rebuilt, and the same step for every split of the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm.data.loader import InOrder, Loader, permutation
from llm.data.packed import PackedTokens
from llm.types import IGNORE, Batch, ConfigError


class Numbers:
    """A dataset whose sequence i is one token, i."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def batch(self, indices: Sequence[int]) -> Batch:
        tokens = torch.tensor(list(indices)).view(-1, 1)
        return Batch(tokens, tokens.clone())

    bytes_per_target = None


def seen(batch: Batch) -> list[int]:
    return batch.tokens.flatten().tolist()


@given(n=st.integers(1, 30), size=st.integers(1, 12), seed=st.integers(0, 2**40))
def test_every_epoch_holds_everything_once(n: int, size: int, seed: int) -> None:
    loader = Loader(Numbers(n), size, seed)
    stream = [i for step in range(3 * n) for i in seen(loader.batch(step))]
    for epoch in range(3 * size):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(size=st.integers(1, 24), world=st.integers(1, 4), n_micro=st.integers(1, 4), step=st.integers(0, 50))
def test_the_split_never_changes_what_a_step_has(size: int, world: int, n_micro: int, step: int) -> None:
    loader = Loader(Numbers(17), size, seed=3)
    if size < world * n_micro:
        with pytest.raises(ConfigError) as caught:
            loader.batch(step, 0, n_micro, 0, world)
        assert caught.value.key == "batch_size"
        return
    whole = seen(loader.batch(step))
    parts = [
        seen(loader.batch(step, micro, n_micro, rank, world))
        for micro in range(n_micro)
        for rank in range(world)
    ]
    assert [i for part in parts for i in part] == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_any_step_is_rebuilt_by_a_fresh_loader() -> None:
    tokens = PackedTokens(np.arange(1000, dtype=np.uint16), 7)
    run = [Loader(tokens, 12, seed=1).batch(step) for step in range(40)]
    for step in (39, 0, 11, 12, 25):
        again = Loader(tokens, 12, seed=1).batch(step)
        assert torch.equal(again.tokens, run[step].tokens)
        assert again.targets is not None
        assert run[step].targets is not None
        assert torch.equal(again.targets, run[step].targets)


def test_orders_differ_by_epoch_and_seed() -> None:
    orders = {tuple(permutation(50, seed, epoch)) for seed in (0, 1, 2**33) for epoch in range(4)}
    assert len(orders) == 12
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_the_order_is_the_one_saved_runs_had() -> None:
    # Written down, so that an upgrade of numpy that changes published runs is noticed.
    assert permutation(10, 1337, 0).tolist() == SAVED_ORDER


SAVED_ORDER = [5, 1, 6, 7, 8, 4, 0, 9, 2, 3]


def test_epochs_of_packed_tokens_are_cut_differently() -> None:
    n = 700
    loader = Loader(PackedTokens(np.arange(n, dtype=np.uint16), 7), 100, seed=0)
    starts = [{row[0] % 7 for row in loader.batch(epoch).tokens.tolist()[:50]} for epoch in range(3)]
    assert len(set(map(frozenset, starts))) == 3
    targets = loader.batch(0).targets
    assert targets is not None
    counts = Counter(targets.flatten().tolist())
    assert counts.pop(IGNORE) == 1
    assert set(counts.values()) == {1}
    assert len(counts) == n - 1


def test_a_step_over_the_end_of_an_epoch_has_both_cuts() -> None:
    dataset = PackedTokens(np.arange(71, dtype=np.uint16), 7)
    loader = Loader(dataset, 6, seed=0)
    drawn = loader.indices(1)
    assert [epoch for epoch, _ in drawn] == [0, 0, 0, 0, 1, 1]
    want = [dataset.shifted(loader._offset(epoch)).batch([index]).tokens for epoch, index in drawn]
    assert torch.equal(loader.batch(1).tokens, torch.cat(want))


def test_documents_come_along_and_change_no_order() -> None:
    tokens = np.arange(71, dtype=np.uint16)
    plain = Loader(PackedTokens(tokens, 7), 6, seed=0)
    masked = Loader(PackedTokens(tokens, 7, ends=lambda ids: ids % 3 == 0), 6, seed=0)
    for step in range(5):  # the second crosses an epoch's end
        batch, again = masked.batch(step), masked.batch(step)
        assert torch.equal(batch.tokens, plain.batch(step).tokens)
        assert batch.documents is not None
        assert again.documents is not None
        assert torch.equal(batch.documents, again.documents)
        same = batch.documents[:, 1:] == batch.documents[:, :-1]
        within = batch.targets[:, 1:] >= 0  # type: ignore[index]
        assert torch.equal(same[within], (batch.tokens[:, :-1] % 3 != 0)[within])


def test_no_batch_of_nothing() -> None:
    with pytest.raises(ConfigError) as caught:
        Loader(Numbers(8), 0, 0)
    assert caught.value.key == "batch_size"


@given(n=st.integers(1, 40), size=st.integers(1, 9), limit=st.none() | st.integers(1, 50))
def test_in_order_everything_once(n: int, size: int, limit: int | None) -> None:
    batches = InOrder(Numbers(n), size, limit)
    read = [seen(batch) for batch in batches]
    assert [i for batch in read for i in batch] == list(range(min(n, limit or n)))
    assert len(batches) == len(read)
    assert all(len(batch) == size for batch in read[:-1])
    assert seen(batches[-1]) == read[-1]
    assert [seen(batch) for batch in batches[1:]] == read[1:]
    with pytest.raises(IndexError):
        batches[len(batches)]
