"""merging=slerp: on the arc between two models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from llm.checkpoints.merging.base import Weights, require_base, require_models, wide

NEARLY_PARALLEL = 0.9995
"""Cosine beyond which the arc is straight for all purposes, and its formula divides by almost nothing."""


class Slerp:
    """Spherical linear interpolation (Shoemake 1985, section 3.3) of each tensor as one long vector.

    The angle is that between the two vectors; their lengths are interpolated along with them.

    Args:
        t: 0 is the first model, 1 the second.
    """

    def __init__(self, *, t: Annotated[float, Field(ge=0, le=1)] = 0.5) -> None:
        self.t = t

    def require(self, n_models: int, *, has_base: bool) -> None:
        """Exactly two models, and no base."""
        require_models(n_models, 2, 2)
        require_base(has_base=has_base, wanted=False)

    def merge(self, models: Sequence[Weights], base: Weights | None) -> Iterator[tuple[str, Tensor]]:  # noqa: ARG002
        """See `llm.checkpoints.merging.base.Merging`."""
        first, second = models
        for name, tensor in first.items():
            yield name, slerp(wide(tensor), wide(second[name]), self.t).to(tensor.dtype)


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    """The point at `t` on the arc; on the straight line where both point the same way, or one is zero."""
    lengths = first.norm() * second.norm()
    cosine = (first * second).sum() / lengths if lengths > 0 else torch.ones(())
    if cosine.abs() > NEARLY_PARALLEL:
        return (1 - t) * first + t * second
    angle = cosine.acos()
    return (((1 - t) * angle).sin() * first + (t * angle).sin() * second) / angle.sin()
