"""How a model knows the order of its tokens: not at all, by a table, by rotation, by distance."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    Information". Also the base of the other kinds, which replace one of the three hooks.
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

    def bias(self, n_past: int, n_new: int, device: torch.device) -> Float[Tensor, "H T S"] | None:  # noqa: ARG002
        """Adds nothing to the scores."""
        return None


class LearnedPosition(NoPosition):
    """A learned vector for each place, added to the token's (Radford et al. 2018, section 3.1; GPT-2)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.table = nn.Embedding(sizes.max_seq_len, sizes.d_model)

    def embed(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        """Adds the vector of each token's place."""
        places: Tensor = self.table(positions)
        return x + places


class SinusoidalPosition(NoPosition):
    """Sines and cosines of each place, added to the token's vector (Vaswani et al. 2017, section 3.5).

    Sines fill the first half of the width and cosines the second, as in the released tensor2tensor code.
    """

    def __init__(self, sizes: Sizes, *, theta: Annotated[float, Field(gt=0)] = 10000.0) -> None:
        super().__init__(sizes)
        if sizes.d_model % 2:
            mend = "sinusoidal positions need as many sines as cosines; make it even"
            raise ConfigError("d_model", sizes.d_model, mend)
        self.theta, self.n_pairs = theta, sizes.d_model // 2

    def embed(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        """Adds the sines and cosines of each token's place."""
        pairs = torch.arange(self.n_pairs, device=x.device, dtype=torch.float32)
        angles = positions[..., None].float() * self.theta ** (-pairs / max(self.n_pairs - 1, 1))
        return x + torch.cat((angles.sin(), angles.cos()), -1).to(x.dtype)


class AlibiPosition(NoPosition):
    """Scores fall linearly with distance, each head at a rate of its own.

    Press, Smith, Lewis 2022, "Train Short, Test Long", section 3. With a power of two of heads the rates are
    the geometric series from ``2^(-8/n)``; otherwise that of the next lower power, then every other one of
    the next higher power, as in the authors' code. In an encoder distances count in both directions.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.n_heads, self.causal = sizes.n_heads, sizes.causal

    def bias(self, n_past: int, n_new: int, device: torch.device) -> Float[Tensor, "H T S"]:
        """Minus the rate of each head times the distance."""
        columns = torch.arange(n_past + n_new, device=device)
        distances = columns[n_past:, None] - columns
        rates = torch.tensor(_alibi_rates(self.n_heads), device=device)
        return -rates[:, None, None] * (distances.clamp(min=0) if self.causal else distances.abs())


def _alibi_rates(n_heads: int) -> list[float]:
    power = 2 ** int(math.log2(n_heads))
    rates = [2.0 ** (-8.0 * n / power) for n in range(1, power + 1)]
    return rates + [2.0 ** (-4.0 * n / power) for n in range(1, 2 * (n_heads - power), 2)]


class RotaryPosition(NoPosition):
    """Turns pairs of query and key numbers by an angle proportional to the place.

    Su et al. 2021, "RoFormer", section 3.2.2, with LLaMA's constants. Pair i joins numbers i and
    i + d/2 of the turned part (the "half-rotated" layout of Hugging Face's checkpoints) and turns by
    ``place * theta^(-2i/d)``. Angles are computed in float32, like those of the models trained so.

    Args:
        sizes: of the model.
        theta: base of the frequencies.
        rotary_dim: how many numbers of each head are turned, the first ones; None goes by the fraction.
        rotary_fraction: of a head's numbers (GPT-NeoX turns a quarter: Black et al. 2022, section 2.1).
        scaling: makes other frequencies of these; see `llm.models.rope_scaling`.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        theta: Annotated[float, Field(gt=0)] = 10000.0,
        rotary_dim: Annotated[int, Field(gt=0)] | None = None,
        rotary_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0,
        scaling: Callable[..., tuple[Tensor, float]] | None = None,
    ) -> None:
        super().__init__(sizes)
        if sizes.head_dim % 2:
            mend = f"rotary positions turn pairs, and d_model/n_heads={sizes.head_dim} is odd; make it even"
            raise ConfigError("n_heads", sizes.n_heads, mend)
        self.rotary_dim = rotary_dim or int(sizes.head_dim * rotary_fraction)
        if self.rotary_dim < 2 or self.rotary_dim % 2:
            mend = f"turns {self.rotary_dim} of {sizes.head_dim} numbers, which are no pairs"
            key = "rotary_dim" if rotary_dim else "rotary_fraction"
            raise ConfigError(key, rotary_dim or rotary_fraction, mend)
        self.theta, self.max_seq_len, self.scaling = theta, sizes.max_seq_len, scaling
        cos, sin = self._tables(None)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def _tables(self, device: torch.device | None) -> tuple[Float[Tensor, "S d"], Float[Tensor, "S d"]]:
        exponents = torch.arange(0, self.rotary_dim, 2, device=device).float() / self.rotary_dim
        frequencies, factor = 1.0 / self.theta**exponents, 1.0
        if self.scaling is not None:
            frequencies, factor = self.scaling(frequencies, theta=self.theta, max_seq_len=self.max_seq_len)
        places = torch.arange(self.max_seq_len, device=device).float()
        angles = torch.outer(places, frequencies)
        sin, cos = angles.sin() * factor, angles.cos() * factor
        # [-sin, sin]: the sign of the half-rotation lives in the table, so `rotate` needs no negation.
        return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)

    def rotate(
        self, heads: Float[Tensor, "B T H d"], positions: Int[Tensor, "#B T"]
    ) -> Float[Tensor, "B T H d"]:
        """Turns each head of each token by the angles of the token's place."""
        if heads.shape[-1] < self.rotary_dim:
            mend = f"heads have {heads.shape[-1]} numbers to turn; at most that many"
            raise ConfigError("rotary_dim", self.rotary_dim, mend)
        cos = self.cos[positions].unsqueeze(-2).to(heads.dtype)
        sin = self.sin[positions].unsqueeze(-2).to(heads.dtype)
        turned, rest = heads[..., : self.rotary_dim], heads[..., self.rotary_dim :]
        turned = torch.addcmul(turned * cos, turned.roll(self.rotary_dim // 2, -1), sin)
        return torch.cat((turned, rest), -1) if rest.shape[-1] else turned

    def init_weights(self, generator: torch.Generator) -> None:  # noqa: ARG002
        """Fills the tables (needed when the model was built without storage)."""
        cos, sin = self._tables(self.cos.device)
        self.cos.copy_(cos)
        self.sin.copy_(sin)
