"""merging=ties: differences to a base, less the small ones and those that work against the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from llm.checkpoints.merging.base import Weights, require_base, require_models, shares, wide

Positive = Annotated[float, Field(gt=0)]


class Ties:
    """TIES (Yadav et al. 2023, arXiv 2306.01708, section 3.2, algorithm 1), a number at a time:

    1. trim: of each model's difference to the base only the largest stay, the rest is zero;
    2. elect: the sign of the sum over all models wins (where it is zero, nothing is added to the base);
    3. merge: the mean of those differences that have this sign, times `scale`, is added to the base.

    Args:
        density: the share of the differences that stays.
        weights: how much each model counts in the sum and in the mean; all alike when None.
        scale: of what is added.
        trim_over: whether a model's differences are ranked all together, as in the paper, or by tensor.
    """

    def __init__(
        self,
        *,
        density: Annotated[float, Field(gt=0, le=1)] = 0.2,
        weights: Sequence[Positive] | None = None,
        scale: float = 1.0,
        trim_over: Literal["model", "tensor"] = "model",
    ) -> None:
        self.density, self.weights, self.scale, self.trim_over = density, weights, scale, trim_over

    def require(self, n_models: int, *, has_base: bool) -> None:
        """Two models or more, and their base."""
        require_models(n_models, 2)
        require_base(has_base=has_base, wanted=True)
        shares(self.weights, n_models)

    def merge(self, models: Sequence[Weights], base: Weights | None) -> Iterator[tuple[str, Tensor]]:
        """See `llm.checkpoints.merging.base.Merging`."""
        assert base is not None
        parts = torch.tensor(shares(self.weights, len(models)))
        thresholds = None
        if self.trim_over == "model":
            thresholds = [self._threshold([_moved(model, base, name) for name in base]) for model in models]
        for name, tensor in models[0].items():
            moved = [_moved(model, base, name) for model in models]
            least = thresholds or [self._threshold([one]) for one in moved]
            kept = torch.stack([_trimmed(m, limit) for m, limit in zip(moved, least, strict=True)])
            added = _elected_mean(kept, parts)
            yield name, (wide(base[name]) + self.scale * added).to(tensor.dtype)

    def _threshold(self, moved: Sequence[Tensor]) -> Tensor:
        """The smallest absolute value that stays; of equal ones at the limit all stay."""
        sizes = torch.cat([one.abs().flatten() for one in moved])
        n_kept = max(round(self.density * len(sizes)), 1)
        return sizes.kthvalue(len(sizes) - n_kept + 1).values


def _moved(model: Weights, base: Weights, name: str) -> Tensor:
    return wide(model[name]) - wide(base[name])


def _trimmed(moved: Tensor, limit: Tensor) -> Tensor:
    return torch.where(moved.abs() >= limit, moved, 0)


def _elected_mean(kept: Tensor, parts: Tensor) -> Tensor:
    """Over the first dim, the weighted mean of the numbers that have the sign of the weighted sum."""
    weights = parts.to(kept.dtype).view(-1, *[1] * (kept.ndim - 1))
    sign = (weights * kept).sum(0).sign()
    agreeing = (kept.sign() == sign) & (sign != 0)
    total = (weights * kept * agreeing).sum(0)
    return total / (weights * agreeing).sum(0).clamp(min=torch.finfo(kept.dtype).tiny)
