"""merging=linear: the weighted mean of weights, a "model soup"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from llm.checkpoints.merging.base import Weights, require_base, require_models, shares, wide
from llm.types import ConfigError


class Linear:
    """The mean of several models' weights (Wortsman et al. 2022, "Model soups", section 2).

    Args:
        weights: how much each model counts, in their order; all alike when None.
        normalise: whether the weights are divided by their sum.

    Raises:
        ConfigError: weights that sum to zero cannot be normalised.
    """

    def __init__(self, *, weights: Sequence[float] | None = None, normalise: bool = True) -> None:
        self.check_arguments(weights=weights, normalise=normalise)
        self.weights, self.normalise = weights, normalise

    @staticmethod
    def check_arguments(*, weights: Sequence[float] | None = None, normalise: bool = True) -> None:
        """Refuses to divide by zero."""
        if weights and normalise and abs(sum(weights)) < 1e-12:
            mend = "sum to zero, which cannot be made one; give others, or merging.normalise=false"
            raise ConfigError("weights", list(weights), mend)

    def require(self, n_models: int, *, has_base: bool) -> None:
        """Two models or more, and no base."""
        require_models(n_models, 2)
        require_base(has_base=has_base, wanted=False)
        shares(self.weights, n_models)

    def merge(self, models: Sequence[Weights], base: Weights | None) -> Iterator[tuple[str, Tensor]]:  # noqa: ARG002
        """See `llm.checkpoints.merging.base.Merging`."""
        parts = shares(self.weights, len(models))
        whole = sum(parts) if self.normalise else 1.0
        for name, first in models[0].items():
            total = torch.zeros_like(wide(first))
            for model, part in zip(models, parts, strict=True):
                total += part / whole * wide(model[name])
            yield name, total.to(first.dtype)
