"""Every allocation and every release of a piece of torch code, in order, without allocating anything.

Inside `Trace` tensors are fake: they have shapes, types and a device, and no memory. Torch then does all it
would do, from autocast to the choice of an attention kernel and what autograd keeps, and the trace hears of
every storage that appears and of every one that goes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
import torch._dynamo  # fake tensors import it when they are first used, which takes a second
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

ACTIVATION, GRADIENT, PERSISTENT = 0, 1, 2
"""What a byte is for: passing through, a parameter's gradient, or there before and after (weights, state)."""

Event = tuple[tuple[str, str], int, int]
"""Segment it fell into, kind of byte, and how many more (or fewer) there are from now on."""

aten = torch.ops.aten


class Trace:
    """A context in which tensors are fake and every change of the memory they would take is written down.

    Attributes:
        events: in order of time; `segment` at that time is their first entry.
        segment: what is going on, as (phase, block).
        shares: what the next counts of a mixture of experts are taken for: as even as they can be.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.segment = ("start", "")
        self.shares: Iterator[int] = iter(())
        self._kinds: dict[int, list[Any]] = {}  # kind, size, the block it was made in
        self._modes = ExitStack()

    def __enter__(self) -> Self:
        self._modes.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        self._modes.enter_context(_Listening(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._modes.close()

    def heard(self, tensor: Tensor) -> None:
        """Counts the tensor's storage, unless it is known."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._kinds:
            return
        kind, size = ACTIVATION, storage.nbytes()
        self._kinds[key] = [kind, size, self.segment[1]]
        self.events.append((self.segment, kind, size))
        weakref.finalize(storage, self._released, key).atexit = False

    def _released(self, key: int) -> None:
        kind, size, _ = self._kinds.pop(key)
        self.events.append((self.segment, kind, -size))

    def mark(self, tensor: Tensor, kind: int) -> None:
        """Counts the tensor's bytes as `kind` from now on."""
        self.heard(tensor)
        entry = self._kinds[tensor.untyped_storage()._cdata]
        if entry[0] != kind:
            self.events += [(self.segment, entry[0], -entry[1]), (self.segment, kind, entry[1])]
            entry[0] = kind

    def live(self) -> dict[str, int]:
        """Bytes there are now that do not stay anyway, by the block they were made in."""
        found: dict[str, int] = {}
        for kind, size, block in self._kinds.values():
            if kind != PERSISTENT:
                found[block] = found.get(block, 0) + size
        return found

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Knows parameters, their gradients and the even share of a token that each expert gets."""
        handles: list[Any] = []
        for parameter in model.parameters():
            self.mark(parameter, PERSISTENT)
            if parameter.requires_grad:
                register: Any = parameter.register_post_accumulate_grad_hook
                handles.append(register(self._mark_gradient))
        for buffer in model.buffers():
            self.mark(buffer, PERSISTENT)
        for module in model.modules():
            if hasattr(module, "n_experts") and hasattr(module, "n_active"):
                handles.append(module.register_forward_pre_hook(self._share_out))
                handles.append(module.register_forward_hook(self._shared_out))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _mark_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.mark(parameter.grad, GRADIENT)

    def _share_out(self, module: Any, inputs: tuple[Tensor, ...]) -> None:
        choices = inputs[0].numel() // inputs[0].shape[-1] * module.n_active
        least, more = divmod(choices, module.n_experts)
        self.shares = iter([least + (expert < more) for expert in range(module.n_experts)])

    def _shared_out(self, *_: object) -> None:
        self.shares = iter(())


class _Listening(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers what only real numbers could, and tells the trace of every result."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trace = trace

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:  # asked more often than all else together
            return args[0].fake_device
        answer = _ANSWERS.get(func)
        result = answer(self._trace, *args) if answer else func(*args, **(kwargs or {}))
        for one in tree_iter(result):
            if isinstance(one, Tensor):
                self._trace.heard(one)
        return result


def _scalar(trace: Trace, tensor: Tensor) -> float | int | bool:
    """A loss, a norm: any number will do. A count inside a mixture: the even share."""
    if tensor.dtype == torch.bool:
        return True
    if tensor.is_floating_point():
        return 1.0
    return next(trace.shares, 1)


def _counts(_: Trace, __: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    return torch.empty(max(minlength, 1), dtype=torch.int64 if weights is None else torch.float64)


_ANSWERS: dict[Any, Callable[..., Any]] = {
    aten._local_scalar_dense.default: _scalar,
    aten.bincount.default: _counts,
    aten.equal.default: lambda *_: True,
}
