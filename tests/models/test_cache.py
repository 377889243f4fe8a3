"""The cache keeps what it is given, in order, within its capacity."""

from __future__ import annotations

import pytest
import torch

from llm.models.cache import KVCache


def test_appends_join_in_order():
    cache, keys = KVCache(6)[0], torch.randn(2, 3, 6, 4)
    values = torch.randn(2, 1, 6, 5)
    for part in (slice(0, 3), slice(3, 4), slice(4, 6)):
        k, v = cache.append(keys[:, :, part], values[:, :, part])
    assert torch.equal(k, keys)
    assert torch.equal(v, values)
    assert cache.length == 6


def test_storage_is_taken_once():
    cache = KVCache(4)[0]
    (first,) = cache.append(torch.randn(1, 1, 1, 2))
    (last,) = cache.append(torch.randn(1, 1, 3, 2))
    assert first.data_ptr() == last.data_ptr()


def test_more_than_the_capacity_is_refused():
    cache = KVCache(3)[0]
    cache.append(torch.randn(1, 1, 3, 2))
    with pytest.raises(IndexError, match="3 tokens cannot hold 4"):
        cache.append(torch.randn(1, 1, 1, 2))


def test_select_keeps_rows_of_every_layer():
    cache, keys = KVCache(3), torch.randn(4, 1, 2, 2)
    for layer in (0, 1):
        cache[layer].append(keys + layer)
    cache.select(torch.tensor([3, 1]))
    (k,) = cache[1].append(torch.zeros(2, 1, 1, 2))
    assert torch.equal(k[:, :, :2], keys[[3, 1]] + 1)
    assert cache.length == 2, "the shortest layer counts: a pass may be under way"


def test_an_empty_cache_has_no_length():
    assert KVCache(3).length == 0
