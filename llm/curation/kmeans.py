"""K-means on directions, in whole numbers, so that it gives the same clusters everywhere.

Spherical k-means: Dhillon and Modha 2001. Vectors of 8-bit numbers have dot products that 4-byte floating
point holds exactly up to a thousand dimensions, and 8-byte ones beyond, in whatever order they are summed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32] | NDArray[np.float64]

_BLOCK = 1 << 22


def quantised(vectors: Vectors) -> NDArray[np.int8]:
    """Vectors scaled so that their largest number is 127, and rounded; infinities and NaN count as 0."""
    finite = np.where(np.isfinite(vectors), vectors, 0).astype(np.float64)
    largest = np.abs(finite).max(1, keepdims=True, initial=0)
    whole: NDArray[np.int8] = np.rint(finite / np.where(largest > 0, largest, 1) * 127).astype(np.int8)
    return whole


def exact(vectors: NDArray[np.int8]) -> Vectors:
    """In a floating-point type in which dot products of such vectors are whole numbers, never rounded."""
    if vectors.shape[1] * 127**2 < 1 << 24:
        return vectors.astype(np.float32)
    return vectors.astype(np.float64)


def assign(vectors: NDArray[np.int8], centroids: NDArray[np.int8]) -> NDArray[np.int64]:
    """The centroid nearest in angle to each vector, the first of those that tie."""
    towards = exact(centroids)
    lengths = lengths_of(towards)
    nearest = np.zeros(len(vectors), np.int64)
    step = max(1, _BLOCK // len(centroids))
    for start in range(0, len(vectors), step):
        part = exact(vectors[start : start + step])
        nearest[start : start + step] = (part @ towards.T / lengths).argmax(1)
    return nearest


def k_means(
    vectors: NDArray[np.int8], n_clusters: int, n_iterations: int, rng: np.random.Generator
) -> NDArray[np.int8]:
    """Centroids of at most `n_clusters`, one vector each to begin with.

    Args:
        vectors: None of them all zeros.
        n_clusters: Fewer if there are fewer vectors.
        n_iterations: Rounds at most; it ends when no vector changes its cluster.
        rng: Chooses the first centroids.
    """
    first = rng.choice(len(vectors), min(n_clusters, len(vectors)), replace=False)
    centroids = vectors[np.sort(first)]
    before: NDArray[np.int64] | None = None
    directions = _directions(vectors)
    for _ in range(n_iterations):
        nearest = assign(vectors, centroids)
        if before is not None and np.array_equal(nearest, before):
            break
        before = nearest
        order = np.argsort(nearest, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(nearest[order])) + 1):
            mean = quantised(directions[members].sum(0, dtype=np.int64)[None].astype(np.float64))
            if mean.any():
                centroids[nearest[members[0]]] = mean[0]  # one without members stays where it was
    return centroids


def _directions(vectors: NDArray[np.int8]) -> NDArray[np.int16]:
    """Vectors of one length, so that each counts the same; whole numbers, whose sums need no order."""
    directions = np.empty(vectors.shape, np.int16)
    for start in range(0, len(vectors), 1 << 12):
        part = vectors[start : start + (1 << 12)].astype(np.float64)
        directions[start : start + (1 << 12)] = np.rint(part / lengths_of(part)[:, None] * 2**14)
    return directions


def lengths_of(vectors: Vectors) -> NDArray[np.float64]:
    """Euclidean lengths."""
    lengths: NDArray[np.float64] = np.sqrt((vectors.astype(np.float64) ** 2).sum(1))
    return lengths
