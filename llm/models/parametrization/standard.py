"""The usual parametrization: every width by itself."""

from __future__ import annotations

from llm.models.parametrization.base import Scale, Width


class Standard:
    """First weights and learning rates are those of the config, whatever the width.

    A learning rate found at one width then fits no other: the best one falls as a model gets wider.
    """

    logit_scale = 1.0

    def __init__(self, width: Width) -> None:
        self.base = width

    def matrix(self, growth_in: float, growth_out: float) -> Scale:  # noqa: ARG002
        """Nothing grows."""
        return Scale()
