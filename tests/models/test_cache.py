"""The cache keeps what it is given, in order, within its capacity."""

from __future__ import annotations

import pytest
import torch

from llm.models.cache import KVCache, StaticCache


def test_appends_join_in_order():
    cache, keys = KVCache(6)[0], torch.randn(2, 3, 6, 4)
    values = torch.randn(2, 1, 6, 5)
    for part in (slice(0, 3), slice(3, 4), slice(4, 6)):
        k, v = cache.append(keys[:, :, part], values[:, :, part])
    assert torch.equal(k, keys)
    assert torch.equal(v, values)
    assert cache.length == 6


def test_memory_is_taken_for_what_was_read():
    """Twice as much at most, and never more than the capacity."""
    cache, token = KVCache(1000)[0], torch.randn(1, 2, 1, 4)
    cache.append(torch.randn(1, 2, 10, 4))
    assert cache.nbytes <= 2 * 10 * token.nbytes
    moves = set()
    for n in range(11, 1001):
        (keys,) = cache.append(token)
        assert keys.shape == (1, 2, n, 4)
        assert cache.nbytes <= min(2 * n, 1000) * token.nbytes
        moves.add(keys.untyped_storage().data_ptr())
    assert len(moves) <= 8, "doubled, not copied at every token"


@pytest.mark.parametrize("sizes", [[1] * 12, [3, 1, 1, 5, 1, 1], [7, 1, 2, 1, 1], [4, 4, 4]])
def test_a_window_is_all_that_is_kept(sizes: list[int]):
    cache, keys = KVCache(1000)[0], torch.randn(1, 2, 12, 4)
    read = 0
    for size in sizes:
        read += size
        (seen,) = cache.append(keys[:, :, read - size : read], window=4)
        first = max(read - size - 3, 0)
        assert torch.equal(seen, keys[:, :, first:read])
        mask = torch.arange(read)[None]
        assert torch.equal(cache.visible(mask), mask[:, first:])
        assert cache.nbytes <= 2 * 7 * keys[:, :, :1].nbytes
    assert cache.length == 12
    assert cache.visible(None) is None


def test_a_static_cache_takes_its_memory_once():
    cache, keys = StaticCache(12), torch.randn(2, 1, 8, 4)
    full, ring = cache[0], cache[1]
    assert (cache.length, cache.columns(3), cache.rows(3)) == (0, 3, None)
    for layer in (full, ring):
        (first,) = layer.append(keys[:, :, :5], window=None if layer is full else 4)
        assert torch.equal(first, keys[:, :, :5]), "the prompt as it was given"
    assert (cache.length, cache.columns(3)) == (5, 12)
    assert cache.rows(3).tolist() == [5, 6, 7]
    assert cache.nbytes == (12 + 4) * keys[:, :, 0].nbytes
    places = []
    for n in (5, 6, 7):
        (stored,) = full.append(keys[:, :, n : n + 1])
        assert torch.equal(stored[:, :, : n + 1], keys[:, :, : n + 1])
        assert not stored[:, :, n + 1 :].any()
        (stored,) = ring.append(keys[:, :, n : n + 1], window=4)
        shown = ring.visible(torch.arange(12.0)[None])[0].long()
        assert sorted(shown.tolist()) == [n - 3, n - 2, n - 1, n]
        assert torch.equal(stored, keys[:, :, shown])
        places.append(stored.data_ptr())
    assert len(set(places)) == 1
    cache.select(torch.tensor([1, 1]))
    (stored,) = full.append(keys[:, :, :1])
    assert torch.equal(stored[0, :, :8], keys[1])
    assert torch.equal(stored[1, :, :8], keys[1])


def test_a_ring_that_is_not_full_shows_what_is_there():
    ring = StaticCache(12)[0]
    ring.append(torch.ones(1, 1, 1, 2), window=4)
    ring.append(torch.ones(1, 1, 1, 2), window=4)
    shown = ring.visible(torch.ones(1, 12, dtype=torch.bool))
    assert shown.tolist() == [[True, True, False, False]]
    scores = ring.visible(torch.zeros(1, 12))
    assert scores.tolist() == [[0.0, 0.0, -torch.inf, -torch.inf]]
    with pytest.raises(IndexError, match="3 tokens cannot hold 4"):
        StaticCache(3)[0].append(torch.randn(1, 1, 4, 2))


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
