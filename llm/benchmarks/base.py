"""Timings of this system. Every one is a ratio: both sides run in the same minutes on the same machine.

A number of seconds says as much about the machine, its other users and its temperature as about the code.
So each round times all sides one after the other, in an order that turns round every time, and what counts
is the median over rounds of side / reference within a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from llm.runs.run import Run


class Benchmark(Protocol):
    """A `benchmark` component. `measure` returns metrics; the first one is the benchmark's result."""

    name: str

    def measure(self, run: Run) -> dict[str, float]:
        """Times everything, shows progress through `run`, and may log tables to it."""
        ...


@dataclass(frozen=True)
class Timings:
    """Seconds of each side, one a round, in the rounds' order."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float:
        """Seconds."""
        return float(np.median(self.seconds[side]))

    def ratio(self, side: str, reference: str) -> tuple[float, float, float]:
        """Median over rounds of side / reference within a round, with the lower and upper quartile."""
        ratios = np.divide(self.seconds[side], self.seconds[reference])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        return float(middle), float(low), float(high)


def alternate(
    sides: Mapping[str, Callable[[], object]],
    *,
    n_rounds: int,
    n_warmup: int = 1,
    advance: Callable[[int], object] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Times the `sides` round by round, each once a round: A B C, C B A, A B C ...

    Args:
        sides: what to call, by name.
        n_rounds: how often each side is timed.
        n_warmup: rounds before those, not counted (caches of files, of bytecode, of kernels).
        advance: told of each call done, warm-up included.
        clock: in seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-n_warmup, n_rounds):
        # An order that never changes would give one side a cache that the other has just warmed.
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            started = clock()
            sides[name]()
            taken = clock() - started
            if number >= 0:
                seconds[name].append(taken)
            advance(1)
    return Timings(seconds)
