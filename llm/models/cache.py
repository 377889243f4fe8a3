"""What a model remembers of the tokens it has read, so that the next one costs one place and not all."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor


class LayerCache:
    """One layer's memory: whatever tensors its attention appends, joined along the token dim.

    Storage for `capacity` tokens is taken at the first `append`, in the shape, type and device found there,
    so an attention may remember keys and values, or something smaller. For inference only: no gradient
    flows through it.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._storage: list[Tensor] = []

    def append(self, *new: Float[Tensor, "B _ T _"]) -> tuple[Tensor, ...]:
        """Stores the new tokens' tensors and returns those of all tokens so far, [B, H, S, d] each.

        Raises:
            IndexError: more than `capacity` tokens.
        """
        end = self.length + new[0].shape[-2]
        if end > self.capacity:
            raise IndexError(f"cache of {self.capacity} tokens cannot hold {end}")
        if not self._storage:
            self._storage = [t.new_empty(*t.shape[:-2], self.capacity, t.shape[-1]) for t in new]
        for stored, tensor in zip(self._storage, new, strict=True):
            stored[..., self.length : end, :] = tensor.detach()
        self.length = end
        return tuple(stored[..., :end, :] for stored in self._storage)

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """Keeps only these sequences of the batch."""
        self._storage = [stored.index_select(0, rows) for stored in self._storage]


class KVCache:
    """A model's memory of a batch of sequences; ``cache[i]`` is layer i's `LayerCache`.

    Args:
        capacity: tokens a sequence may reach, padding included.

    Attributes:
        context: an encoder's output, kept for the decoder's later tokens; None for a model without one.
        context_padding: where `context` stands for text; None where all of it does.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.context: Float[Tensor, "B C D"] | None = None
        self.context_padding: Bool[Tensor, "B C"] | None = None
        self._layers: dict[int, LayerCache] = {}

    def __getitem__(self, layer: int) -> LayerCache:
        return self._layers.setdefault(layer, LayerCache(self.capacity))

    @property
    def length(self) -> int:
        """Tokens remembered so far."""
        return min((layer.length for layer in self._layers.values()), default=0)

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """Keeps only these sequences of the batch, in this order."""
        for layer in self._layers.values():
            layer.select(rows)
        if self.context is not None:
            self.context = self.context.index_select(0, rows)
        if self.context_padding is not None:
            self.context_padding = self.context_padding.index_select(0, rows)
