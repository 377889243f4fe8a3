"""How evenly a mixture's experts are used: noted while a loss is computed, and added to it.

A router left alone sends most tokens to few experts. A part that routes (`Balanced`) has up to three
remedies: a loss for uneven use, a loss for large scores, and a bias that is moved after each step. None
belongs to a training algorithm: whoever minimises a loss notes the routing meanwhile and adds `Balance.loss`.
::

    with noting(parts):
        loss = algorithm.loss(model, batch)
        found = taken(parts)           # None where nothing was routed
    (loss + found.loss).backward()
    for part, counts in zip(parts, found.counts):
        part.rebalance(counts)         # once a step, with the counts of all its batches
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Routing:
    """What a router did with the tokens of one forward pass.

    Attributes:
        shares: of each expert in the scores, summed over tokens; with their graph.
        counts: how often each expert was chosen.
        squares: sum over tokens of the squared log-sum-exp of the router's logits; with their graph.
        n_tokens: how many there were.
    """

    shares: Float[Tensor, " E"]
    counts: Int[Tensor, " E"]
    squares: Float[Tensor, ""]
    n_tokens: int

    def __add__(self, other: Routing) -> Routing:
        return Routing(
            self.shares + other.shares,
            self.counts + other.counts,
            self.squares + other.squares,
            self.n_tokens + other.n_tokens,
        )

    def unevenness(self) -> Float[Tensor, ""]:
        """The loss of Fedus et al. 2021, "Switch Transformers", equation 4, less its coefficient.

        ``E * sum_e load_e * share_e``: 1 when all experts are used alike, up to E when one does everything.
        With k experts a token, loads are shares of the choices, so that 1 stays 1 (Hugging Face counts k).
        """
        load = self.counts / self.counts.sum().clamp(min=1)
        return len(load) * (load * self.shares).sum() / max(self.n_tokens, 1)

    def largeness(self) -> Float[Tensor, ""]:
        """The router z-loss of Zoph et al. 2022, "ST-MoE", equation 5, less its coefficient."""
        return self.squares / max(self.n_tokens, 1)


@runtime_checkable
class Balanced(Protocol):
    """A part that spreads tokens over experts.

    Attributes:
        routes: whether it does; in some models the first blocks do not.
        noted: where its forward pass puts a `Routing`; None when nobody wants to know.
        balance_loss: coefficient of `Routing.unevenness`.
        z_loss: coefficient of `Routing.largeness`.
    """

    routes: bool
    noted: list[Routing] | None
    balance_loss: float
    z_loss: float

    def rebalance(self, counts: Int[Tensor, " E"]) -> None:
        """After a step in which the experts were chosen so often: moves what is moved by hand."""
        ...


@dataclass(frozen=True)
class Balance:
    """What all routers of a model did while a loss was computed.

    Attributes:
        loss: what to add to it, with its graph.
        unevenness: mean of `Routing.unevenness` over layers; 1 is even. Without graph.
        counts: of each layer.
    """

    loss: Float[Tensor, ""]
    unevenness: Float[Tensor, ""]
    counts: list[Int[Tensor, " E"]]


@contextmanager
def noting(parts: Sequence[Balanced]) -> Iterator[None]:
    """Has the parts note what they do, and afterwards forget what was not `taken`.

    A backward pass that repeats parts of the forward pass (activation checkpointing) is outside of it, and so
    nothing is counted twice.
    """
    for part in parts:
        part.noted = []
    try:
        yield
    finally:
        for part in parts:
            part.noted = None


def taken(parts: Sequence[Balanced]) -> Balance | None:
    """What was noted; None when not every part has run."""
    if not parts or not all(part.noted for part in parts):
        return None
    losses, unevenness, counts = [], [], []
    for part in parts:
        assert part.noted
        routing = sum(part.noted[1:], start=part.noted[0])
        uneven = routing.unevenness()
        losses.append(part.balance_loss * uneven + part.z_loss * routing.largeness())
        unevenness.append(uneven.detach())
        counts.append(routing.counts)
    return Balance(torch.stack(losses).sum(), torch.stack(unevenness).mean(), counts)


def max_over_mean(counts: Sequence[Int[Tensor, " E"]]) -> Float[Tensor, ""]:
    """How much more than its share the busiest expert of any layer has to do; 1 is even."""
    return torch.stack([layer.max() * len(layer) / layer.sum().clamp(min=1) for layer in counts]).max()
