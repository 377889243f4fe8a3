"""Rows of different lengths: padding, targets, and what is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.data.rows import RowBuilder
from llm.types import IGNORE


def test_targets_are_masked_and_shifted() -> None:
    builder = RowBuilder(100)
    builder.add([1, 2, 3, 4, 5], [False, False, True, True, False])
    builder.add([6, 7], [False, True])
    batch = builder.rows().batch([1, 0], seq_len=16)
    assert batch.targets is not None
    assert batch.tokens.tolist() == [[6] + [0] * 7, [1, 2, 3] + [0] * 5]
    assert batch.targets.tolist() == [[7] + [IGNORE] * 7, [IGNORE, 3, 4] + [IGNORE] * 5]


@given(
    lengths=st.lists(st.integers(2, 21), min_size=1, max_size=6),
    data=st.data(),
    vocab=st.sampled_from([300, 70_000]),
)
def test_a_batch_has_what_a_plain_loop_gives(lengths: list[int], data: st.DataObject, vocab: int) -> None:
    builder, plain = RowBuilder(vocab), []
    for length in lengths:
        ids = data.draw(st.lists(st.integers(0, vocab - 1), min_size=length, max_size=length))
        mask = data.draw(
            st.lists(st.booleans(), min_size=length, max_size=length).filter(lambda m: any(m[1:]))
        )
        builder.add(ids, mask)
        plain.append((ids, mask))
    rows = builder.rows()
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=5))
    batch = rows.batch(chosen, seq_len=20)
    assert batch.targets is not None
    width = batch.tokens.shape[1]
    assert width % 8 == 0 or width == 20
    for tokens, targets, number in zip(batch.tokens.tolist(), batch.targets.tolist(), chosen, strict=True):
        ids, mask = plain[number]
        want = [(ids[i], ids[i + 1]) for i in range(len(ids) - 1) if mask[i + 1]]
        assert [(a, b) for a, b in zip(tokens, targets, strict=True) if b != IGNORE] == want
        last = max(i for i, one in enumerate(mask) if one)
        assert tokens == ids[:last] + [0] * (width - last)


def test_a_row_without_a_target_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        RowBuilder(100).add([1, 2], [True, False])
