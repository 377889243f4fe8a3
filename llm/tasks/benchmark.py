"""task=benchmark: time this system against a reference, both sides in one run."""

from __future__ import annotations

from llm.benchmarks.base import Benchmark
from llm.runs.run import Run

VERSION = 1


def benchmark(*, run: Run, benchmark: Benchmark) -> float:
    """Runs one benchmark.

    Args:
        run: Where records go; the metrics are its summary.
        benchmark: What to time.

    Returns:
        The benchmark's first metric, a ratio: below 1 this system is the faster side.
    """
    metrics = benchmark.measure(run)
    run.log(metrics, step=0)
    run.summary.update(metrics)
    for name, value in metrics.items():
        run.say(f"{name} {value:,.4g}")
    return next(iter(metrics.values()))
