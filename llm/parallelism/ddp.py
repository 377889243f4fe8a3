"""parallelism=ddp: every process holds the whole model and reads its share of the batch (Li et al. 2020)."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

from pydantic import Field
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

from llm import runtime
from llm.parallelism.base import Engine, Loss, MakeOptimizer, Objective, Units, require_processes
from llm.parallelism.precision import Precision

# Buffers (tables of rotary positions) are the same everywhere; the option's name changed in torch 2.13.
SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


class DDP:
    """torch's DistributedDataParallel (arXiv 2006.15704): gradients are averaged while backward runs."""

    def __init__(self, *, replicas: Annotated[int, Field(gt=0)] | None = None) -> None:
        self.replicas = replicas

    def prepare(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        mesh: DeviceMesh | None,
        *,
        loss: Loss,
        precision: Precision,
        clip_norm: float | None,
        units: Units,
    ) -> Engine:
        """Gives all processes the first one's weights. See `llm.parallelism.base.Parallelism`."""
        mesh = require_processes("replicas", self.replicas, "ddp", mesh)
        objective = Objective(model.to(runtime.device()), loss)
        options: dict[str, Any] = {SYNC_BUFFERS: False, "gradient_as_bucket_view": True}
        wrapped = DistributedDataParallel(objective, process_group=mesh.get_group(), **options)
        return DDPEngine(
            objective,
            make_optimizer(model.named_parameters()),
            units=units,
            precision=precision,
            clip_norm=clip_norm,
            mesh=mesh,
            wrapped=wrapped,
        )


class DDPEngine(Engine):
    """Exchanges gradients in the last micro-batch of a step only. `wrapped` has a `no_sync`."""

    wrapped: Any

    def _accumulating(self, *, last: bool) -> AbstractContextManager[object]:
        context: AbstractContextManager[object] = nullcontext() if last else self.wrapped.no_sync()
        return context
