"""What a model remembers of the tokens it has read, so that the next one costs one place and not all.

Two kinds with the same methods: `KVCache` grows with what is read, `StaticCache` never changes its shapes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class LayerCache:
    """One layer's memory: whatever tensors its attention appends, joined along the token dim.

    Storage is taken in the shape, type and device found at `append`, so an attention may remember keys and
    values, or something smaller. It doubles when it is full, up to `capacity` tokens, and a layer with a
    sliding window keeps no more than two windows. For inference only: no gradient flows through it.

    Attributes:
        length: tokens read so far, also those that a window has left behind.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._storage: list[Tensor] = []
        self._end = 0  # how much of the storage is in use; its last token is the last one read
        self._returned = 0

    def append(self, *new: Float[Tensor, "B _ T _"], window: int | None = None) -> tuple[Tensor, ...]:
        """Stores the new tokens' tensors and returns those of all tokens so far, [B, H, S, d] each.

        Args:
            new: tensors of the new tokens.
            window: a token looks at itself and the ``window - 1`` before it, in every call: what is returned
                may then begin at the first token that one of the new ones looks at. Cut the mask to it
                with `visible`.

        Raises:
            IndexError: more than `capacity` tokens.
        """
        n_new = new[0].shape[-2]
        if self.length + n_new > self.capacity:
            raise IndexError(f"cache of {self.capacity} tokens cannot hold {self.length + n_new}")
        new = tuple(t.detach() for t in new)
        seen = self._end if window is None else min(self._end, window - 1)
        self.length, self._returned = self.length + n_new, seen + n_new
        old = self._last(seen) or [t[..., :0, :] for t in new]
        if window is not None and n_new >= window:  # nothing older is looked at again
            joined = tuple(torch.cat(pair, -2) for pair in zip(old, new, strict=True))
            self._store([t[..., t.shape[-2] - window + 1 :, :] for t in joined], window)
            return joined
        if not self._storage or self._end + n_new > self._storage[0].shape[-2]:
            self._store(old, seen + n_new)
        self._end += n_new
        for stored, tensor in zip(self._storage, new, strict=True):
            stored[..., self._end - n_new : self._end, :] = tensor
        return tuple(self._last(seen + n_new))

    def visible(self, mask: Tensor | None) -> Tensor | None:
        """The columns of a mask [..., S] over all tokens that stand for what `append` just returned."""
        return mask if mask is None else mask[..., max(mask.shape[-1] - self._returned, 0) :]

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """Keeps only these sequences of the batch, in this order; one may be taken several times."""
        self._storage = [stored.index_select(0, rows) for stored in self._storage]

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return sum(stored.nbytes for stored in self._storage)

    def _last(self, n_tokens: int) -> list[Tensor]:
        return [stored[..., self._end - n_tokens : self._end, :] for stored in self._storage]

    def _store(self, kept: list[Tensor], n_needed: int) -> None:
        """Moves to new storage with `kept` at its beginning and room for at least as much again."""
        size = max(n_needed, min(2 * n_needed, self.capacity))
        self._end = kept[0].shape[-2]
        self._storage = [t.new_empty(*t.shape[:-2], size, t.shape[-1]) for t in kept]
        for stored, old in zip(self._storage, kept, strict=True):
            stored[..., : self._end, :] = old


class ContextCache:
    """One layer's memory of an encoder's output: whatever its cross-attention makes of it, made once."""

    def __init__(self) -> None:
        self._made: tuple[Tensor, ...] = ()

    def once(self, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `make` gave in the first call."""
        if not self._made:
            self._made = tuple(tensor.detach() for tensor in make())
        return self._made

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """Keeps only these sequences of the batch, in this order."""
        self._made = tuple(tensor.index_select(0, rows) for tensor in self._made)


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
        self._crossing: dict[int, ContextCache] = {}

    def __getitem__(self, layer: int) -> LayerCache:
        if layer not in self._layers:
            self._layers[layer] = self._new_layer()
        return self._layers[layer]

    def _new_layer(self) -> LayerCache:
        return LayerCache(self.capacity)

    def crossing(self, layer: int) -> ContextCache:
        """What layer `layer`'s cross-attention makes of `context`, which stays the same."""
        return self._crossing.setdefault(layer, ContextCache())

    @property
    def length(self) -> int:
        """Tokens remembered so far, those that a window has left behind included."""
        return min((layer.length for layer in self._layers.values()), default=0)

    @property
    def nbytes(self) -> int:
        """Memory that all layers take, in bytes; an encoder's output is not counted."""
        return sum(layer.nbytes for layer in self._layers.values())

    def columns(self, n_new: int) -> int:
        """Width of a padding mask for the next `n_new` tokens."""
        return self.length + n_new

    def rows(self, n_new: int) -> Int[Tensor, " T"] | None:  # noqa: ARG002
        """Numbers of the next `n_new` tokens as a tensor, where shapes must not depend on them; else None."""
        return None

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """Keeps only these sequences of the batch, in this order; one may be taken several times."""
        for layer in self._layers.values():
            layer.select(rows)
        for crossing in self._crossing.values():
            crossing.select(rows)
        if self.context is not None:
            self.context = self.context.index_select(0, rows)
        if self.context_padding is not None:
            self.context_padding = self.context_padding.index_select(0, rows)


class StaticLayerCache(LayerCache):
    """A layer's memory whose storage is taken once, for the whole capacity or a window of tokens.

    The first `append`, of the prompt, returns what it was given. Every later one returns all of the storage,
    used or not, and the mask says what of it counts: no shape and no number that a compiler or a CUDA graph
    would note down changes from token to token. A window's storage is a ring: token i lies at place
    ``i % window``.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.end: Tensor | None = None  # tokens read so far, [1], on the device
        self._columns: Tensor | None = None

    def append(self, *new: Float[Tensor, "B _ T _"], window: int | None = None) -> tuple[Tensor, ...]:
        """As `LayerCache.append`, except that storage is returned whole; see `visible`.

        Raises:
            IndexError: a prompt longer than the capacity. Later tokens are not counted, which would wait for
                the device: the caller sees to it that they fit.
        """
        n_new, device = new[0].shape[-2], new[0].device
        new = tuple(t.detach() for t in new)
        if self.end is None:
            if n_new > self.capacity:
                raise IndexError(f"cache of {self.capacity} tokens cannot hold {n_new}")
            size = self.capacity if window is None else min(window, self.capacity)
            # Zeros: a masked place counts nothing, and nothing times what lay in memory may not be a number.
            self._storage = [t.new_zeros(*t.shape[:-2], size, t.shape[-1]) for t in new]
            self._write(torch.arange(n_new, device=device), new)
            self.end = torch.tensor([n_new], device=device)
            return new
        rows = self.end if n_new == 1 else self.end + torch.arange(n_new, device=device)
        size, older = self._storage[0].shape[-2], []
        if size < self.capacity and n_new == 1:  # the ring, in the order of its places, when this is written
            self._columns = rows - (rows - torch.arange(size, device=device)) % size
        elif size < self.capacity:  # the ring in the order of time, and what will overwrite it
            past = self.end - size + torch.arange(size, device=device)
            self._columns = torch.cat((past, rows))
            older = [stored.index_select(-2, past % size) for stored in self._storage]
        self._write(rows, new)
        self.end.add_(n_new)
        if not older:
            return tuple(self._storage)
        return tuple(torch.cat((old, t), -2) for old, t in zip(older, new, strict=True))

    def visible(self, mask: Tensor | None) -> Tensor | None:
        """See `LayerCache.visible`."""
        if self._columns is None or mask is None:
            return mask
        there = self._columns >= 0  # a ring that is not yet full has places without a token
        chosen = mask.index_select(-1, self._columns.clamp(min=0))
        return chosen & there if mask.dtype == torch.bool else chosen.masked_fill(~there, -torch.inf)

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """See `LayerCache.select`; storage stays where it is unless the number of sequences changes."""
        chosen = [stored.index_select(0, rows) for stored in self._storage]
        if chosen and chosen[0].shape == self._storage[0].shape:
            for stored, tensor in zip(self._storage, chosen, strict=True):
                stored.copy_(tensor)
        else:
            self._storage = chosen

    def _write(self, rows: Int[Tensor, " T"], new: tuple[Tensor, ...]) -> None:
        size = self._storage[0].shape[-2]
        places = rows if size == self.capacity else rows[-size:] % size
        for stored, tensor in zip(self._storage, new, strict=True):
            stored.index_copy_(-2, places, tensor[..., -size:, :])


class StaticCache(KVCache):
    """A `KVCache` whose memory is taken once and whose shapes stay, so that a step can be compiled."""

    def _new_layer(self) -> LayerCache:
        return StaticLayerCache(self.capacity)

    @property
    def length(self) -> int:
        """As `KVCache.length`; waits for the device."""
        end = self._end()
        return 0 if end is None else int(end)

    def columns(self, n_new: int) -> int:
        """All of the capacity, once there is a prompt."""
        return n_new if self._end() is None else self.capacity

    def rows(self, n_new: int) -> Int[Tensor, " T"] | None:
        """See `KVCache.rows`."""
        end = self._end()
        return None if end is None else end + torch.arange(n_new, device=end.device)

    def _end(self) -> Tensor | None:
        layer = self._layers.get(0)
        return layer.end if isinstance(layer, StaticLayerCache) else None
