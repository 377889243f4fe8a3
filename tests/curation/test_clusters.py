from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from llm.curation.clusters import Clusters, all_pairs, buckets, spans, stars


def plain_roots(size: int, pairs: list[tuple[int, int]]) -> list[int]:
    groups = [{number} for number in range(size)]
    for one, other in pairs:
        merged = groups[one] | groups[other]
        for number in merged:
            groups[number] = merged
    return [min(group) for group in groups]


@pytest.mark.parametrize("seed", range(5))
def test_components_against_plain_sets(seed):
    chance = np.random.default_rng(seed)
    clusters, pairs = Clusters(60), []
    for _ in range(4):
        first, second = chance.integers(0, 60, (2, 9))
        clusters.join(first, second)
        pairs += list(zip(first.tolist(), second.tolist(), strict=True))
        assert clusters.root(np.arange(60)).tolist() == plain_roots(60, pairs)


def test_a_long_chain():
    clusters = Clusters(1000)
    numbers = np.random.default_rng(0).permutation(1000)
    clusters.join(numbers[1:], numbers[:-1])
    assert not clusters.root(np.arange(1000)).any()


def test_buckets():
    members, bucket = buckets(np.array([7, 3, 7, 9, 3, 7, 1], np.uint64))
    assert members.tolist() == [1, 4, 0, 2, 5]
    assert [bucket.tolist().count(one) for one in bucket] == [2, 2, 3, 3, 3]
    first, last = spans(bucket)
    assert first.tolist() == [0, 0, 2, 2, 2]
    assert last.tolist() == [1, 1, 4, 4, 4]
    for empty in (buckets(np.empty(0, np.uint64)), buckets(np.arange(3, dtype=np.uint64))):
        assert [len(one) for one in empty] == [0, 0]
        assert [len(one) for one in spans(empty[1])] == [0, 0]


def test_all_pairs():
    members, bucket = np.array([5, 6, 7, 8, 1, 2]), np.array([1, 1, 1, 1, 2, 2])
    first, second = all_pairs(members, bucket, 16)
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    assert pairs == {*combinations([5, 6, 7, 8], 2), (1, 2)}
    assert len(first) == len(pairs)
    assert not len(all_pairs(members[:0], bucket[:0], 16)[0])


def test_stars_take_a_centre_after_the_other():
    kind = np.array([0, 1, 0, 2, 1, 0, 0, 1])  # alike when equal
    clusters, asked = Clusters(8), []
    for first, second in stars(np.arange(8), np.zeros(8, int), clusters, 8):
        asked.append(len(first))
        alike = kind[first] == kind[second]
        clusters.join(first[alike], second[alike])
    assert clusters.root(np.arange(8)).tolist() == [0, 1, 0, 3, 1, 0, 0, 1]
    assert asked == [7, 3, 0], "what is joined is not asked for again"
    assert [len(first) for first, _ in stars(np.arange(8), np.zeros(8, int), Clusters(8), 2)] == [7, 6]
