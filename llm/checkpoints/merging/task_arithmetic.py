"""merging=task_arithmetic: what each model has learned beyond their base, added up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from llm.checkpoints.merging.base import Weights, require_base, require_models, shares, wide


class TaskArithmetic:
    """``base + scale * sum of weight * (model - base)`` (Ilharco et al. 2023, arXiv 2212.04089, section 2).

    Args:
        weights: one for each model, in their order; 1 each when None. A negative one makes the base forget.
        scale: of the sum; 0.4 is what Yadav et al. 2023 (arXiv 2306.01708, section 5) use untuned.
    """

    def __init__(self, *, weights: Sequence[float] | None = None, scale: float = 0.4) -> None:
        self.weights, self.scale = weights, scale

    def require(self, n_models: int, *, has_base: bool) -> None:
        """One model or more, and their base."""
        require_models(n_models, 1)
        require_base(has_base=has_base, wanted=True)
        shares(self.weights, n_models)

    def merge(self, models: Sequence[Weights], base: Weights | None) -> Iterator[tuple[str, Tensor]]:
        """See `llm.checkpoints.merging.base.Merging`."""
        assert base is not None
        parts = shares(self.weights, len(models))
        for name, tensor in models[0].items():
            start = wide(base[name])
            total = start.clone()
            for model, part in zip(models, parts, strict=True):
                total += self.scale * part * (wide(model[name]) - start)
            yield name, total.to(tensor.dtype)
