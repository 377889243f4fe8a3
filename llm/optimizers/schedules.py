"""Learning-rate schedules: the number of updates already made, and of all, to a multiplier of the rate.

`step` counts from 0: the first update of a run asks for ``schedule(0, total_steps)``.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

Ratio = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=0)]


def constant(step: int, total_steps: int, *, warmup_steps: Steps = 0) -> float:  # noqa: ARG001
    """Linear warm-up, then 1."""
    return _warm_up(step, warmup_steps)


def cosine(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = 100,
    min_ratio: Ratio = 0.1,
    decay_steps: Annotated[int, Field(gt=0)] | None = None,
) -> float:
    """Linear warm-up, half a cosine down to `min_ratio`, then flat (SGDR, Loshchilov & Hutter 2017).

    Equals nanoGPT's ``get_lr`` over its learning rate, with ``min_ratio = min_lr / learning_rate``.

    Args:
        step: Updates made so far.
        total_steps: Updates of the whole run.
        warmup_steps: Updates until the multiplier reaches 1.
        min_ratio: Multiplier at the end.
        decay_steps: Where the cosine ends; `total_steps` when None.
    """
    end = decay_steps or total_steps
    if step < warmup_steps:
        return _warm_up(step, warmup_steps)
    if step >= end:
        return min_ratio
    progress = (step - warmup_steps) / (end - warmup_steps)
    return min_ratio + 0.5 * (1.0 + math.cos(math.pi * progress)) * (1.0 - min_ratio)


def wsd(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = 100,
    decay_fraction: Ratio = 0.1,
    min_ratio: Ratio = 0.0,
    shape: Literal["linear", "sqrt", "exponential"] = "linear",
) -> float:
    """Warm-up, stable, decay (MiniCPM, Hu et al. 2024, arXiv 2404.06395, section 4.2).

    Unlike a cosine, the stable part does not know how long the run will be: a checkpoint of it can be
    decayed at any moment.

    Args:
        step: Updates made so far.
        total_steps: Updates of the whole run.
        warmup_steps: Updates until the multiplier reaches 1.
        decay_fraction: Part of `total_steps`, at the end, in which the rate falls.
        min_ratio: Multiplier after the last update.
        shape: ``linear``; ``sqrt``, that is ``1 - sqrt(x)`` (Hägele et al. 2024, arXiv 2405.18392); or
            ``exponential``, MiniCPM's own, ten halvings when `min_ratio` is 0.
    """
    if step < warmup_steps:
        return _warm_up(step, warmup_steps)
    start = max(total_steps - round(total_steps * decay_fraction), warmup_steps)
    if step < start or start >= total_steps:
        return 1.0
    done = min((step - start) / (total_steps - start), 1.0)
    if shape == "exponential":
        return math.pow(min_ratio or 2.0**-10, done)
    falling = 1.0 - math.sqrt(done) if shape == "sqrt" else 1.0 - done
    return min_ratio + falling * (1.0 - min_ratio)


def _warm_up(step: int, warmup_steps: int) -> float:
    """nanoGPT's: never 0, so the first update is not wasted, and 1 only after the last warm-up step."""
    return (step + 1) / (warmup_steps + 1) if step < warmup_steps else 1.0
