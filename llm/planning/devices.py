"""What a machine can do: arithmetic, memory, power; from data sheets, or measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import torch
from pydantic import Field

Positive = Annotated[float, Field(gt=0)]

POWERCAP = Path("/sys/class/powercap")
CGROUP = Path("/sys/fs/cgroup/memory.max")


@runtime_checkable
class Machine(Protocol):
    """A `device` component.

    Attributes:
        label: its name.
        memory_bytes: what programs can have of it.
        bytes_per_second: that its memory delivers.
        watts: under load; None where nobody says.
        source: where the figures come from.
        on_gpu: whether torch's kernels for GPUs run on it.
    """

    label: str
    watts: float | None
    source: str
    on_gpu: bool

    @property
    def memory_bytes(self) -> float: ...  # noqa: D102

    @property
    def bytes_per_second(self) -> float: ...  # noqa: D102

    def flops(self, dtype: torch.dtype) -> float:
        """Peak floating-point operations a second in matrix products of this type."""
        ...


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet, which knows nothing of the runtime's own memory and of fragmentation.

    Attributes:
        label: its name.
        float32_flops: peak a second in single precision, as torch computes it (without TF32).
        bfloat16_flops: the same in bfloat16, dense.
        memory_bytes: on the board.
        bytes_per_second: bandwidth of that memory.
        watts: of the board, at its limit.
        source: where the figures come from.
    """

    label: str
    float32_flops: Positive
    bfloat16_flops: Positive
    memory_bytes: Positive
    bytes_per_second: Positive
    watts: Positive | None
    source: str
    on_gpu: bool = True

    def flops(self, dtype: torch.dtype) -> float:
        """Peak floating-point operations a second."""
        return self.float32_flops if dtype == torch.float32 else self.bfloat16_flops


class ThisCPU:
    """The CPU the plan is made on, measured when asked: it takes a fraction of a second.

    Its peak is that of torch's matrix product with the threads torch has, so a utilisation means the same as
    on a GPU.
    """

    on_gpu = False
    source = "measured on this machine just now"

    def __init__(self, *, watts: Positive | None = None) -> None:
        self.watts = watts if watts is not None else _power_limit()
        self._flops: dict[torch.dtype, float] = {}

    @cached_property
    def label(self) -> str:
        """What the processor calls itself, and how many threads torch has."""
        name = "this CPU"
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        except (OSError, StopIteration):
            pass
        return f"{name}, {torch.get_num_threads()} threads"

    @cached_property
    def memory_bytes(self) -> float:
        """All the machine has, or what its container is given."""
        try:
            pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
            whole = float(pages * size)
        except (ValueError, OSError):
            return float("inf")
        try:
            return min(whole, float(CGROUP.read_text()))
        except (OSError, ValueError):  # no container, or one without a limit ("max")
            return whole

    @cached_property
    def bytes_per_second(self) -> float:
        """Of a copy that no cache holds: as many bytes read as written."""
        source = torch.ones(8_000_000)
        target = torch.empty_like(source)
        return 2 * source.nbytes / _fastest(lambda: target.copy_(source))

    def flops(self, dtype: torch.dtype) -> float:
        """Peak floating-point operations a second, of a product of 768 x 768 matrices."""
        if dtype not in self._flops:
            size = 768
            a = torch.ones(size, size, dtype=dtype)
            self._flops[dtype] = 2 * size**3 / _fastest(lambda: a @ a)
        return self._flops[dtype]


def _fastest(work: Callable[[], object], budget_seconds: float = 0.15) -> float:
    """Seconds of the fastest of some runs: the others were disturbed."""
    best, end = float("inf"), time.perf_counter() + budget_seconds
    runs = 0
    while runs < 2 or (time.perf_counter() < end and runs < 20):
        start = time.perf_counter()
        work()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def _power_limit() -> float | None:
    """Watts that the machine's CPU packages may draw, where Linux says so."""
    found = []
    for zone in POWERCAP.glob("intel-rapl:*"):
        if zone.name.count(":") == 1:
            try:
                found.append(int((zone / "constraint_0_power_limit_uw").read_text()) / 1e6)
            except (OSError, ValueError):
                return None
    return sum(found) or None
