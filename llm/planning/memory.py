"""What one device must hold: the rehearsed step of one process, under a way of splitting the work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Literal

from torch import nn

from llm.planning.rehearsal import Segment, Step
from llm.planning.trace import ACTIVATION, GRADIENT

Kind = Literal["single", "ddp", "fsdp2", "fairscale_oss"]
KINDS: tuple[Kind, ...] = ("single", "ddp", "fsdp2", "fairscale_oss")


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the moment when there are most.

    Attributes:
        parameters: the device's share of the weights.
        buffers: tables that are not trained.
        gradients: those there are at that moment.
        optimizer: the device's share of the optimizer's state.
        activations: what the forward pass keeps and what is passing through.
        gathered: weights and gradients of others that are here for a while (fsdp2), and copies for sending.
        at: when that is.
        evaluation: bytes in all at the most during an evaluation.
    """

    parameters: int
    buffers: int
    gradients: int
    optimizer: int
    activations: int
    gathered: int
    at: str
    evaluation: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Bytes by what they are for."""
        names = [field.name for field in fields(self) if field.name not in ("at", "evaluation")]
        return {name: int(getattr(self, name)) for name in names}


GATHERED = 9
"""Kind of event: weights of others, and copies of gradients on their way to others."""

Events = Iterator[tuple[str, int, int]]


def per_device(model: nn.Module, step: Step, kind: Kind, n_devices: int, *, mixed: bool) -> Memory:
    """The memory of the device that has most to hold.

    Args:
        model: whole, on the meta device.
        step: rehearsed with the share of a batch that one device gets; for ``fsdp2`` in mixed precision with
            weights of that type.
        kind: how the work is split.
        n_devices: over how many.
        mixed: whether the forward pass computes in two bytes.
    """
    split = _SPLITS[kind](model, step, n_devices, 2 if mixed else 4)
    levels = {ACTIVATION: 0, GRADIENT: split.gradients, GATHERED: 0}
    most, at, best = -1, "", dict(levels)
    for when, event_kind, size in split.events:
        levels[event_kind] = levels.get(event_kind, 0) + size
        if (total := sum(levels.values())) > most:
            most, at, best = total, when, dict(levels)
    full = split.gradients or split.gradients_at_update
    if full + split.update > most:
        at, best = "update", {ACTIVATION: split.update, GRADIENT: full, GATHERED: 0}
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    resting = split.parameters + buffers + split.optimizer
    return Memory(
        parameters=split.parameters,
        buffers=buffers,
        gradients=best[GRADIENT],
        optimizer=split.optimizer,
        activations=best[ACTIVATION],
        gathered=best[GATHERED],
        at=at,
        evaluation=resting + split.evaluation + step.evaluation,
    )


@dataclass
class Split:
    """One process's share. `gradients` are there all the time; `evaluation` is added to activations."""

    parameters: int
    optimizer: int
    events: Iterable[tuple[str, int, int]]
    gradients: int = 0
    gradients_at_update: int = 0
    update: int = 0
    evaluation: int = 0


def _bytes(model: nn.Module) -> int:
    return sum(p.nbytes for p in model.parameters())


def _trained(model: nn.Module) -> int:
    return sum(p.nbytes for p in model.parameters() if p.requires_grad)


def _phases(segments: Iterable[Segment]) -> Events:
    for segment in segments:
        when = segment.phase
        if segment.phase == "forward" and segment.block.startswith("above"):
            when = "loss"
        for kind, size in segment.events:
            yield when, kind, size


def _single(model: nn.Module, step: Step, n: int, width: int) -> Split:  # noqa: ARG001
    return Split(
        _bytes(model),
        sum(step.state.values()),
        _phases(step.segments),
        gradients_at_update=_trained(model),
        update=step.update,
    )


def _ddp(model: nn.Module, step: Step, n: int, width: int) -> Split:  # noqa: ARG001
    """Buckets for all gradients stay, and a gradient is copied into its bucket when it is ready.

    Before the last micro-batch nothing is sent: the gradients so far lie beside the buckets.
    """
    waits = step.n_micro > 1
    events = (event for event in _phases(step.segments) if waits or event[1] != GRADIENT)
    return Split(
        _bytes(model), sum(step.state.values()), events, gradients=_trained(model), update=step.update
    )


def _fairscale(model: nn.Module, step: Step, n: int, width: int) -> Split:  # noqa: ARG001
    share = max(_owned(model, n, lambda name: step.state[name])) if n > 1 else sum(step.state.values())
    mine = max(_owned(model, n, lambda name: dict(model.named_parameters())[name].nbytes))
    events = _phases(step.segments)
    return Split(_bytes(model), share, events, gradients_at_update=mine, update=step.update // n)


def _owned(model: nn.Module, n: int, size: Callable[[str], int]) -> list[int]:
    """Each process's share when every parameter goes to the one that has least so far (fairscale's OSS)."""
    loads, found = [0] * n, [0] * n
    for name, parameter in model.named_parameters():
        owner = loads.index(min(loads))
        loads[owner] += parameter.numel()
        found[owner] += size(name)
    return found


def _fsdp2(model: nn.Module, step: Step, n: int, width: int) -> Split:
    groups = _groups(model, n)
    root = groups[""]
    shards = sum(group.shard for group in groups.values())
    state = sum(
        math.ceil(p.shape[0] / n) / p.shape[0] * step.state[name] if p.ndim else step.state[name]
        for name, p in model.named_parameters()
    )
    events = _gathering(step, n, width)
    largest = max((g.whole for name, g in groups.items() if name), default=0)
    return Split(
        4 * shards,
        int(state),
        events,
        gradients_at_update=4 * shards,
        update=step.update // n,
        evaluation=width * (2 * root.whole + 2 * largest),
    )


@dataclass
class _Group:
    """Parameters that are gathered together: their number, and that of the largest share."""

    whole: int = 0
    shard: int = 0


def _groups(model: nn.Module, n: int) -> dict[str, _Group]:
    """One for each block, and ``""`` for the rest."""
    found: dict[str, _Group] = {"": _Group()}
    for name, parameter in model.named_parameters():
        path = name.split(".")
        group = found.setdefault(".".join(path[:2]) if path[0] == "blocks" else "", _Group())
        first = parameter.shape[0] if parameter.ndim else 1
        each = parameter.numel() // max(first, 1)
        group.shard += math.ceil(first / n) * each
        group.whole += math.ceil(first / n) * n * each
    return found


def _gathering(step: Step, n: int, width: int) -> Events:
    """The step's own events, and the weights that are gathered around a block and dropped behind it.

    As torch's `fully_shard` does it: gathering fills a buffer, which the next gathering frees, and copies it
    into the weights; in backward the next block is gathered while this one works; gradients are summed in
    float32, in a buffer that lives until those of the next block are ready; the root stays gathered. Until
    the last micro-batch gradients stay whole.
    """
    groups = _groups(step.shortened, n)
    root = groups.pop("")
    n_micro, micro, sending = step.n_micro, 0, 0

    def scattered(when: str, group: _Group, held: int) -> Events:
        """What becomes of a group's gradients, of which `held` bytes have come up."""
        nonlocal sending
        if micro < n_micro:
            yield when, GRADIENT, 4 * group.whole - held
            return
        yield when, GATHERED, 4 * group.whole
        yield when, GATHERED, -sending
        sending = 4 * group.whole
        yield when, GRADIENT, 4 * group.shard - held - (4 * group.whole if n_micro > 1 else 0)

    held_by_root = 0
    for segment in step.segments:
        if (segment.phase, segment.block) == ("forward", ""):
            micro, held_by_root = micro + 1, 0
            yield "forward", GATHERED, 2 * width * root.whole
            yield "forward", GATHERED, -width * root.whole
        if segment.phase == "update" and micro:
            yield from scattered("backward", root, held_by_root)
            yield "backward", GATHERED, -width * root.whole - sending
            micro = sending = 0
        group = groups.get(segment.block)
        gathered = 2 * width * group.whole if group else 0
        yield segment.phase, GATHERED, gathered
        held = 0
        for when, kind, size in _phases([segment]):
            held += size if kind == GRADIENT else 0
            yield when, kind, size
        if group and segment.phase == "backward":
            yield from scattered("backward", group, held)
        else:
            held_by_root += held
        yield segment.phase, GATHERED, -gathered


_SPLITS: dict[Kind, Callable[[nn.Module, Step, int, int], Split]] = {
    "single": _single,
    "ddp": _ddp,
    "fsdp2": _fsdp2,
    "fairscale_oss": _fairscale,
}
