"""Rates, thresholds and reliability against plain counting."""

from __future__ import annotations

import numpy as np
import pytest

from llm.classifiers import measuring
from llm.types import ConfigError

SCORES = np.array([0.9, 0.8, 0.8, 0.6, 0.4, 0.2, 0.2, 0.1])
TRUTH = np.array([True, True, False, True, False, True, False, False])


def counted(threshold: float, prevalence: float | None = None) -> tuple[float, float]:
    hits = sum(t for s, t in zip(SCORES, TRUTH, strict=True) if s >= threshold)
    alarms = sum(not t for s, t in zip(SCORES, TRUTH, strict=True) if s >= threshold)
    recall = hits / TRUTH.sum()
    if prevalence is None:
        return hits / (hits + alarms), recall
    false_rate = alarms / (~TRUTH).sum()
    return prevalence * recall / (prevalence * recall + (1 - prevalence) * false_rate), recall


@pytest.mark.parametrize("prevalence", [None, 0.01, 0.5])
def test_the_curve_is_what_counting_gives_at_every_threshold(prevalence: float | None):
    curve = measuring.precision_recall(SCORES, TRUTH, prevalence)
    assert curve.thresholds.tolist() == sorted(set(SCORES), reverse=True)
    for threshold, precision, recall in zip(*curve, strict=True):
        assert (precision, recall) == pytest.approx(counted(threshold, prevalence))


def test_the_lowest_threshold_with_the_wanted_precision():
    curve = measuring.precision_recall(SCORES, TRUTH)
    assert measuring.threshold_for(curve, 0.75) == 0.6  # 3 of 4; at 0.8 it is 2 of 3
    assert measuring.threshold_for(curve, 0.99) == 0.9
    with pytest.raises(ConfigError, match=r"the best reaches 0\.6") as caught:
        measuring.threshold_for(measuring.precision_recall(SCORES[1:], TRUTH[1:]), 0.9)
    assert caught.value.key == "precision_target"


def test_rates_of_known_counts():
    predicted = SCORES >= 0.6
    found = measuring.rates(predicted, TRUTH)
    assert found.precision.estimate == found.recall.estimate == 0.75
    assert found.f1.estimate == pytest.approx(0.75)
    assert found.f1.low < 0.75 < found.f1.high
    nothing = measuring.rates(np.zeros(8, bool), TRUTH)
    assert nothing.precision == (0.0, 0.0, 1.0)
    assert nothing.f1.estimate == 0


def test_the_interval_of_f1_is_that_of_resampled_examples():
    generator = np.random.default_rng(1)
    truth = generator.random(400) < 0.4
    predicted = truth ^ (generator.random(400) < 0.15)
    draws = generator.integers(400, size=(4000, 400))

    def f1(p: np.ndarray, t: np.ndarray) -> float:
        return 2 * (p & t).sum() / (p.sum() + t.sum())

    low, high = np.quantile([f1(predicted[d], truth[d]) for d in draws], [0.025, 0.975])
    found = measuring.rates(predicted, truth).f1
    assert found.estimate == pytest.approx(f1(predicted, truth))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.006)


def test_reliability_counts_every_text_once():
    bins = measuring.reliability(np.append(SCORES, 1.0), np.append(TRUTH, True), n_bins=2)
    assert [(one.low, one.high, one.n) for one in bins] == [(0, 0.5, 4), (0.5, 1, 5)]
    assert bins[0].mean_score == pytest.approx(0.225)
    assert bins[0].positive.estimate == 0.25
    gaps = [abs(one.mean_score - one.positive.estimate) for one in bins]
    assert measuring.calibration_error(bins) == pytest.approx((4 * gaps[0] + 5 * gaps[1]) / 9)
