"""The machine under a run: device, process group, seeds, determinism."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

T = TypeVar("T")


def rank() -> int:
    """This process's number among all that train together (0 when alone)."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """This process's number on its machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """How many processes train together, as torchrun says; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """True in the one process that writes files and talks to people."""
    return rank() == 0


def device() -> torch.device:
    """The device this process computes on: its own GPU when there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    return torch.device("cpu")


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the process group torchrun prepared (nccl on GPUs, gloo elsewhere) and leaves it at the end."""
    if world_size() == 1 or dist.is_initialized():
        yield
        return
    where = device()
    if where.type == "cuda":
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo", timeout=timedelta(minutes=10))
    try:
        yield
    finally:
        dist.destroy_process_group()


def broadcast(value: T) -> T:
    """Rank 0's `value`, on every rank."""
    if not dist.is_initialized():
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    found: T = box[0]
    return found


def seed_everything(seed: int) -> None:
    """Seeds python, numpy and torch, and asks torch for deterministic kernels where it has them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")
    # use_deterministic_algorithms does the same, but imports the compiler: two seconds at every start
    torch.set_deterministic_debug_mode("warn")


def memory_bytes() -> int:
    """Peak memory of this process so far: allocated on the GPU when there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource  # absent on Windows, so not at the top

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
