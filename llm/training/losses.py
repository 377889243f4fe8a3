"""What a language model is trained to lower, and the log-probabilities alignment losses start from."""

from __future__ import annotations

from typing import cast

from jaxtyping import Float, Int
from torch import Tensor, nn

from llm.models.likelihood import target_log_probs
from llm.training.algorithm import Offline
from llm.types import IGNORE, Batch, LanguageModel


class NextToken(Offline):
    """Mean cross entropy of the targets that are not `IGNORE`, in nats per token.

    With targets everywhere this is pretraining, with targets on the assistant's turns it is supervised
    fine-tuning.
    """

    def units(self, batch: Batch) -> int:
        """Target tokens."""
        return int(_counts(batch).sum())

    def loss(self, policy: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over `units`; 0, and still part of the graph, for a batch without any."""
        sums, counts = sequence_log_probs(policy, batch)
        return -sums.sum() / counts.sum().clamp(min=1), {}


def sequence_log_probs(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, " B"], Int[Tensor, " B"]]:
    """Summed log-probability of each row's targets, in nats, and how many there are.

    Args:
        model: A `LanguageModel`.
        batch: Rows whose targets are `IGNORE` wherever the token was given, as in a prompt.
    """
    return target_log_probs(cast(LanguageModel, model), batch).sum(-1), _counts(batch)


def _counts(batch: Batch) -> Int[Tensor, " B"]:
    assert batch.targets is not None
    return (batch.targets != IGNORE).sum(-1)
