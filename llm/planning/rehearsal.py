"""A training step rehearsed on tensors without memory, for the memory it would take, to the byte.

The step is the real one (`llm.parallelism.base.Engine`), with the real model, loss and optimizer. Blocks that
are alike leave the same trace, so of a long row of them two are run, and the others are copies of those.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from llm.parallelism.base import Engine, MakeOptimizer, Objective
from llm.parallelism.precision import Precision
from llm.planning.kernels import LikeGPU
from llm.planning.trace import Event, Trace
from llm.types import Algorithm, Batch

MAX_PERIOD = 8
"""Longest pattern of alternating blocks that is looked for."""


@dataclass(frozen=True)
class Repeat:
    """A row of `count` equal units of `period` blocks in the list `path`, cut down to its first two units."""

    path: str
    start: int
    period: int
    count: int


@dataclass
class Segment:
    """Part of a step: a block's forward or backward, or what lies between; `events` are (kind, bytes)."""

    phase: str
    block: str = ""
    events: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """What one process works on: sequences in a micro-batch, their length, micro-batches in a step.

    `source_len`: of what an encoder reads; None for a model without one.
    """

    micro_batch: int
    seq_len: int
    n_micro: int = 1
    source_len: int | None = None

    def batch(self, scale: int = 1) -> Batch:
        """A batch of this size, `scale` times as many sequences."""
        shape = (scale * self.micro_batch, self.seq_len)
        tokens, targets = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
        if self.source_len is None:
            return Batch(tokens, targets)
        source = torch.zeros((shape[0], self.source_len), dtype=torch.int64)
        return Batch(tokens, targets, source=source)


@dataclass(frozen=True)
class Step:
    """What a training step does to the memory of one process.

    Attributes:
        segments: in order, from the first micro-batch to the clipping; the weights, the optimizer's state and
            nothing else are there before.
        update: the optimizer's own temporaries, at their most.
        evaluation: most bytes that an evaluation's forward pass has at a time.
        state: bytes of the optimizer's state, by parameter.
        shortened: the model whose blocks the segments name, on the meta device.
    """

    segments: list[Segment]
    update: int
    evaluation: int
    state: dict[str, int]
    shortened: nn.Module

    @property
    def n_micro(self) -> int:
        """Micro-batches that were rehearsed: no more than two."""
        return sum((segment.phase, segment.block) == ("forward", "") for segment in self.segments)


def rehearse(
    model: nn.Module,
    make_optimizer: MakeOptimizer,
    algorithm: Algorithm,
    load: Load,
    *,
    precision: Precision,
    clip_norm: float | None,
    on_gpu: bool,
    parameter_dtype: torch.dtype | None = None,
) -> Step:
    """Runs a training step of `model` without its memory.

    Args:
        model: on the meta device; it is left as it is.
        make_optimizer: as the trainer gets it.
        algorithm: whose loss is lowered.
        load: what one process works on.
        precision: of the forward and backward pass.
        clip_norm: as in the trainer.
        on_gpu: whether the kernels are those of a GPU.
        parameter_dtype: of the weights that the forward pass sees, where not their own (FSDP's bfloat16).
    """
    cut, repeats = shortened(model)
    small = copy.deepcopy(cut)
    # a second micro-batch finds the gradients of the first one there; all later ones are like it
    n_micro = min(load.n_micro, 2)
    with Trace() as trace, LikeGPU() if on_gpu else nullcontext():
        materialised(small, parameter_dtype)
        objective = Objective(small, algorithm.loss)
        engine = _Rehearsed(
            objective,
            torch.optim.SGD(small.parameters(), lr=0.0),
            units=lambda batch: batch.tokens.numel(),
            precision=precision,
            clip_norm=clip_norm,
        )
        engine.device, engine.trace = torch.device("cpu"), trace
        with trace.watching(small), naming(trace, objective):
            batches = [load.batch() for _ in range(n_micro)]
            start = len(trace.events)
            trace.segment = ("start", "")
            engine.step(batches, 1.0)
            middle = len(trace.events)
            trace.segment = ("start", "")
            engine.measure([load.batch(2)])
        segments = expanded(grouped(trace.events[start:middle]), repeats)
        evaluation = expanded(grouped(trace.events[middle:]), repeats)
        del batches, engine, objective, small
    state, update = updated(model, cut, repeats, make_optimizer)
    return Step(segments, update, peak(size for s in evaluation for _, size in s.events), state, cut)


class _Rehearsed(Engine):
    """Tells the trace when the backward pass is over."""

    trace: Trace

    def _clip(self) -> Tensor:
        self.trace.segment = ("update", "")
        return super()._clip()


def peak(changes: Iterable[int]) -> int:
    """The most there is at a time when it changes by these, from nothing."""
    return max(accumulate(changes, initial=0))


def updated(
    model: nn.Module, small: nn.Module, repeats: Sequence[Repeat], make_optimizer: MakeOptimizer
) -> tuple[dict[str, int], int]:
    """The optimizer's state in bytes by parameter of `model`, and what an update takes beside it.

    Some optimizers work on one parameter at a time, others on all at once: what each unit adds is found by
    leaving one out.
    """
    weights = dict(small.named_parameters())
    state, most = _update(weights, make_optimizer)
    for repeat in repeats:
        left_out = {f"{repeat.path}.{repeat.start + repeat.period + n}." for n in range(repeat.period)}
        rest = {name: p for name, p in weights.items() if not name.startswith(tuple(left_out))}
        most += (repeat.count - 2) * max(most - _update(rest, make_optimizer)[1], 0)
    blocks = origins(model, repeats)
    return {name: state[_origin(name, blocks)] for name, _ in model.named_parameters()}, most


def _update(shapes: Mapping[str, nn.Parameter], make_optimizer: MakeOptimizer) -> tuple[dict[str, int], int]:
    with Trace() as trace:
        weights = {
            name: nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device="cpu"), p.requires_grad)
            for name, p in shapes.items()
        }
        optimizer = make_optimizer(weights.items())
        for weight in weights.values():
            weight.grad = torch.empty_like(weight) if weight.requires_grad else None
        optimizer.step()
        start = len(trace.events)
        optimizer.step()
        most = peak(size for _, _, size in trace.events[start:])
        state = {
            name: sum(t.nbytes for t in optimizer.state.get(weight, {}).values() if isinstance(t, Tensor))
            for name, weight in weights.items()
        }
    return state, most


# ----------------------------------------------------------------------------- fewer blocks


def shortened(model: nn.Module) -> tuple[nn.Module, list[Repeat]]:
    """A copy of a meta model in which rows of equal blocks are cut down to two units, and what was cut."""
    repeats: list[Repeat] = []
    small = model
    for path, blocks in _lists(model):
        kept, found = _cut([_signature(block) for block in blocks], path)
        if found:
            small = _with_blocks(small, path, [blocks[index] for index in kept])
            repeats += found
    return small, repeats


def origins(model: nn.Module, repeats: Sequence[Repeat]) -> dict[str, str]:
    """For each block of the whole model, by path, the one of the shortened model that it is like."""
    names: dict[str, str] = {}
    for path, blocks in _lists(model):
        at = kept = 0
        cuts = {repeat.start: repeat for repeat in repeats if repeat.path == path}
        while at < len(blocks):
            repeat = cuts.get(kept)
            period, count = (repeat.period, repeat.count) if repeat else (1, 1)
            for n in range(period * count):
                names[f"{path}.{at + n}"] = f"{path}.{kept + n % period + (period if n >= period else 0)}"
            at, kept = at + period * count, kept + period * min(count, 2)
    return names


def _origin(name: str, blocks: Mapping[str, str]) -> str:
    """The same for the name of a parameter."""
    path = name.split(".")
    for length in range(2, len(path)):
        block = ".".join(path[:length])
        if block in blocks:
            return ".".join([blocks[block], *path[length:]])
    return name


def _lists(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """The outermost lists of modules."""
    for name, child in module.named_children():
        where = f"{path}.{name}".lstrip(".")
        if isinstance(child, nn.ModuleList):
            yield where, child
        else:
            yield from _lists(child, where)


def _signature(block: nn.Module) -> tuple[Any, ...]:
    """Equal for blocks that do the same to tensors of the same shapes."""
    return tuple(
        (
            name,
            type(module).__name__,
            tuple(
                (key, value)
                for key, value in vars(module).items()
                if value is None or isinstance(value, (bool, int, float, str))
            ),
            tuple(
                (key, tuple(p.shape), p.dtype, p.requires_grad)
                for key, p in module.named_parameters(recurse=False)
            ),
        )
        for name, module in block.named_modules()
    )


def _cut(kinds: list[Any], path: str) -> tuple[list[int], list[Repeat]]:
    """Which blocks to keep, and the rows that were cut; `Repeat.start` counts kept blocks."""
    kept: list[int] = []
    repeats: list[Repeat] = []
    at = 0
    while at < len(kinds):
        best = (0, 1, 1)
        for period in range(1, MAX_PERIOD + 1):
            count = 1
            while kinds[at : at + period] == kinds[at + count * period : at + (count + 1) * period] and (
                at + (count + 1) * period <= len(kinds)
            ):
                count += 1
            saved = (count - 2) * period
            best = max(best, (saved, -period, count)) if saved > best[0] else best
        saved, period, count = best[0], abs(best[1]), best[2]
        if saved > 0:
            repeats.append(Repeat(path, len(kept), period, count))
            kept += range(at, at + 2 * period)
            at += count * period
        else:
            kept.append(at)
            at += 1
    return kept, repeats


def _with_blocks(model: nn.Module, path: str, blocks: list[nn.Module]) -> nn.Module:
    """The same model with another list of blocks; everything else is shared."""
    parent, _, name = path.partition(".")
    new = copy.copy(model)
    new._modules = dict(model._modules)
    inner = model._modules[parent]
    assert inner is not None
    new._modules[parent] = _with_blocks(inner, name, blocks) if name else nn.ModuleList(blocks)
    return new


def materialised(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A meta model's tensors on the CPU, in place; the parameters as `dtype` where one is given."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in made:
                empty = torch.empty(parameter.shape, dtype=dtype or parameter.dtype, device="cpu")
                made[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
            module._parameters[name] = made[id(parameter)]
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
    return model


# ----------------------------------------------------------------------------- segments


def _on_gradient(tensor: Tensor, work: Callable[[], None]) -> None:
    """Does `work` when the gradient of `tensor` is known."""
    register: Any = tensor.register_hook
    register(lambda _: work())


@contextmanager
def naming(trace: Trace, model: nn.Module) -> Iterator[None]:
    """Keeps `trace.segment` at what is going on: (phase, block)."""
    handles: list[Any] = []

    def enter(phase: str, block: str) -> None:
        trace.segment = (phase, block)

    def in_forward() -> bool:
        return trace.segment[0] != "backward"  # a block that is run again there stays part of it

    def before(block: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if in_forward():
                enter("forward", block)
                if block.endswith(".0") and isinstance(inputs[0], Tensor) and inputs[0].requires_grad:
                    _on_gradient(inputs[0], lambda: enter("backward", f"below {block}"))

        return hook

    def after(block: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, result: Any) -> None:
            if in_forward():
                enter("forward", f"above {block}")
                if isinstance(result, Tensor) and result.requires_grad:
                    _on_gradient(result, lambda: enter("backward", block))

        return hook

    handles.append(model.register_forward_pre_hook(lambda *_: enter("forward", "")))
    for path, blocks in _lists(getattr(model, "policy", model)):
        for index, block in enumerate(blocks):
            handles.append(block.register_forward_pre_hook(before(f"{path}.{index}")))
            handles.append(block.register_forward_hook(after(f"{path}.{index}")))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def grouped(events: Iterable[Event]) -> list[Segment]:
    """Events in a row that fell into the same segment, together; a kind's own changes only."""
    found: list[Segment] = []
    for (phase, block), kind, size in events:
        if not found or (found[-1].phase, found[-1].block) != (phase, block):
            found.append(Segment(phase, block))
        found[-1].events.append((kind, size))
    return found


def expanded(segments: list[Segment], repeats: Iterable[Repeat]) -> list[Segment]:
    """The segments of the whole model, from those of the shortened one.

    A unit's forward is like that of the second, which has another unit below it; its backward is like that of
    the first, which has another above it.
    """
    for repeat in repeats:
        segments = _repeated(segments, repeat)
    return segments


def _repeated(segments: list[Segment], repeat: Repeat) -> list[Segment]:
    first, last = (f"{repeat.path}.{repeat.start + n}" for n in (0, repeat.period - 1))
    last_of_second = f"{repeat.path}.{repeat.start + 2 * repeat.period - 1}"
    labels = [(segment.phase, segment.block) for segment in segments]
    found: list[Segment] = []
    for index, (segment, label) in enumerate(zip(segments, labels, strict=True)):
        more = repeat.count - 2
        if label == ("backward", last):
            found += segments[index : _last(labels, ("backward", first), index) + 1] * more
        found.append(segment)
        if label == ("forward", last) and labels[index + 1 :]:
            found += segments[index + 1 : _last(labels, ("forward", last_of_second), index) + 1] * more
    return found


def _last(labels: list[tuple[str, str]], label: tuple[str, str], start: int) -> int:
    return labels.index(label, start)
