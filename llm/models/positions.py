"""How a model knows the order of its tokens: not at all, by a learned table, by rotation."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from llm.models.base import Sizes
from llm.types import ConfigError


class NoPosition(nn.Module):
    """No positions: order is only known through the causal mask.

    Haviv et al. 2022, "Transformer Language Models without Positional Encodings Still Learn Positional
    Information". Also the base of the other kinds, which replace one of the two hooks.
    """

    def __init__(self, sizes: Sizes) -> None:  # noqa: ARG002
        super().__init__()

    def embed(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:  # noqa: ARG002
        """Leaves the token embeddings as they are."""
        return x

    def rotate(
        self,
        heads: Float[Tensor, "B T H d"],
        positions: Int[Tensor, "#B T"],  # noqa: ARG002
    ) -> Float[Tensor, "B T H d"]:
        """Leaves queries and keys as they are."""
        return heads


class LearnedPosition(NoPosition):
    """A learned vector for each place, added to the token's (Radford et al. 2018, section 3.1; GPT-2)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.table = nn.Embedding(sizes.max_seq_len, sizes.d_model)

    def embed(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        """Adds the vector of each token's place."""
        places: Tensor = self.table(positions)
        return x + places


class RotaryPosition(NoPosition):
    """Turns pairs of query and key numbers by an angle proportional to the place.

    Su et al. 2021, "RoFormer", section 3.2.2, with LLaMA's constants. Pair i joins numbers i and
    i + head_dim/2 of a head (the "half-rotated" layout of Hugging Face's checkpoints) and turns by
    ``place * theta^(-2i/head_dim)``. Angles are computed in float32, like those of the models trained so.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, sizes: Sizes, *, theta: Annotated[float, Field(gt=0)] = 10000.0) -> None:
        super().__init__(sizes)
        if sizes.head_dim % 2:
            mend = f"rotary positions turn pairs, and d_model/n_heads={sizes.head_dim} is odd; make it even"
            raise ConfigError("n_heads", sizes.n_heads, mend)
        self.theta, self.head_dim, self.max_seq_len = theta, sizes.head_dim, sizes.max_seq_len
        cos, sin = self._tables(None)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def _tables(self, device: torch.device | None) -> tuple[Float[Tensor, "S d"], Float[Tensor, "S d"]]:
        exponents = torch.arange(0, self.head_dim, 2, device=device).float() / self.head_dim
        places = torch.arange(self.max_seq_len, device=device).float()
        angles = torch.outer(places, 1.0 / self.theta**exponents)
        sin = angles.sin()
        # [-sin, sin]: the sign of the half-rotation lives in the table, so `rotate` needs no negation.
        return torch.cat((angles.cos(),) * 2, -1), torch.cat((-sin, sin), -1)

    def rotate(
        self, heads: Float[Tensor, "B T H d"], positions: Int[Tensor, "#B T"]
    ) -> Float[Tensor, "B T H d"]:
        """Turns each head of each token by the angles of the token's place."""
        cos = self.cos[positions].unsqueeze(-2).to(heads.dtype)
        sin = self.sin[positions].unsqueeze(-2).to(heads.dtype)
        return torch.addcmul(heads * cos, heads.roll(self.head_dim // 2, -1), sin)

    def init_weights(self, generator: torch.Generator) -> None:  # noqa: ARG002
        """Fills the tables (needed when the model was built without storage)."""
        cos, sin = self._tables(self.cos.device)
        self.cos.copy_(cos)
        self.sin.copy_(sin)
