"""parallelism=fsdp2: weights, gradients and optimizer state in pieces, one per process.

ZeRO stage 3 (Rajbhandari et al. 2020, arXiv 1910.02054) as torch's `fully_shard` does it (Zhao et al. 2023,
arXiv 2304.11277): a block's weights are gathered just before it runs and dropped right after.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import torch
import torch.distributed as dist
from pydantic import Field
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from llm import runtime
from llm.models.weights import persistent
from llm.parallelism.base import Engine, Loss, MakeOptimizer, Objective, Units, require_processes
from llm.parallelism.precision import Precision


class FSDP2:
    """torch's `fully_shard` on each of the model's blocks, and on the rest together."""

    def __init__(self, *, shards: Annotated[int, Field(gt=0)] | None = None) -> None:
        self.shards = shards

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
        """Cuts the first process's weights up. See `llm.parallelism.base.Parallelism`."""
        mesh = require_processes("shards", self.shards, "fsdp2", mesh)
        objective = Objective(model.to(runtime.device()), loss)
        with torch.no_grad():
            for tensor in persistent(model).values():
                dist.broadcast(tensor, 0, group=mesh.get_group())
        published: Any = model
        policy = MixedPrecisionPolicy()
        if precision.mixed:  # gradients are still summed in float32
            policy = MixedPrecisionPolicy(param_dtype=precision.dtype, reduce_dtype=torch.float32)
        for name, style in published.parallel_plan().items():
            if style == "block":
                fully_shard(model.get_submodule(name), mesh=mesh, mp_policy=policy)
        # The loss is the root, not the model: so an algorithm may call `hidden` and `head` by themselves.
        fully_shard(objective, mesh=mesh, mp_policy=policy)
        return FSDP2Engine(
            objective,
            make_optimizer(model.named_parameters()),
            units=units,
            precision=precision,
            clip_norm=clip_norm,
            mesh=mesh,
        )


class FSDP2Engine(Engine):
    """Sums gradients in the last micro-batch of a step only, and drops gathered weights after evaluation."""

    wrapped: Any

    def _accumulating(self, *, last: bool) -> AbstractContextManager[object]:
        self.wrapped.set_requires_gradient_sync(last)
        return nullcontext()

    def _autocast(self) -> AbstractContextManager[object]:
        return nullcontext()  # the policy above casts weights and inputs itself

    def _rest(self) -> None:
        for module in self.objective.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
