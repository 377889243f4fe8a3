"""Direct preference optimisation: preferences without a reward model (Rafailov et al. 2023)."""

from __future__ import annotations

import copy
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from llm.training.algorithm import Offline
from llm.training.losses import sequence_log_probs
from llm.types import Batch


def dpo_loss(
    policy_chosen: Float[Tensor, " P"],
    policy_rejected: Float[Tensor, " P"],
    reference_chosen: Float[Tensor, " P"],
    reference_rejected: Float[Tensor, " P"],
    beta: float,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " P"]:
    """DPO's loss of each pair (Rafailov et al. 2023, eq. 7), with cDPO's noisy labels.

    -log sigmoid(beta * h), where h is how much further the policy than the reference puts chosen above
    rejected. With label smoothing e, a label is thought wrong with probability e (Mitchell 2023, "A note
    on DPO with noisy preferences", eq. 3).

    Args:
        policy_chosen: log-probability in nats of each chosen completion under the policy.
        policy_rejected: the same of each rejected one.
        reference_chosen: the same under the frozen reference, as `reference_rejected`.
        reference_rejected: see above.
        beta: strength of the pull to the reference; the inverse of a temperature.
        label_smoothing: probability that a label is the wrong way round, in [0, 0.5).

    Returns:
        One loss a pair, at least 0.
    """
    advantage = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    right, wrong = -F.logsigmoid(beta * advantage), -F.logsigmoid(-beta * advantage)
    return (1 - label_smoothing) * right + label_smoothing * wrong


class DPO(Offline):
    """DPO with a frozen copy of the initial policy as its reference. The unit is the pair.

    Batches stack rows: the first half chosen, the second half rejected (`llm.types.Batch`). Both halves go
    through the policy in one forward pass.

    Args:
        beta: strength of the pull to the reference. The paper uses 0.1, and 0.5 for summaries.
        label_smoothing: probability that a label is wrong (cDPO); 0 trusts every label.
        length_normalised: divide log-probabilities by their token counts first, so that long
            completions do not dominate (Meng et al. 2024 argue for it; `beta` then wants to be larger,
            2 to 10). Not eq. 7 any more.

    Raises:
        RuntimeError: from `loss`, when `setup` was not called.
    """

    def __init__(
        self,
        beta: Annotated[float, Field(gt=0)] = 0.1,
        label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0,
        length_normalised: bool = False,
    ) -> None:
        self.beta, self.label_smoothing, self.length_normalised = beta, label_smoothing, length_normalised
        self.reference: nn.Module | None = None

    def setup(self, policy: nn.Module) -> None:
        """Keeps a frozen copy of `policy`: no gradients, no dropout."""
        self.reference = copy.deepcopy(policy).eval().requires_grad_(False)

    def units(self, batch: Batch) -> int:
        """Pairs in the batch."""
        rows = len(batch.tokens)
        assert rows % 2 == 0, "a preference batch stacks chosen rows and as many rejected ones"
        return rows // 2

    def loss(self, policy: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over the pairs, and what to watch.

        Metrics: ``reward_margin`` and ``reward_accuracy`` (of the implicit reward beta * log(policy /
        reference), paper eq. 5), ``chosen_reward``, ``rejected_reward``; ``chosen_log_prob`` and
        ``rejected_log_prob`` of the policy in nats a token (both often fall, also in good runs);
        ``drift``, the mean absolute log(policy / reference) in nats a token, how far the policy has
        moved on these data (0 at the start; not a KL divergence, the data are not the policy's own).
        """
        sums, counts = sequence_log_probs(policy, batch)
        reference_sums = self._reference_log_probs(batch)
        # A row may have no target left after truncation: its sum is 0 and must not become 0 / 0.
        lengths = counts.clamp(min=1).to(sums.dtype)
        scale = lengths if self.length_normalised else torch.ones_like(lengths)
        chosen, rejected = (sums / scale).chunk(2)
        reference_chosen, reference_rejected = (reference_sums / scale).chunk(2)
        losses = dpo_loss(
            chosen, rejected, reference_chosen, reference_rejected, self.beta, self.label_smoothing
        )
        with torch.no_grad():
            chosen_reward = self.beta * (chosen - reference_chosen)
            rejected_reward = self.beta * (rejected - reference_rejected)
            margin = chosen_reward - rejected_reward
            per_token = (sums / lengths).chunk(2)
            metrics = {
                "reward_margin": margin.mean(),
                "reward_accuracy": (margin > 0).to(margin.dtype).mean(),
                "chosen_reward": chosen_reward.mean(),
                "rejected_reward": rejected_reward.mean(),
                "chosen_log_prob": per_token[0].mean(),
                "rejected_log_prob": per_token[1].mean(),
                "drift": ((sums - reference_sums).abs() / lengths).mean(),
            }
        return losses.mean(), {name: value.detach() for name, value in metrics.items()}

    def _reference_log_probs(self, batch: Batch) -> Float[Tensor, " B"]:
        if self.reference is None:
            raise RuntimeError("DPO.setup(policy) must be called before its loss: there is no reference yet")
        # The policy may have been moved to a GPU after `setup`; the reference follows the data.
        self.reference.to(batch.tokens.device)
        with torch.no_grad():
            sums, _ = sequence_log_probs(self.reference, batch)
        return sums
