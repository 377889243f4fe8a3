"""A real training step, and the peak of what torch's CPU allocator gave out during it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from llm.parallelism.base import Engine, Objective
from llm.parallelism.precision import Precision
from llm.training.losses import NextToken
from llm.types import Batch

Prepare = Callable[..., Engine]


def on_one(model: nn.Module, make_optimizer: Any, _mesh: Any = None, **options: Any) -> Engine:
    return Engine(
        Objective(model, options.pop("loss")), make_optimizer(model.named_parameters()), **options
    )  # fmt: skip


def batches(vocab_size: int, micro_batch: int, seq_len: int, n_micro: int) -> list[Batch]:
    shape = (micro_batch, seq_len)
    return [Batch(*(torch.randint(vocab_size, shape) for _ in range(2))) for _ in range(n_micro)]


def recording() -> AbstractContextManager[Any]:
    return profile(activities=[ProfilerActivity.CPU], profile_memory=True)


def peak_bytes(recorded: Any) -> int:
    """The most the allocator had given out at a time, from the first record on."""
    now = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def step_peak(
    make_model: Callable[..., nn.Module],
    make_optimizer: Any,
    *,
    dtype: Any,
    vocab_size: int,
    micro_batch: int,
    seq_len: int,
    n_micro: int = 1,
    prepare: Prepare = on_one,
    mesh: Any = None,
    has_source: bool = False,
) -> int:
    """Of two steps, the second of which finds the optimizer's state there, and of the model itself."""
    algorithm = NextToken()
    with recording() as recorded:
        model = make_model(vocab_size=vocab_size, max_seq_len=seq_len)
        engine = prepare(
            model,
            make_optimizer,
            mesh,
            loss=algorithm.loss,
            units=algorithm.units,
            precision=Precision(dtype=dtype),
            clip_norm=1.0,
        )
        micro = batches(vocab_size, micro_batch, seq_len, n_micro)
        if has_source:
            micro = [replace(batch, source=batch.tokens) for batch in micro]
        for _ in range(2):
            engine.step(micro, 1.0)
    return peak_bytes(recorded)
