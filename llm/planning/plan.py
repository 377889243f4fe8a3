"""What a training run would take, from its model and its numbers: nothing is allocated, nothing is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llm.models.accounting import Part, active_parameters, count_parameters, flops_per_token, parts
from llm.parallelism.base import MakeOptimizer
from llm.parallelism.precision import Precision
from llm.planning.cache import CacheSize, cache_size
from llm.planning.devices import Machine
from llm.planning.memory import Kind, Memory, per_device
from llm.planning.rehearsal import Load, Step, rehearse
from llm.types import Algorithm, ConfigError

MOST_DEVICES = 1024
"""More are not suggested."""


@dataclass(frozen=True)
class Training:
    """The numbers of a training run that decide what it takes.

    Attributes:
        seq_len: tokens of a sequence.
        batch_size: sequences of a step, over all devices and micro-batches.
        grad_accum_steps: micro-batches a device runs one after the other.
        max_steps: optimizer steps.
        n_devices: how many share a step.
        kind: how they share it.
        clip_norm: as in the trainer.
    """

    seq_len: int
    batch_size: int
    grad_accum_steps: int
    max_steps: int
    n_devices: int
    kind: Kind
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        if self.kind == "single" and self.n_devices > 1:
            mend = "parallelism=single uses one; choose parallelism=ddp, fsdp2 or fairscale_oss"
            raise ConfigError("n_devices", self.n_devices, mend)
        if self.kind != "single" and self.n_devices == 1:
            mend = f"parallelism={self.kind} needs more than one; say how many, as n_devices=8"
            raise ConfigError("n_devices", self.n_devices, mend)
        shares = self.n_devices * self.grad_accum_steps
        if self.batch_size % shares:
            below, above = self.batch_size // shares * shares, -(-self.batch_size // shares) * shares
            nearest = f"{below}, {above}" if below else str(above)
            mend = (
                f"is not divisible by n_devices={self.n_devices} x "
                f"grad_accum_steps={self.grad_accum_steps}; nearest: {nearest}"
            )
            raise ConfigError("batch_size", self.batch_size, mend)

    @property
    def micro_batch(self) -> int:
        """Sequences a device works on at a time."""
        return self.batch_size // (self.n_devices * self.grad_accum_steps)

    @property
    def tokens(self) -> int:
        """Of the whole training, those that the decoder reads."""
        return self.max_steps * self.batch_size * self.seq_len


@dataclass(frozen=True)
class Plan:
    """What a training run takes.

    Attributes:
        training: which.
        device: on what.
        parts: parameters and forward FLOPs a token, by kind.
        n_params: parameters in all.
        active_params: those that work on a token.
        flops_per_token: of training: forward, and twice that for backward.
        tokens: of the whole training; an encoder's source is taken to be as long as its target may be.
        memory: on one device, at its most.
        capacity: bytes the device has.
        cache: of generation.
        peak_flops: of one device, in the plan's precision.
        utilisation: the share of them that is reached.
        decode_tokens_per_second: a sequence's upper bound, where every active weight is read once a token.
        changes: each of which alone would make it fit; empty when it does.
    """

    training: Training
    device: Machine
    parts: dict[str, Part]
    n_params: int
    active_params: int
    flops_per_token: float
    tokens: int
    memory: Memory
    capacity: float
    cache: CacheSize
    peak_flops: float
    utilisation: float
    decode_tokens_per_second: float
    changes: list[str]

    @property
    def peak_bytes(self) -> int:
        """The most there is on a device, in a step or in an evaluation."""
        return max(self.memory.total, self.memory.evaluation)

    @property
    def fits(self) -> bool:
        """Whether that is no more than the device has."""
        return self.peak_bytes <= self.capacity

    @property
    def flops(self) -> float:
        """Of the whole training."""
        return self.flops_per_token * self.tokens

    @property
    def seconds(self) -> float:
        """Of the whole training, evaluations and the exchange between devices left out."""
        return self.flops / (self.peak_flops * self.utilisation * self.training.n_devices)

    @property
    def joules(self) -> float | None:
        """Of all devices at their limit; None where nobody says what that is."""
        watts = self.device.watts
        return None if watts is None else self.seconds * self.training.n_devices * watts


def make_plan(
    model: nn.Module,
    make_optimizer: MakeOptimizer,
    algorithm: Algorithm,
    training: Training,
    device: Machine,
    precision: Precision,
    utilisation: float,
) -> Plan:
    """Prices a training run.

    Args:
        model: whole, on the meta device.
        make_optimizer: as the trainer gets it.
        algorithm: whose loss is lowered.
        training: the numbers of the run.
        device: what it would run on.
        precision: of the forward and backward pass.
        utilisation: share of the device's peak arithmetic that is reached.
    """
    pure = precision.mixed and training.kind == "fsdp2"  # the weights themselves are in that type there

    def stepped(micro_batch: int) -> Step:
        return rehearse(
            model,
            make_optimizer,
            algorithm,
            Load(micro_batch, training.seq_len, training.grad_accum_steps, _source_len(model, training)),
            precision=Precision() if pure else precision,
            clip_norm=training.clip_norm,
            on_gpu=device.on_gpu,
            parameter_dtype=precision.dtype if pure else None,
        )

    step = stepped(training.micro_batch)
    memory = per_device(model, step, training.kind, training.n_devices, mixed=precision.mixed)
    counted = parts(model, training.seq_len)
    active, capacity = active_parameters(model), float(device.memory_bytes)
    changes: list[str] = []
    if max(memory.total, memory.evaluation) > capacity:
        one = step if training.micro_batch == 1 else stepped(1)
        changes = _changes(training, capacity, _estimate(model, training, step, one, precision.mixed))
    return Plan(
        training=training,
        device=device,
        parts=counted,
        n_params=count_parameters(model),
        active_params=active,
        flops_per_token=3 * flops_per_token(model, training.seq_len),
        tokens=training.tokens * (1 if _source_len(model, training) is None else 2),
        memory=memory,
        capacity=capacity,
        cache=cache_size(model, training.seq_len, precision),
        peak_flops=device.flops(precision.dtype),
        utilisation=utilisation,
        decode_tokens_per_second=device.bytes_per_second / (active * precision.dtype.itemsize),
        changes=changes,
    )


def _source_len(model: nn.Module, training: Training) -> int | None:
    return training.seq_len if hasattr(model, "start_id") else None


Estimate = Callable[[Kind, int, int], float]
"""From the way of splitting, devices and sequences at a time to bytes on one of them."""


def _estimate(model: nn.Module, training: Training, step: Step, one: Step, mixed: bool) -> Estimate:
    """On a line through two rehearsals: activations grow with the micro-batch, all else stays."""

    def bytes_of(kind: Kind, n_devices: int, micro_batch: int) -> float:
        ends = [per_device(model, s, kind, n_devices, mixed=mixed) for s in (one, step)]
        low, high = (float(max(memory.total, memory.evaluation)) for memory in ends)
        if training.micro_batch == 1:
            return low
        return low + (high - low) * (micro_batch - 1) / (training.micro_batch - 1)

    return bytes_of


def _changes(training: Training, capacity: float, estimate: Estimate) -> list[str]:
    """The smallest change of each kind that makes it fit: micro-batches, devices, the batch."""
    kind, n, accum, batch = training.kind, training.n_devices, training.grad_accum_steps, training.batch_size
    found = []
    micro = training.micro_batch
    for smaller in range(micro - 1, 0, -1):
        if micro % smaller == 0 and estimate(kind, n, smaller) <= capacity:
            found.append(f"trainer.grad_accum_steps={accum * micro // smaller}")
            break
    shared: Kind = "fsdp2" if kind == "single" else kind
    more = 2 * n
    while more <= MOST_DEVICES:
        if batch % (more * accum) == 0 and estimate(shared, more, batch // (more * accum)) <= capacity:
            found.append(("parallelism=fsdp2 " if kind == "single" else "") + f"n_devices={more}")
            break
        more *= 2
    for smaller in range(micro - 1, 0, -1):
        if estimate(kind, n, smaller) <= capacity:
            found.append(f"trainer.batch_size={smaller * n * accum}")
            break
    if not found and kind != "fsdp2":
        more = max(2 * n, 2)
        while more <= MOST_DEVICES and estimate("fsdp2", more, 1) > capacity:
            more *= 2
        if more <= MOST_DEVICES:
            found.append(f"parallelism=fsdp2 n_devices={more} trainer.batch_size={more * accum}")
    elif not found:
        more = 2 * n
        while more <= MOST_DEVICES and estimate(kind, more, 1) > capacity:
            more *= 2
        if more <= MOST_DEVICES:
            found.append(f"n_devices={more} trainer.batch_size={more * accum}")
    return found


def on_meta(make_model: Callable[..., nn.Module], **arguments: Any) -> nn.Module:
    """A model whose tensors have shapes and no storage, however large it is."""
    with torch.device("meta"):
        return make_model(**arguments)
