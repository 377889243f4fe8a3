"""Who may look at whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def attention_mask(
    n_past: int,
    n_new: int,
    padding: Bool[Tensor, "B S"] | None,
    device: torch.device,
    *,
    needed: bool = False,
) -> Any:
    """Who may look at whom, [B or 1, 1, T, S]: True where query row may look at key column.

    None where attention needs none to be causal, unless one is `needed`.

    Two cached tokens, three new ones:          the same, the first cached one being padding:

        1 1 1 0 0                                   0 1 1 0 0
        1 1 1 1 0                                   0 1 1 1 0
        1 1 1 1 1                                   0 1 1 1 1

    A padding token looks at itself, because a softmax over nothing is not a number and would spread.
    """
    if padding is None and not needed and (n_past == 0 or n_new == 1):
        return None
    columns = torch.arange(n_past + n_new, device=device)
    rows = columns[n_past:, None]
    causal = (columns <= rows)[None, None]
    if padding is None:
        return causal
    return causal & padding[:, None, None, :] | (columns == rows)


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
