"""parallelism=fairscale_oss: replicas that share the optimizer's state and the gradients between them.

ZeRO stages 1 and 2 (Rajbhandari et al. 2020, arXiv 1910.02054) by fairscale: `OSS` gives every parameter
one owner, which alone keeps its state and updates it; `ShardedDataParallel` sends a gradient to its owner
alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any

from fairscale.nn.data_parallel import ShardedDataParallel
from fairscale.optim.oss import OSS
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from llm import runtime
from llm.parallelism.base import Engine, Loss, MakeOptimizer, Objective, Units, require_processes
from llm.parallelism.ddp import DDPEngine
from llm.parallelism.precision import Precision


class FairscaleOSS:
    """fairscale's OSS and ShardedDataParallel."""

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
        mesh = require_processes("replicas", self.replicas, "fairscale_oss", mesh)
        objective = Objective(model.to(runtime.device()), loss)
        # OSS takes a class and its arguments. The optimizer made here is only read for those: no state yet.
        template = make_optimizer(model.named_parameters())
        accepted = inspect.signature(type(template)).parameters
        arguments = {key: value for key, value in template.defaults.items() if key in accepted}
        optimizer = OSS(template.param_groups, optim=type(template), group=mesh.get_group(), **arguments)
        # Without buckets a gradient is dropped as soon as its owner has it, and micro-batches just add up.
        wrapped = ShardedDataParallel(
            objective,
            optimizer,
            process_group=mesh.get_group(),
            broadcast_buffers=False,
            reduce_buffer_size=0,
        )
        return FairscaleEngine(
            objective,
            optimizer,
            units=units,
            precision=precision,
            clip_norm=clip_norm,
            mesh=mesh,
            wrapped=wrapped,
        )


class FairscaleEngine(DDPEngine):
    """After backward a process holds the gradients of its own parameters only; so it does their state."""

    optimizer: Any

    def _global_norm(self, norm: Tensor) -> Tensor:
        return self._all_reduce(norm.to(self.device) ** 2).sqrt()

    def _optimizer_state(self) -> Mapping[int, Mapping[str, Any]]:
        self.optimizer.consolidate_state_dict(0)
        if not runtime.is_main():
            return {}
        return super()._optimizer_state()
