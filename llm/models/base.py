"""The parts a model is put together from, and what each of them promises.

A new variant is one python file and one YAML file. For an attention:

    llm/models/attention/mine.py           conf/model/attention/mine.yaml
        class Mine(nn.Module):                 # Mine: one sentence that `--help` shows.
            def __init__(                      _target_: llm.models.attention.mine.Mine
                self, sizes: Sizes, *,         _partial_: true
                rotate: Rotate, window: int    window: 64
            ) -> None: ...

The decoder passes `sizes` (and, to an attention, `rotate`); every other argument is a key of the YAML
and can be overridden: ``model/attention=mine model.attention.window=32``. Numbers that several parts
must agree on belong to the model and reach a part through `Sizes`, so that ``model.n_heads=4`` is said
once. ``tests/models/test_parts.py`` finds the YAML unaided and checks the promises below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """What the model tells its parts.

    Attributes:
        d_model: width of the residual stream.
        n_layers: number of blocks.
        n_heads: query heads.
        n_kv_heads: key and value heads, a divisor of `n_heads`.
        d_ff: inner width of the feed-forward part; None leaves the choice to the part.
        max_seq_len: longest sequence, in tokens.
        bias: whether linear layers and norms carry biases.
        dropout: probability of dropping an attention weight while training; what a part returns is
            dropped by the block.
        layer: number of the block the part stands in, from 0.
        head_dim: width of one head; ``d_model / n_heads`` when it is 0.
        causal: whether a place sees only those before it; False in an encoder, where all see all.
        base_head_dim: width of a head at which scores have their usual scale; an attention divides scores by
            ``head_dim / base_head_dim`` besides (`llm.models.parametrization`). `head_dim` when it is 0.
    """

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int | None
    max_seq_len: int
    bias: bool
    dropout: float
    layer: int = 0
    head_dim: int = 0
    causal: bool = True
    base_head_dim: int = 0

    def __post_init__(self) -> None:
        if not self.head_dim:
            object.__setattr__(self, "head_dim", self.d_model // self.n_heads)
        if not self.base_head_dim:
            object.__setattr__(self, "base_head_dim", self.head_dim)


Mask = Bool[Tensor, "#B 1 T S"] | Float[Tensor, "#B #H T S"]
"""Who may look at whom: True where a query (row) may look at a key (column); or numbers to add to the scores,
minus infinity where it may not."""


Rotate = Callable[[Float[Tensor, "B T H d"], Int[Tensor, "#B T"]], Float[Tensor, "B T H d"]]
"""`Position.rotate`, handed to every attention: turns queries and keys by their positions."""


@runtime_checkable
class Initialized(Protocol):
    """A module with parameters or buffers of its own, beyond those of its Linear and Embedding layers.

    `Decoder.init_weights` sets every Linear and Embedding; whatever else a part owns it must set here, all of
    it, because a model may have been built without storage (on the meta device).
    """

    def init_weights(self, generator: torch.Generator) -> None:
        """Sets what `Decoder.init_weights` does not know; random numbers come from `generator` only."""
        ...


@runtime_checkable
class Attention(Protocol):
    """Mixes information between places of a sequence. Called ``attention(sizes, rotate=rotate)``.

    Promises: causal whatever the mask is (None means plain causal attention, or, for a single new token,
    everything in the cache), unless ``sizes.causal`` is False (None then means that all see all); with a
    cache the same numbers as without; no draw from the global random state but for dropout in training.

    An attention whose attribute `block_masks` is True may also be given an `llm.models.masks.DocumentBlocks`
    as its mask, on a GPU; others need not know of it.
    """

    def __call__(
        self,
        x: Float[Tensor, "B T D"],
        *,
        positions: Int[Tensor, "#B T"],
        mask: Bool[Tensor, "#B 1 T S"] | None,
        cache: Any = None,
        context: Float[Tensor, "B C D"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Mixes `x` over its places.

        Args:
            x: normalised residual stream.
            positions: place of each token in its sequence; feed it to `rotate`.
            mask: True where a query (row) may look at a key (column); S counts cached and new tokens, or all
                of a static cache's places.
            cache: this layer's `LayerCache`, whose `append` returns what is as wide as the mask, or its
                `ContextCache` when there is a `context`; or None.
            context: an encoder's output to attend to instead of `x` itself (cross-attention); `mask` is then
                over its places.
        """
        ...

    def parallel_plan(self) -> Mapping[str, str]:
        """Linear layers by local name: ``column`` (split by output) or ``row`` (split by input).

        Row layers write into the residual stream; initialisation scales them down with depth.
        """
        ...

    def mixing_flops(self, context_tokens: float) -> float:
        """Forward FLOPs a token needs beyond the linear layers when it attends to `context_tokens`."""
        ...


@runtime_checkable
class FeedForward(Protocol):
    """Works on each place by itself. Called ``feed_forward(sizes)``."""

    def __call__(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """From the normalised stream to what is added to it."""
        ...

    def parallel_plan(self) -> Mapping[str, str]:
        """See `Attention.parallel_plan`."""
        ...


@runtime_checkable
class Position(Protocol):
    """How a model knows the order of its tokens. Called ``position(sizes)``, once for the whole model.

    Most kinds need only one of the hooks; inherit `llm.models.positions.NoPosition` for the others.
    """

    def embed(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        """Applied once, to the token embeddings."""
        ...

    def rotate(
        self, heads: Float[Tensor, "B T H d"], positions: Int[Tensor, "#B T"]
    ) -> Float[Tensor, "B T H d"]:
        """Applied in every attention, to queries and keys."""
        ...

    def bias(self, n_past: int, n_new: int, device: torch.device) -> Float[Tensor, "H T S"] | None:
        """Numbers added to the scores of `n_new` queries and ``n_past + n_new`` keys; None for none.

        They depend on the distance between query and key alone: padding and caches move both of them. What is
        given for keys after the query matters in an encoder only (``sizes.causal`` False).
        """
        ...


Norm = Callable[..., nn.Module]
"""``norm(d_model, bias=bias)``: a module from [B, T, D] to [B, T, D]."""
