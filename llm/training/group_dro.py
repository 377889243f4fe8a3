"""Group distributionally robust training: weights of domains that follow what is still to be learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llm.models.likelihood import target_log_probs
from llm.training.algorithm import Offline
from llm.types import IGNORE, Batch, LanguageModel

Clip = Literal["token", "domain"]


def updated(
    weights: Float[Tensor, " K"], excess: Float[Tensor, " K"], step_size: float, smoothing: float
) -> Float[Tensor, " K"]:
    """One step of exponentiated gradient ascent, mixed with the uniform distribution.

    Args:
        weights: of the domains, summing to 1.
        excess: how far each domain's loss is above the reference's, in nats a token.
        step_size: the paper's eta.
        smoothing: the paper's c: share of the uniform distribution in the result.
    """
    raised = torch.softmax(weights.log() + step_size * excess, 0)
    return (1 - smoothing) * raised + smoothing / len(weights)


class GroupDRO(Offline):
    """Minimises the worst mixture of the domains' excess losses: step 2 of DoReMi (Xie et al. 2023, alg. 1).

    In each step a domain's excess loss is the mean over its tokens of max(0, loss - reference's loss). The
    weights are multiplied by exp(step_size * excess), normalised and smoothed, and the loss of the step is
    the weighted sum of the domains' mean losses. The reference has no part in its gradient. The average of
    the weights over all steps is what the paper trains the large model on.

    Where two models differ on a text that neither can learn, some tokens are above the reference and some
    below. Clipped token by token, as in the paper, these differences count as excess. `clip="domain"` lets
    them cancel first: max(0, mean of the differences).

    A step must be one micro-batch of one process, for its weights rest on the whole batch. A domain that a
    batch lacks keeps the excess it had last. Validation is plain: the mean over all target tokens.

    Args:
        names: of the domains, in the order of `Batch.domains`.
        reference: a trained model; it is frozen.
        step_size: the paper's eta.
        smoothing: the paper's c.
        clip: what is clipped at 0, each token's excess or the mean of a domain's.
    """

    def __init__(
        self,
        names: Sequence[str],
        reference: nn.Module,
        step_size: float = 1.0,
        smoothing: float = 1e-3,
        clip: Clip = "token",
    ) -> None:
        self.names, self.step_size, self.smoothing, self.clip = list(names), step_size, smoothing, clip
        self.reference = reference.eval().requires_grad_(False)
        self.weights = torch.full((len(self.names),), 1 / len(self.names), dtype=torch.float64)
        self.excess = torch.zeros_like(self.weights)
        self._sum, self._n_steps = torch.zeros_like(self.weights), 0

    @property
    def average(self) -> dict[str, float]:
        """The mean of the weights over the steps so far."""
        assert self._n_steps, "no step has been made"
        return dict(zip(self.names, (self._sum / self._n_steps).tolist(), strict=True))

    def setup(self, policy: nn.Module) -> None:
        """Puts the reference and the weights beside the policy."""
        device = next(policy.parameters()).device
        self.reference.to(device)
        self.weights, self.excess, self._sum = (
            tensor.to(device) for tensor in (self.weights, self.excess, self._sum)
        )

    def units(self, batch: Batch) -> int:
        """Target tokens."""
        assert batch.targets is not None
        return int((batch.targets != IGNORE).sum())

    def loss(self, policy: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss, and of each domain ``weight/NAME`` and ``excess/NAME`` (nats a token)."""
        assert batch.targets is not None
        found = target_log_probs(cast(LanguageModel, policy), batch)
        if not policy.training:
            return -found.sum() / max(self.units(batch), 1), {}
        assert batch.domains is not None, "the data do not say which domain a row is from"
        counts = self._by_domain((batch.targets != IGNORE).sum(-1).to(found.dtype), batch.domains)
        with torch.no_grad():
            reference = target_log_probs(cast(LanguageModel, self.reference), batch)
            above = reference - found
            above = above.clamp(min=0) if self.clip == "token" else above
            means = self._by_domain(above.sum(-1), batch.domains) / counts.clamp(min=1)
            self.excess = torch.where(counts > 0, means.clamp(min=0).double(), self.excess)
            self.weights = updated(self.weights, self.excess, self.step_size, self.smoothing)
            self._sum, self._n_steps = self._sum + self.weights, self._n_steps + 1
        losses = self._by_domain(-found.sum(-1), batch.domains) / counts.clamp(min=1)
        metrics = {f"weight/{name}": value for name, value in zip(self.names, self.weights, strict=True)}
        metrics |= {f"excess/{name}": value for name, value in zip(self.names, self.excess, strict=True)}
        return (self.weights.to(losses.dtype) * losses).sum(), metrics

    def _by_domain(self, rows: Float[Tensor, " B"], domains: Tensor) -> Float[Tensor, " K"]:
        """Sums over the rows of each domain."""
        return rows.new_zeros(len(self.names)).index_add(0, domains, rows)
