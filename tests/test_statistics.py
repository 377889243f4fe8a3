"""Standard errors and intervals against published values and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llm.statistics import (
    binomial_standard_error,
    bootstrap_interval,
    mean_standard_error,
    paired_bootstrap,
    wilson_interval,
)


def test_binomial_standard_error() -> None:
    assert binomial_standard_error(50, 100) == pytest.approx(0.05)
    assert binomial_standard_error(0, 10) == 0
    assert binomial_standard_error(30, 100) == pytest.approx(math.sqrt(0.3 * 0.7 / 100))


def test_mean_standard_error() -> None:
    assert mean_standard_error([1, 2, 3, 4]) == pytest.approx(math.sqrt(5 / 3) / 2)
    assert mean_standard_error([7]) == 0


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score, no continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_published(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, n)
    assert interval.estimate == successes / n
    assert interval.low == pytest.approx(low, abs=6e-5)
    assert interval.high == pytest.approx(high, abs=6e-5)


def test_wilson_interval_solves_the_score_equation() -> None:
    """Its bounds are the shares p at which |p_hat - p| is exactly z standard errors of p."""
    interval = wilson_interval(7, 40, confidence=0.9)
    for bound in (interval.low, interval.high):
        assert abs(7 / 40 - bound) == pytest.approx(1.6448536269514722 * math.sqrt(bound * (1 - bound) / 40))


def test_bootstrap_agrees_with_the_normal_interval_on_many_values() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=2000)
    interval = bootstrap_interval(values, n_resamples=4000)
    half = 1.959964 * mean_standard_error(values)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.01)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.01)


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        interval = bootstrap_interval(
            generator.exponential(1.0, 60), confidence=0.9, n_resamples=400, seed=trial
        )
        hits += interval.low <= 1.0 <= interval.high
    assert 0.84 < hits / 300 < 0.95


def test_bootstrap_matches_full_enumeration() -> None:
    """Of {0, 1} drawn twice: means 0, .5, 1 with probabilities 1/4, 1/2, 1/4."""
    interval = bootstrap_interval([0, 1], confidence=0.8)
    assert (interval.low, interval.high) == (0, 1)
    interval = bootstrap_interval([0, 1], confidence=0.4)
    assert (interval.low, interval.high) == (0.5, 0.5)


def test_bootstrap_in_chunks_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(range(30))
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)
    whole = bootstrap_interval(values, n_resamples=1000, seed=5)
    monkeypatch.setattr("llm.statistics._CHUNK", 100)
    assert bootstrap_interval(values, n_resamples=1000, seed=5) == whole


def test_paired_bootstrap_removes_shared_difficulty() -> None:
    difficulty = np.random.default_rng(2).normal(0, 10, size=200)
    gain = np.random.default_rng(3).normal(0.5, 0.5, size=200)
    interval = paired_bootstrap(difficulty, difficulty + gain)
    assert 0.4 < interval.low < interval.estimate < interval.high < 0.6
    assert interval.estimate == pytest.approx(gain.mean())
    reverse = paired_bootstrap(difficulty + gain, difficulty)
    assert reverse.estimate == pytest.approx(-interval.estimate)
    assert reverse.high < 0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="one to one"):
        paired_bootstrap([1, 2], [1])
    with pytest.raises(ValueError, match="empty"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([1, float("nan")])
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval([1, 2], confidence=1.0)
    with pytest.raises(ValueError, match="n_resamples"):
        bootstrap_interval([1, 2], n_resamples=0)
    with pytest.raises(ValueError, match="proportion"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="proportion"):
        binomial_standard_error(0, 0)
