from __future__ import annotations

import pytest

from llm.benchmarks.base import Timings, alternate


class Clock:
    """A clock that each side moves on by its own costs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def side(self, name: str, *costs: float):
        left = list(costs)

        def call() -> None:
            self.calls.append(name)
            self.now += left.pop(0)

        return call


def test_rounds_turn_round_and_the_warm_up_does_not_count() -> None:
    clock, done = Clock(), []
    sides = {"a": clock.side("a", 100, 1, 2, 3), "b": clock.side("b", 100, 2, 4, 9)}
    timings = alternate(sides, n_rounds=3, n_warmup=1, advance=done.append, clock=lambda: clock.now)
    assert "".join(clock.calls) == "ba" + "ab" + "ba" + "ab"
    assert timings.seconds == {"a": [1, 2, 3], "b": [2, 4, 9]}
    assert sum(done) == 8


def test_ratio_is_the_median_of_ratios_within_rounds() -> None:
    timings = Timings({"a": [1, 10, 4], "b": [2, 40, 12]})
    assert timings.ratio("b", "a") == pytest.approx((3, 2.5, 3.5))  # ratios 2, 4, 3; of medians it would be 3
    assert timings.median("a") == 4
    slow_machine_later = Timings({"a": [1, 1, 10, 10, 10], "b": [2, 2, 20, 20, 20]})
    assert slow_machine_later.ratio("b", "a") == (2, 2, 2)
