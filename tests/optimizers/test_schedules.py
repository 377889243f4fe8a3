from __future__ import annotations

import math

import pytest

from llm.optimizers.schedules import constant, cosine, wsd


def nanogpt(it: int, lr: float, min_lr: float, warmup: int, decay: int) -> float:
    """The published rule in its three cases; `it` counts from 0."""
    if it < warmup:
        return lr * (it + 1) / (warmup + 1)
    if it > decay:
        return min_lr
    ratio = (it - warmup) / (decay - warmup)
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (lr - min_lr)


@pytest.mark.parametrize("warmup", [0, 1, 100])
def test_cosine_is_nanogpts(warmup: int) -> None:
    for it in range(2101):
        ours = 1e-3 * cosine(it, 2000, warmup_steps=warmup, min_ratio=0.1)
        assert ours == pytest.approx(nanogpt(it, 1e-3, 1e-4, warmup, 2000), rel=1e-12)


def test_cosine_can_end_before_the_run() -> None:
    assert cosine(500, 1000, warmup_steps=0, min_ratio=0.2, decay_steps=500) == 0.2
    assert cosine(499, 1000, warmup_steps=0, min_ratio=0.2, decay_steps=500) > 0.2
    assert cosine(250, 1000, warmup_steps=0, min_ratio=0.0, decay_steps=500) == pytest.approx(0.5)


def test_a_run_shorter_than_its_warm_up_only_warms_up() -> None:
    for schedule in (cosine, wsd, constant):
        rates = [schedule(step, 3, warmup_steps=100) for step in range(3)]
        assert rates == [1 / 101, 2 / 101, 3 / 101]


@pytest.mark.parametrize(
    ("shape", "halfway"), [("linear", 0.5), ("sqrt", 1 - math.sqrt(0.5)), ("exponential", 2.0**-5)]
)
def test_wsd(shape: str, halfway: float) -> None:
    def at(step: int) -> float:
        return wsd(step, 1000, warmup_steps=10, decay_fraction=0.2, min_ratio=0.0, shape=shape)  # type: ignore[arg-type]

    assert [at(step) for step in (10, 500, 799, 800)] == [1.0] * 4
    assert at(801) < 1.0
    assert at(900) == pytest.approx(halfway)
    assert at(999) < at(998) < at(900)
    assert at(1000) == pytest.approx(2.0**-10 if shape == "exponential" else 0.0)


@pytest.mark.parametrize("shape", ["linear", "sqrt", "exponential"])
def test_wsd_ends_at_its_minimum(shape: str) -> None:
    last = wsd(1000, 1000, warmup_steps=10, decay_fraction=0.2, min_ratio=0.1, shape=shape)  # type: ignore[arg-type]
    assert last == pytest.approx(0.1)


def test_wsd_without_decay_and_constant_stay_at_one() -> None:
    assert wsd(999, 1000, warmup_steps=10, decay_fraction=0.0) == 1.0
    assert constant(999, 1000) == constant(0, 1000) == 1.0
