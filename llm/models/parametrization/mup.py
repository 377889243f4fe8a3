"""Maximal update parametrization: what is tuned on a narrow model holds for a wide one."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from llm.models.parametrization.base import Scale, Width, divisor_near

Count = Annotated[int, Field(gt=0)]


class MuP:
    """muP (Yang, Hu et al. 2022, "Tensor Programs V", arXiv 2203.03466) for optimizers of Adam's kind.

    With m for how many times wider than in the base what a matrix reads is, this is table 8 of the paper:

    ===========================  ==================  ==================  ==============================
    parameter                    first deviation     learning rate       besides
    ===========================  ==================  ==================  ==============================
    embeddings, biases, gains    the base's          the base's
    matrix between widths        base / sqrt(m)      base / m
    matrix to a fixed width      base / m            base / m            a router of experts, say
    matrix of the head           the base's          the base's          logits are divided by m
    scores of attention                                                  1/head_dim, not its root
    ===========================  ==================  ==================  ==============================

    That the head has a multiplier, and not the smaller deviation and learning rate of table 3, which come to
    the same, lets it share its matrix with the embeddings. A matrix to a fixed width is an output to the
    theory; it has table 3's form. Scores are divided by ``head_dim / base_head_dim`` besides what the
    attention divides by at the base (definition 4.1). At the base's width nothing differs from the standard
    parametrization, to the last bit.

    The wider model is the same config at another width: what stays null here follows `Width.at`.

    Args:
        width: of the model.
        base_d_model: the width at which everything is as the config says.
        base_n_heads: heads there; None for as many, or in proportion when the model has a `head_dim`.
        base_head_dim: width of a head there; None for the model's `head_dim`, or what the heads leave.
        base_d_ff: inner width of the feed-forward part there; None for in proportion.
    """

    def __init__(
        self,
        width: Width,
        *,
        base_d_model: Count = 128,
        base_n_heads: Count | None = None,
        base_head_dim: Count | None = None,
        base_d_ff: Count | None = None,
    ) -> None:
        if base_n_heads is None and base_head_dim is None:
            base = width.at(base_d_model, key="base_d_model")
        else:  # the heads are said: nothing about them is to be worked out
            n_heads = base_n_heads or width.n_heads
            n_kv_heads = divisor_near(n_heads, width.n_kv_heads * n_heads / width.n_heads)
            base = replace(width.flat(base_d_model), n_heads=n_heads, n_kv_heads=n_kv_heads)
            base = replace(base, head_dim=base_head_dim or width.head_dim)
        self.base = replace(base, d_ff=base_d_ff or base.d_ff)
        self.logit_scale = base_d_model / width.d_model

    def matrix(self, growth_in: float, growth_out: float) -> Scale:
        """The table's second and third row; a matrix that reads a fixed width is as in the base."""
        if growth_in == 1.0:
            return Scale()
        is_hidden = growth_out != 1.0
        return Scale(growth_in**-0.5 if is_hidden else 1 / growth_in, 1 / growth_in)
