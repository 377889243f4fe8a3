"""What a language model is trained to lower, and the log-probabilities alignment losses start from."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm.types import IGNORE, Batch, LanguageModel


class NextToken:
    """Mean cross entropy of the targets that are not `IGNORE`, in nats per token.

    With targets everywhere this is pretraining, with targets on the assistant's turns it is supervised
    fine-tuning.
    """

    epochs_per_collect = 1

    def setup(self, policy: nn.Module) -> None:
        """Nothing to keep of the initial policy."""

    def collect(self, policy: nn.Module, batch: Batch) -> Batch:  # noqa: ARG002
        """The batch itself: the data are given, not sampled."""
        return batch

    def units(self, batch: Batch) -> int:
        """Target tokens."""
        assert batch.targets is not None
        return int((batch.targets != IGNORE).sum())

    def loss(self, policy: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over `units`; 0, and still part of the graph, for a batch without any."""
        assert batch.targets is not None
        logits, targets = _logits(policy, batch)
        n = (targets != IGNORE).sum().clamp(min=1)
        return _cross_entropy(logits, targets, "sum") / n, {}


def sequence_log_probs(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, " B"], Int[Tensor, " B"]]:
    """Summed log-probability of each row's targets, in nats, and how many there are.

    Args:
        model: A `LanguageModel`.
        batch: Rows whose targets are `IGNORE` wherever the token was given, as in a prompt.
    """
    assert batch.targets is not None
    chosen = batch.targets != IGNORE
    logits, targets = _logits(model, batch)
    losses = _cross_entropy(logits, targets, "none")
    if targets.numel() == batch.targets.numel():
        sums = losses.view(batch.targets.shape).sum(-1)
    else:
        row = chosen.nonzero()[:, 0]
        sums = losses.new_zeros(len(batch.targets)).index_add(0, row, losses)
    return -sums, chosen.sum(-1)


def _logits(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, "N V"], Int[Tensor, " N"]]:
    """Logits and targets, rows and places flattened; on the CPU only of places that have a target.

    The head is most of a small model's work, and of a conversation half the places carry no loss. On a GPU
    picking them out would wait for the device.
    """
    assert batch.targets is not None
    policy = cast(LanguageModel, model)
    targets = batch.targets.flatten()
    if targets.device.type == "cpu":
        kept = targets != IGNORE
        if not bool(kept.all()):
            return policy.head(policy.hidden(batch).flatten(0, 1)[kept]), targets[kept]
    return policy(batch).flatten(0, 1), targets


def _cross_entropy(logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], reduction: str) -> Tensor:
    """In float32 whatever the logits are: bfloat16 keeps three digits of a loss. No copy when they are."""
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction=reduction)
