"""Who may look at whom."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


def attention_mask(
    n_past: int,
    n_new: int,
    padding: Bool[Tensor, "B S"] | None,
    device: torch.device,
    *,
    documents: Int[Tensor, "B T"] | None = None,
    needed: bool = False,
) -> Any:
    """Who may look at whom, [B or 1, 1, T, S]: True where query row may look at key column.

    None where attention needs none to be causal, unless one is `needed`.

    Two cached tokens, three new ones:     the first one padding:     no cache, documents of 2 and 3 tokens:

        1 1 1 0 0                              0 1 1 0 0                  1 0 0 0 0
        1 1 1 1 0                              0 1 1 1 0                  1 1 0 0 0
        1 1 1 1 1                              0 1 1 1 1                  0 0 1 0 0
                                                                          0 0 1 1 0
                                                                          0 0 1 1 1

    A padding token looks at itself, because a softmax over nothing is not a number and would spread.
    """
    if padding is None and documents is None and not needed and (n_past == 0 or n_new == 1):
        return None
    columns = torch.arange(n_past + n_new, device=device)
    rows = columns[n_past:, None]
    allowed = (columns <= rows)[None, None]
    if documents is not None:
        allowed = allowed & (documents[:, None, :, None] == documents[:, None, None, :])
    if padding is not None:
        allowed = allowed & padding[:, None, None, :] | (columns == rows)
    return allowed


def places_in_documents(documents: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Places counted from the first token of each document: 0 1 0 1 2 for documents 0 0 1 1 1."""
    columns = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    is_first = torch.ones_like(documents, dtype=torch.bool)
    is_first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return columns - torch.where(is_first, columns, 0).cummax(1).values


class DocumentBlocks:
    """What `attention_mask` says of documents, for FlexAttention (Dong et al. 2024, arXiv 2412.05496).

    Blocks of 128 by 128 places in which nobody may look at anybody are not computed, and nothing of size T
    times T is kept: in a row of many documents that is most of the work and of the memory. An attention that
    can use it says so with ``block_masks = True``. (FlexAttention has no backward pass on a CPU: for training
    there the mask is the dense one.)

    Args:
        documents: number of each token's document.
    """

    def __init__(self, documents: Int[Tensor, "B T"]) -> None:
        self.documents = documents
        self._blocks: dict[int | None, BlockMask] = {}

    def blocks(self, window: int | None = None) -> BlockMask:
        """Causal, within documents, and within `window` tokens; made once a batch and window."""
        if window not in self._blocks:
            n_rows, n_places = self.documents.shape
            self._blocks[window] = create_block_mask(
                _may_look(self.documents, window),
                n_rows,
                None,
                n_places,
                n_places,
                device=self.documents.device,
            )
        return self._blocks[window]

    def attend(
        self,
        q: Float[Tensor, "B H T d"],
        k: Float[Tensor, "B K T d"],
        v: Float[Tensor, "B K T e"],
        *,
        scale: float,
        window: int | None = None,
        soft_cap: float | None = None,
    ) -> Float[Tensor, "B H T e"]:
        """Softmax attention with this mask; query heads may share key and value heads."""
        if torch.is_autocast_enabled(q.device.type):  # unlike torch's other kernels this one does not ask
            dtype = torch.get_autocast_dtype(q.device.type)
            q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        mixed: Tensor = _kernel(q.device.type)(
            q,
            k,
            v,
            score_mod=None if soft_cap is None else _capped(soft_cap),
            block_mask=self.blocks(window),
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return mixed


def _may_look(documents: Int[Tensor, "B T"], window: int | None) -> Callable[..., Tensor]:
    """The rule for one row, head, query and key, which torch maps over all of them."""
    if window is None:
        return lambda b, h, q, k: (k <= q) & (documents[b, q] == documents[b, k])  # noqa: ARG005
    return lambda b, h, q, k: (  # noqa: ARG005
        (k <= q) & (k > q - window) & (documents[b, q] == documents[b, k])
    )


@cache
def _capped(soft_cap: float) -> Callable[..., Tensor]:
    """Cached, because a kernel is compiled for this very function."""
    return lambda score, b, h, q, k: soft_cap * torch.tanh(score / soft_cap)  # noqa: ARG005


@cache
def _kernel(device_type: str) -> Callable[..., Any]:
    """Compiled where there is a kernel to compile; on a CPU the plain formula, for tests."""
    kernel: Callable[..., Any] = flex_attention
    return kernel if device_type == "cpu" else torch.compile(kernel, dynamic=False)


def fixed_places(
    rows: Int[Tensor, " T"],
    n_columns: int,
    padding: Bool[Tensor, "B S"] | None,
    bias: Callable[[int, int, torch.device], Float[Tensor, "H T S"] | None],
) -> tuple[Int[Tensor, "#B T"], Any]:
    """Positions and mask of the next tokens over all of a `llm.models.cache.StaticCache`.

    Every number that differs from token to token is a tensor, so that one compiled step serves all of them.

    Two cached tokens, the next one, room for five:    1 1 1 0 0

    Args:
        rows: numbers of the new tokens, ``cache.rows(n_new)``.
        n_columns: the cache's capacity, S.
        padding: where text stands; True in all places that are not yet written.
        bias: the position's; it must be a function of distance alone.

    Returns:
        The places [B or 1, T], counted from each sequence's first token past the padding on its left, and the
        mask [B or 1, H or 1, T, S].
    """
    columns = torch.arange(n_columns, device=rows.device)
    allowed = (columns <= rows[:, None])[None, None]
    positions = rows[None]
    if padding is not None:
        positions = (rows - (~padding).sum(1, keepdim=True)).clamp(min=0)
        allowed = allowed & padding[:, None, None, :] | (columns == rows[:, None])
    last = bias(n_columns - 1, 1, rows.device)
    if last is None:
        return positions, allowed
    # The last row holds what every distance adds; a row further up is the same one, moved.
    behind = (columns - rows[:, None] + n_columns - 1).clamp(max=n_columns - 1)
    return positions, last[:, 0][:, behind].masked_fill(~allowed, -torch.inf)


def reading_mask(padding: Bool[Tensor, "B C"], n_queries: int) -> Bool[Tensor, "B 1 T C"]:
    """Every query may look at all that is text, ahead and behind: an encoder, or a decoder at its output."""
    return padding[:, None, None, :].expand(-1, 1, n_queries, -1)
