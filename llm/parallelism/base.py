"""One optimizer step, the same for every way of splitting the work; the ways differ in a few hooks.

The loss of a step is the mean over all *units* (target tokens, preference pairs) of all micro-batches of
all processes. Ranks and micro-batches hold unequal numbers of units when targets are masked, so each
micro-batch's mean is weighted by its share of the units, counted and summed before the forward pass:
averaging means instead is a well-known error of gradient accumulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeGuard, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from llm import runtime
from llm.models.balancing import Balanced, max_over_mean, noting, taken
from llm.models.evaluating import evaluating
from llm.models.weights import persistent
from llm.parallelism.precision import Precision
from llm.types import Batch, ConfigError

T = TypeVar("T")
Loss = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]
Units = Callable[[Batch], int]
MakeOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
State = dict[str, dict[str, Tensor]]

LAUNCH = "torchrun --nproc-per-node="


@runtime_checkable
class Parallelism(Protocol):
    """A `parallelism` component: how a model's work is split over processes."""

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
        """Moves `model` to its device, wraps it and gives it an optimizer.

        Raises:
            ConfigError: this parallelism cannot use the number of processes there are.
        """
        ...


def data_mesh() -> DeviceMesh | None:
    """All processes on one axis, ``data``; None without a process group."""
    if not dist.is_initialized():
        return None
    return init_device_mesh(runtime.device().type, (dist.get_world_size(),), mesh_dim_names=("data",))


def require_processes(key: str, wanted: int | None, kind: str, mesh: DeviceMesh | None) -> DeviceMesh:
    """The mesh, when it has as many processes as the config says, and more than one.

    Raises:
        ConfigError: under `key`.
    """
    world = mesh.size() if mesh is not None else 1
    if wanted is not None and wanted != world:
        mend = f"start with {LAUNCH}{wanted} main.py ..., or set {key}={world}"
        if wanted == 1 or world == 1:
            mend = f"start with {LAUNCH}{max(wanted, 2)} main.py ..., or use parallelism=single"
        raise ConfigError(key, wanted, f"{world} process{'es take' if world > 1 else ' takes'} part; {mend}")
    if mesh is None or world == 1:
        mend = f"start with {LAUNCH}2 main.py ..., or use parallelism=single"
        raise ConfigError("parallelism", kind, f"needs more than one process; {mend}")
    return mesh


class Objective(nn.Module):
    """What a step minimises, as a module around the policy: the algorithm's loss and what the policy adds.

    Wrappers (DDP, FSDP) act on a module's `forward`. An algorithm may call any method of the policy, as
    ``policy.hidden``; inside this `forward` all of them are covered.

    Attributes:
        balanced: the policy's mixtures of experts. While it is trained their losses are added here, for
            every algorithm alike; an evaluation has the algorithm's loss alone.
        counts: how often each of their experts was chosen since `counts` was last cleared, by mixture.
    """

    def __init__(self, policy: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.policy = policy
        self._loss = loss
        self.balanced: list[Balanced] = [part for part in policy.modules() if _is_mixture(part)]
        self.counts: list[Tensor] = []

    def forward(self, batch: Batch | None, work: Callable[[nn.Module], Any] | None = None) -> Any:
        """What to minimise for `batch`, and metrics, of which ``loss`` is the algorithm's; or whatever `work`
        does with the policy.
        """
        if work is not None:
            return work(self.policy)
        assert batch is not None
        parts = self.balanced if self.policy.training else []
        with noting(parts):
            loss, metrics = self._loss(self.policy, batch)
            balance = taken(parts)
        metrics = {"loss": loss.detach(), **metrics}
        if balance is None:
            return loss, metrics
        counted = self.counts or [torch.zeros_like(counts) for counts in balance.counts]
        self.counts = [old + new for old, new in zip(counted, balance.counts, strict=True)]
        return loss + balance.loss, metrics | {"balance_loss": balance.unevenness}


def _is_mixture(part: nn.Module) -> TypeGuard[Balanced]:
    """A mixture of experts with experts: its first layers may have none."""
    return isinstance(part, Balanced) and part.routes


class Engine:
    """A prepared model with its optimizer. Every method is called by all processes together.

    Subclasses replace the hooks at the end; this class is right for one process.

    Attributes:
        model: The policy. Call it outside a step only through `run`: its weights may be in pieces.
        replica: Which share of a global batch this process reads, of `n_replicas`.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        units: Units,
        precision: Precision,
        clip_norm: float | None,
        mesh: DeviceMesh | None = None,
        wrapped: nn.Module | None = None,
    ) -> None:
        self.objective, self.optimizer = objective, optimizer
        self.wrapped = wrapped if wrapped is not None else objective
        self.units, self.precision, self.clip_norm = units, precision, clip_norm
        self.mesh = mesh
        self.device = runtime.device()
        self.replica = mesh.get_local_rank() if mesh is not None else 0
        self.n_replicas = mesh.size() if mesh is not None else 1
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        names = {id(p): name for name, p in self.model.named_parameters()}
        # torch numbers an optimizer's state by place in its groups; files go by name
        self._places = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]

    @property
    def model(self) -> nn.Module:
        """The policy."""
        return self.objective.policy

    # ------------------------------------------------------------------------- training and evaluation

    def step(self, micro_batches: Sequence[Batch], lr_scale: float) -> dict[str, float]:
        """One update of the weights.

        Args:
            micro_batches: This process's share, on the CPU; each process brings equally many.
            lr_scale: Multiplier of every parameter group's own learning rate.

        Returns:
            Over all processes: ``loss`` (mean over units, the algorithm's alone), ``grad_norm`` (before
            clipping), ``lr``, ``tokens`` (read in this step) and the algorithm's own metrics (mean over
            units). With mixtures of experts also ``balance_loss`` (mean over layers, without coefficient; 1
            is even) and ``expert_load_max_over_mean`` (of the step's tokens, in the worst layer).
        """
        counts = [self.units(batch) for batch in micro_batches]
        total, tokens = self.sum([sum(counts), sum(batch.n_tokens for batch in micro_batches)])
        if not self.model.training:
            self.model.train()
        sums: Tensor | None = None
        names: list[str] = []
        self.objective.counts = []
        for number, (batch, count) in enumerate(zip(micro_batches, counts, strict=True)):
            share = count / max(total, 1)
            with self._accumulating(last=number == len(micro_batches) - 1):
                with self._autocast():
                    loss, found = self.wrapped(batch.to(self.device))
                # the wrappers average gradients over processes, and this is a sum
                (loss * (share * self.n_replicas)).backward()
            names = list(found)
            values = share * torch.stack([value.detach().float() for value in found.values()])
            sums = values if sums is None else sums + values
        assert sums is not None, "a step needs a micro-batch"
        norm = self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * lr_scale
        self.optimizer.step()
        self.wrapped.zero_grad(set_to_none=True)
        extremes = self._rebalance()
        # the only wait for the device in a step
        means = torch.cat([self._all_reduce(sums), norm.reshape(1).to(sums), extremes.to(sums)]).tolist()
        names += ["grad_norm", "expert_load_max_over_mean"][: len(means) - len(names)]
        lr = self.optimizer.param_groups[0]["lr"]
        return dict(zip(names, means, strict=True)) | {"lr": lr, "tokens": tokens}

    def _rebalance(self) -> Tensor:
        """Tells each mixture how often its experts were chosen in the whole step; the extreme, or nothing."""
        local = self.objective.counts
        if not local:
            return torch.empty(0)
        counts = torch.split(self._all_reduce(torch.cat(local)), [len(layer) for layer in local])
        for part, chosen in zip(self.objective.balanced, counts, strict=True):
            part.rebalance(chosen)
        return max_over_mean(counts).reshape(1)

    def evaluate(self, batches: Sequence[Batch]) -> float:
        """Mean loss over all units of `batches`, without dropout."""
        return self.measure(batches)["loss"]

    def measure(
        self, batches: Sequence[Batch], on_batch: Callable[[int], object] = lambda _: None
    ) -> dict[str, float]:
        """The loss and the algorithm's metrics over all units of `batches`, without dropout or gradients.

        Args:
            batches: All of them, the same on every process; each reads only its own share by index.
            on_batch: Called with the number of batches done, those of other processes included.
        """
        sums: Tensor | None = None
        names: list[str] = []
        seen = 0
        with evaluating(self.model), self._autocast():
            for start in range(0, len(batches), self.n_replicas):
                # Sharded weights need every process in every forward pass: one without a batch of its own
                # left runs the last one again and counts it as nothing.
                mine = min(start + self.replica, len(batches) - 1)
                batch = batches[mine]
                count = self.units(batch) if mine == start + self.replica else 0
                _, found = self.objective(batch.to(self.device))
                names = list(found)
                values = torch.stack(list(found.values())).double() * count
                sums = values if sums is None else sums + values
                seen += count
                on_batch(min(start + self.n_replicas, len(batches)))
        self._rest()
        assert sums is not None, "an evaluation needs a batch"
        total = max(self.sum([seen])[0], 1)
        return dict(zip(names, (self._all_reduce(sums) / total).tolist(), strict=True))

    def run(self, work: Callable[[nn.Module], T]) -> T:
        """`work(model)` without gradients, with the model's weights whole: sampling, collecting."""
        try:
            with evaluating(self.model), self._autocast():
                result: T = self.objective(None, work)
                return result
        finally:
            self._rest()

    def sum(self, values: Sequence[int]) -> list[int]:
        """Each of `values`, summed over all processes."""
        if self.n_replicas == 1:
            return list(values)
        total = self._all_reduce(torch.tensor(values, dtype=torch.int64, device=self.device))
        return [int(value) for value in total.tolist()]

    def any(self, flag: bool) -> bool:
        """True on all processes when `flag` is on one of them."""
        return self.sum([int(flag)])[0] > 0

    # ------------------------------------------------------------------------- state

    def state(self) -> State:
        """Whole tensors on the CPU by parameter name; empty on all processes but the first.

        ``{"model": {name: tensor}, "optimizer": {"name:key": tensor}}``. Nothing in it tells how training was
        split, so any parallelism loads it. On the CPU tensors may share memory with the model: write them
        before the next step.
        """
        model = {name: _whole(tensor) for name, tensor in persistent(self.model).items()}
        optimizer = {
            f"{self._places[place]}:{key}": _whole(torch.as_tensor(value))
            for place, values in self._optimizer_state().items()
            for key, value in values.items()
        }
        if not runtime.is_main():  # it took part in gathering the pieces
            return {"model": {}, "optimizer": {}}
        return {"model": model, "optimizer": optimizer}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes what `state` gave, on every process; the optimizer's part may be empty (a fresh start)."""
        with torch.no_grad():
            for name, tensor in persistent(self.model).items():
                tensor.copy_(_like(state["model"][name], tensor))
        parameters = dict(self.model.named_parameters())
        places = {name: place for place, name in enumerate(self._places)}
        loaded: dict[int, dict[str, Tensor]] = {}
        for path, value in state["optimizer"].items():
            name, _, key = path.rpartition(":")
            loaded.setdefault(places[name], {})[key] = _like(value, parameters[name])
        if loaded:
            groups = torch.optim.Optimizer.state_dict(self.optimizer)["param_groups"]
            self.optimizer.load_state_dict({"state": loaded, "param_groups": groups})

    # ------------------------------------------------------------------------- hooks

    def _autocast(self) -> AbstractContextManager[object]:
        return self.precision.autocast(self.device)

    def _accumulating(self, *, last: bool) -> AbstractContextManager[object]:  # noqa: ARG002
        """Around one micro-batch: processes need to exchange gradients only in the last."""
        return nullcontext()

    def _clip(self) -> Tensor:
        """Scales gradients down to `clip_norm`; returns the norm they had, over the whole model."""
        owned = [p for p in self.model.parameters() if p.grad is not None]
        norm = self._global_norm(get_total_norm([p.grad for p in owned if p.grad is not None]))
        if self.clip_norm is not None:
            clip_grads_with_norm_(owned, self.clip_norm, norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _global_norm(self, norm: Tensor) -> Tensor:
        """The norm over all processes, from that of the gradients this one holds."""
        return norm

    def _optimizer_state(self) -> Mapping[int, Mapping[str, Any]]:
        """State by place in the optimizer's groups; must be complete on the first process."""
        state: Mapping[int, Mapping[str, Any]] = self.optimizer.state_dict()["state"]
        return state

    def _rest(self) -> None:
        """After a forward pass that no backward pass follows."""

    def _all_reduce(self, tensor: Tensor) -> Tensor:
        if self.n_replicas > 1:
            assert self.mesh is not None
            dist.all_reduce(tensor, group=self.mesh.get_group())
        return tensor


def _whole(tensor: Tensor) -> Tensor:
    full = tensor.detach()
    return (full.full_tensor() if isinstance(full, DTensor) else full).cpu()


def _like(full: Tensor, target: Tensor) -> Tensor:
    """`full` on the device of `target`, cut up as `target` is (counters stay whole)."""
    if isinstance(target, DTensor) and full.shape == target.shape:
        moved = full.to(target.device)
        # every process has read the whole tensor itself: nothing to send
        return distribute_tensor(moved, target.device_mesh, target.placements, src_data_rank=None)
    return full
