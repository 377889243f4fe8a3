"""How sure a number is: standard errors, Wilson intervals and bootstrap intervals, in numpy alone.

Every random draw comes from a generator seeded by the caller, so a report says the same thing twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Indices drawn at once: 4 million int64 are 32 MB, whatever the number of values and resamples.
_CHUNK = 4_000_000


class Interval(NamedTuple):
    """An estimate and the bounds that hold it with the asked confidence."""

    estimate: float
    low: float
    high: float


def mean_standard_error(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Standard error of the mean: sample standard deviation over sqrt(n); 0 for fewer than two values."""
    numbers = np.asarray(values, dtype=np.float64)
    return float(numbers.std(ddof=1) / math.sqrt(numbers.size)) if numbers.size > 1 else 0.0


def binomial_standard_error(successes: float, n: int) -> float:
    """Standard error of a proportion, sqrt(p (1 - p) / n).

    Args:
        successes: how many of the `n` trials succeeded; at most `n`.
        n: number of trials, at least 1.

    Raises:
        ValueError: if `n` is not positive or `successes` lies outside [0, n].
    """
    _check_counts(successes, n)
    share = successes / n
    return math.sqrt(share * (1 - share) / n)


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927; Brown, Cai and DasGupta 2001, section 3).

    Unlike p +- 2 standard errors it stays inside [0, 1] and has width at p = 0 and p = 1, which small
    exams of small models reach.

    Args:
        successes: how many of the `n` trials succeeded.
        n: number of trials, at least 1.
        confidence: share of such intervals that hold the truth, in (0, 1).

    Returns:
        The proportion with its bounds.

    Raises:
        ValueError: for counts or a confidence outside their ranges.
    """
    _check_counts(successes, n)
    _check_confidence(confidence)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64],
    *,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the mean (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: independent observations, shape [N], N at least 1.
        confidence: share of such intervals that hold the truth, in (0, 1).
        n_resamples: how many times the values are drawn again with replacement.
        seed: of numpy's generator; the same seed and values give the same interval.

    Returns:
        The mean with its bounds, in the unit of the values.

    Raises:
        ValueError: if `values` is empty or holds a number that is not finite.
    """
    _check_confidence(confidence)
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(f"expected a flat, non-empty list of values, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError("a bootstrap of values that are not finite says nothing")
    means = _resampled_means(numbers, n_resamples, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(numbers.mean()), float(low), float(high))


def paired_bootstrap(
    first: Sequence[float] | NDArray[np.float64],
    second: Sequence[float] | NDArray[np.float64],
    *,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Interval of mean(second - first) for two systems scored on the same examples in the same order.

    Resampling the pairs keeps the examples' own difficulty out of the interval (Koehn 2004).

    Args:
        first: the baseline's scores, shape [N].
        second: the other system's scores on the same N examples.
        confidence: as in `bootstrap_interval`, as are `n_resamples` and `seed`.
        n_resamples: see above.
        seed: see above.

    Returns:
        The mean difference with its bounds; `second` is surely better where `low` is above 0.

    Raises:
        ValueError: if the two differ in length, are empty or are not finite.
    """
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"paired scores must match one to one, got shapes {left.shape} and {right.shape}")
    return bootstrap_interval(right - left, confidence=confidence, n_resamples=n_resamples, seed=seed)


def _resampled_means(
    values: NDArray[np.float64], n_resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    if n_resamples < 1:
        raise ValueError(f"n_resamples={n_resamples} must be at least 1")
    rows = max(1, _CHUNK // values.size)
    parts = [
        values[generator.integers(values.size, size=(min(rows, n_resamples - done), values.size))].mean(
            axis=1
        )
        for done in range(0, n_resamples, rows)
    ]
    return np.concatenate(parts)


def _check_counts(successes: float, n: int) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials are not a proportion")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie between 0 and 1")
