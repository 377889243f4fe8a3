"""MinHash signatures of whole batches, folded into bands.

Broder 1997, "On the resemblance and containment of documents"; banding as in Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", section 3.4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llm.curation.shingles import Hashes, Shingles, mix

GOLDEN = 0x9E3779B97F4A7C15


def expected_recall(n_bands: int, n_rows: int, low: float, high: float = 1.0) -> float:
    """Share of pairs that meet in a band when their Jaccard similarity is uniform over [`low`, `high`].

    One pair of similarity s meets with probability 1 - (1 - s^n_rows)^n_bands.
    """
    similarity = np.linspace(low, high, 2001)
    return float(np.mean(1 - (1 - similarity**n_rows) ** n_bands))


class MinHash:
    """Band hashes of shingle sets: two documents meet in a band when all its minima are equal.

    A minimum is that of ``a * x`` modulo 2^32, `a` odd, over the upper halves x of the shingles' hashes.
    These are spread already, so that a multiplication is permutation enough.

    Args:
        n_bands: Bands.
        n_rows: Minima in a band.
        seed: Chooses the permutations.
    """

    def __init__(self, n_bands: int, n_rows: int, seed: int) -> None:
        self.n_bands, self.n_rows, self.seed = n_bands, n_rows, seed
        numbers = np.arange(1, n_bands * n_rows + 1, dtype=np.uint64)
        start = np.uint64(seed * GOLDEN % 2**64)
        self.factors = (mix(numbers * np.uint64(GOLDEN) + start) >> np.uint64(32)).astype(np.uint32) | 1

    def minima(self, shingles: Shingles) -> NDArray[np.uint32]:
        """One row a permutation, one column a text; no text may be without shingles."""
        upper = (shingles.hashes >> np.uint64(32)).astype(np.uint32)
        starts = shingles.ends - shingles.counts
        found = np.empty((len(self.factors), len(starts)), np.uint32)
        permuted = np.empty_like(upper)
        for factor, row in zip(self.factors, found, strict=True):
            np.multiply(upper, factor, out=permuted)
            np.minimum.reduceat(permuted, starts, out=row)
        return found

    def bands(self, shingles: Shingles) -> Hashes:
        """One row a band, one column a text; no text may be without shingles."""
        if not len(shingles.ends):
            return np.empty((self.n_bands, 0), np.uint64)
        minima = self.minima(shingles).reshape(self.n_bands, self.n_rows, -1)
        found = np.zeros((self.n_bands, minima.shape[2]), np.uint64)
        for row in range(self.n_rows):
            found ^= minima[:, row]
            found *= np.uint64(GOLDEN)
            mix(found)
        return found
