"""How good a classifier is: rates with intervals, a threshold for a wanted precision, honest scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm.statistics import Interval, wilson_interval
from llm.types import ConfigError

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]

N_RESAMPLES = 10_000


class Rates(NamedTuple):
    """Of one class against the others, on one set of examples; each with its 95 % interval."""

    precision: Interval
    recall: Interval
    f1: Interval
    n: int  # examples of the class

    def flat(self, prefix: str = "") -> dict[str, float]:
        """``precision``, ``precision_low``, ``precision_high`` and so on."""
        found: dict[str, float] = {}
        for name in ("precision", "recall", "f1"):
            interval = getattr(self, name)
            found |= {f"{prefix}{name}": interval.estimate, f"{prefix}{name}_low": interval.low}
            found[f"{prefix}{name}_high"] = interval.high
        return found


def rates(predicted: Truth, truth: Truth, *, seed: int = 0) -> Rates:
    """Precision and recall with Wilson's intervals, F1 with a bootstrap's.

    A precision of nothing predicted is 0 with the interval [0, 1], and so is a recall of nothing there.
    """
    hits, found, there = int((predicted & truth).sum()), int(predicted.sum()), int(truth.sum())
    f1 = f1_interval(hits, found - hits, there - hits, truth.size, seed=seed)
    return Rates(_wilson(hits, found), _wilson(hits, there), f1, there)


def _wilson(successes: int, n: int) -> Interval:
    return wilson_interval(successes, n) if n else Interval(0.0, 0.0, 1.0)


def f1_interval(
    hits: int, false_alarms: int, misses: int, n: int, *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap of F1 = 2 hits / (2 hits + false alarms + misses) over `n` examples.

    Resampling examples draws the counts of the four outcomes from a multinomial distribution, so the counts
    are drawn and not the examples.
    """
    counts = np.array([hits, false_alarms, misses, n - hits - false_alarms - misses])
    drawn = np.random.default_rng(seed).multinomial(n, counts / max(1, n), size=N_RESAMPLES)
    tail = (1 - confidence) / 2
    low, high = np.quantile(_f1(*drawn.T[:3]), [tail, 1 - tail])
    return Interval(float(_f1(*counts[:3])), float(low), float(high))


def _f1(hits: Any, false_alarms: Any, misses: Any) -> Any:
    return 2 * hits / np.maximum(1, 2 * hits + false_alarms + misses)


class Curve(NamedTuple):
    """Precision and recall when all scores of at least `thresholds` count as positive; from high to low."""

    thresholds: Scores
    precision: Scores
    recall: Scores


def precision_recall(scores: Scores, truth: Truth, prevalence: float | None = None) -> Curve:
    """The curve over all thresholds that differ in what they find.

    Args:
        scores: Probability of being positive, shape [N].
        truth: Which are.
        prevalence: Share of positive texts where the classifier will be used, if it differs from that among
            the examples: precision depends on it, recall does not.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)  # of the places with equal scores
    hits, alarms = np.cumsum(right)[last], np.cumsum(~right)[last]
    n_positive, n_negative = max(1, int(truth.sum())), max(1, int((~truth).sum()))
    recall = hits / n_positive
    weight = 1.0 if prevalence is None else (1 - prevalence) / prevalence * n_positive / n_negative
    return Curve(ranked[last], hits / (hits + weight * alarms), recall)


def threshold_for(curve: Curve, precision_target: float) -> float:
    """The lowest threshold that reaches the precision: the one that finds most.

    Raises:
        ConfigError: none does. Key `precision_target`.
    """
    good = np.flatnonzero(curve.precision >= precision_target)
    if not good.size:
        mend = (
            f"no threshold reaches it on the development part; the best reaches {curve.precision.max():.4f}"
        )
        raise ConfigError("precision_target", precision_target, mend)
    return float(curve.thresholds[good[-1]])


class Bin(NamedTuple):
    """Texts with scores between `low` and `high`: their mean score, and how many of them are positive."""

    low: float
    high: float
    n: int
    mean_score: float
    positive: Interval


def reliability(scores: Scores, truth: Truth, n_bins: int = 10) -> list[Bin]:
    """Scores against what they turned out to be, in bins of equal width; empty bins are left out."""
    numbers = np.minimum((scores * n_bins).astype(int), n_bins - 1)
    found = []
    for number in range(n_bins):
        inside = numbers == number
        if n := int(inside.sum()):
            positive = wilson_interval(int(truth[inside].sum()), n)
            found.append(
                Bin(number / n_bins, (number + 1) / n_bins, n, float(scores[inside].mean()), positive)
            )
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error (Guo et al. 2017): mean distance of score and share of positives."""
    total = sum(one.n for one in bins)
    return sum(one.n * abs(one.mean_score - one.positive.estimate) for one in bins) / max(1, total)
