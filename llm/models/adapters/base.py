"""Adapters: few trainable numbers beside the linear layers of a model whose own weights stay as they are.

A new adapter is one python file with a function ``(model, *, targets, seed, ...) -> model`` and one YAML file
in ``conf/model/adapter``. It is called once the model has its weights, puts a `Replacement` in the place of
each linear layer it changes (`llm.models.adapters.targets.replaced`) and leaves nothing else trainable.
``tests/models/adapters/test_contract.py`` finds the YAML unaided and checks these promises:

- the adapted model starts as the function the model was (but for quantisation),
- only what the adapter added is trained,
- `llm.models.adapters.merge.merged` gives a plain model of the same function back,
- the same seed gives the same first weights, whatever the global random state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


class Replacement(nn.Module):
    """Stands where a `torch.nn.Linear` stood, and knows the one it amounts to."""

    in_features: int
    out_features: int

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """As a linear layer."""
        raise NotImplementedError

    def merged(self) -> nn.Linear:
        """A plain layer of the same function, dropout aside."""
        raise NotImplementedError


@runtime_checkable
class Linear(Protocol):
    """A linear layer, plain or quantised, as an adapter sees it."""

    in_features: int
    out_features: int

    @property
    def weight(self) -> Tensor:
        """The matrix, [out_features, in_features]."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """[out_features]."""
        ...

    def __call__(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """``x @ weight.T + bias``."""
        ...


def adapted(
    vocab_size: int,
    max_seq_len: int,
    base: Callable[..., nn.Module],
    adapter: Callable[[nn.Module], nn.Module],
) -> nn.Module:
    """A model with its adapter, both without trained weights: what the checkpoint of one is built from.

    Args:
        vocab_size: of the model.
        max_seq_len: of the model.
        base: makes the model without its adapter.
        adapter: puts it on.
    """
    return adapter(base(vocab_size=vocab_size, max_seq_len=max_seq_len))
