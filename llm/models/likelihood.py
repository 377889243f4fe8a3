"""How likely a model finds the targets of a batch: what every loss and every exam starts from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from llm.types import IGNORE, Batch, LanguageModel


def target_log_probs(
    model: LanguageModel, batch: Batch, *, head_tokens: int | None = None
) -> Float[Tensor, "B T"]:
    """Log-probability of each target in nats, 0 where there is none.

    The head is most of a small model's work, and of a conversation half the places carry no loss: on the CPU
    only places with a target go through it. On a GPU picking them out would wait for the device, so there all
    do, unless `head_tokens` bounds the memory.

    Args:
        model: causal.
        batch: rows whose targets are `IGNORE` wherever the token was given, as in a prompt.
        head_tokens: places whose logits exist at once; None for all.
    """
    targets = batch.targets
    assert targets is not None
    hidden = model.hidden(batch)
    wanted = targets != IGNORE
    if head_tokens is None and (targets.device.type != "cpu" or bool(wanted.all())):
        return _log_probs(model.head(hidden).flatten(0, 1), targets.flatten()).view(targets.shape)
    places = wanted.flatten().nonzero()[:, 0]
    stream, ids = hidden.flatten(0, 1), targets.flatten()
    found = [
        _log_probs(model.head(stream.index_select(0, some)), ids[some])
        for some in torch.split(places, head_tokens or max(len(places), 1))
    ]
    picked = found[0] if len(found) == 1 else torch.cat(found)
    return picked.new_zeros(targets.numel()).index_put((places,), picked).view(targets.shape)


def _log_probs(logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """0 for `IGNORE`. In float32 at least: bfloat16 keeps three digits of a loss."""
    with torch.autocast(logits.device.type, enabled=False):
        exact = logits if logits.dtype == torch.float64 else logits.float()
        return -F.cross_entropy(exact, targets, ignore_index=IGNORE, reduction="none")
