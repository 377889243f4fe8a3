"""parallelism=single: one process on one device."""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from llm import runtime
from llm.parallelism.base import Engine, Loss, MakeOptimizer, Objective, Units
from llm.parallelism.precision import Precision
from llm.types import ConfigError


class Single:
    """One process on one device."""

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
        """Moves `model` to the device. See `llm.parallelism.base.Parallelism`."""
        world = mesh.size() if mesh is not None else runtime.world_size()
        if world > 1:
            mend = f"uses one process, torchrun started {world}: choose parallelism=ddp or leave torchrun out"
            raise ConfigError("parallelism", "single", mend)
        objective = Objective(model.to(runtime.device()), loss)
        optimizer = make_optimizer(model.named_parameters())
        return Engine(objective, optimizer, units=units, precision=precision, clip_norm=clip_norm)
