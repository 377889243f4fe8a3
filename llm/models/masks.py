"""Who may look at whom."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
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
