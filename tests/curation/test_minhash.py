from __future__ import annotations

import numpy as np
import pytest

from llm.curation.minhash import MinHash, expected_recall
from llm.curation.shingles import Shingles


def sets(*sizes: int, seed: int = 0) -> Shingles:
    hashes = np.random.default_rng(seed).integers(0, 2**64, sum(sizes), np.uint64)
    return Shingles(hashes, np.cumsum(sizes))


def pairs(similarity: float, n_pairs: int, size: int = 200, seed: int = 0) -> Shingles:
    """Pairs of sets of exactly this Jaccard similarity, one after the other."""
    chance = np.random.default_rng(seed)
    own = round(size * (1 - similarity) / 2)
    parts = []
    for _ in range(n_pairs):
        both = chance.integers(0, 2**64, size, np.uint64)
        parts += [both[own:], both[: size - own]]
    return Shingles(np.concatenate(parts), np.cumsum([len(one) for one in parts]))


def test_minima_against_plain_python():
    shingles, minhash = sets(1, 30, 7), MinHash(3, 2, seed=5)
    for factor, row in zip(minhash.factors.tolist(), minhash.minima(shingles).tolist(), strict=True):
        assert factor % 2 == 1
        plain = [min((x >> 32) * factor % 2**32 for x in one.tolist()) for one in shingles.split()]
        assert row == plain
    assert len(set(minhash.factors.tolist())) == 6


def test_a_band_is_equal_when_its_minima_are():
    minhash = MinHash(6, 2, seed=0)
    shingles = pairs(0.7, 200)
    minima = minhash.minima(shingles).reshape(6, 2, -1)
    bands = minhash.bands(shingles)
    assert np.array_equal(
        bands[:, ::2] == bands[:, 1::2], (minima[..., ::2] == minima[..., 1::2]).all(axis=1)
    )
    assert len(np.unique(bands)) > 1200, "bands do not collide with each other"
    assert not np.array_equal(bands, MinHash(6, 2, seed=1).bands(shingles))
    assert minhash.bands(sets()).shape == (6, 0)


def test_minima_estimate_jaccard():
    minima = MinHash(64, 2, seed=3).minima(pairs(0.8, 300))
    rates = (minima[:, ::2] == minima[:, 1::2]).mean(axis=0)
    # binomial: the mean of 300 pairs of 128 minima has a standard error of 0.002
    assert rates.mean() == pytest.approx(0.8, abs=0.01)
    # and its spread over pairs is what 128 independent permutations give
    assert rates.std() == pytest.approx(np.sqrt(0.8 * 0.2 / 128), rel=0.2)


@pytest.mark.parametrize(("n_bands", "n_rows", "similarity"), [(16, 5, 0.6), (14, 8, 0.8), (5, 2, 0.5)])
def test_recall_is_as_expected(n_bands, n_rows, similarity):
    shingles = pairs(similarity, 600, seed=n_bands)
    bands = MinHash(n_bands, n_rows, seed=0).bands(shingles)
    measured = (bands[:, ::2] == bands[:, 1::2]).any(axis=0).mean()
    expected = 1 - (1 - similarity**n_rows) ** n_bands
    assert expected_recall(n_bands, n_rows, similarity, similarity) == pytest.approx(expected)
    assert measured == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 600))


def test_expected_recall():
    assert expected_recall(1, 1, 0.0) == pytest.approx(0.5)
    assert expected_recall(1, 2, 0.0) == pytest.approx(1 / 3, abs=1e-3)
    assert expected_recall(16, 5, 0.8) > 0.999, "the defaults of near_dedup"
    assert expected_recall(16, 5, 0.8, 0.8) == pytest.approx(0.9983, abs=1e-4)
    assert expected_recall(14, 8, 0.8, 0.8) == pytest.approx(0.9235, abs=1e-4), "FineWeb's"
    assert expected_recall(40, 3, 0.5, 0.5) > 0.99, "those of leaks"
