"""How the next token is chosen: the settings of a generation, and one draw from a model's scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Generator as Randomness
from torch import Tensor

from llm.types import ConfigError


@dataclass(frozen=True)
class Settings:
    """How to generate.

    Attributes:
        max_new_tokens: stop after this many tokens.
        temperature: divides the scores; 0 always takes the likeliest token.
        top_k: only the k likeliest tokens may be drawn (Fan et al. 2018); None for all.
        top_p: only the likeliest tokens that together reach this probability may be drawn (nucleus
            sampling, Holtzman et al. 2020, section 3.1); 1 for all.
        seed: the same seed gives the same text; None for a new one each time.
        stop: texts that end the generation and are not part of the answer.
        stop_ids: token ids that do so, beside the tokenizer's own end of document.
    """

    max_new_tokens: Annotated[int, Field(gt=0)] = 200
    temperature: Annotated[float, Field(ge=0)] = 0.8
    top_k: Annotated[int, Field(gt=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Sequence[str] = ()
    stop_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError("max_new_tokens", self.max_new_tokens, "must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError("temperature", self.temperature, "must be 0 (the likeliest token) or more")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError("top_k", self.top_k, "must be at least 1, or null for all tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError("top_p", self.top_p, "must be above 0 and at most 1")
        if isinstance(self.stop, str) or "" in self.stop:
            raise ConfigError(
                "stop", self.stop, "must be a list of texts that are not empty, as stop=['END']"
            )


def probabilities(logits: Float[Tensor, "B V"], settings: Settings) -> Float[Tensor, "B V"]:
    """What a token is drawn from: temperature, then top-k, then top-p on what is left.

    Tokens that share the k-th score all stay. At least one token stays in each row. Float64, so that the
    draw below rounds nowhere near a probability that matters.
    """
    scores = logits.double()
    # Subtracting the largest first keeps a tiny temperature from overflowing.
    scores = (scores - scores.amax(-1, keepdim=True)) / settings.temperature
    if settings.top_k is not None and settings.top_k < scores.shape[-1]:
        lowest = scores.topk(settings.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < lowest, -torch.inf)
    chances = scores.softmax(-1)
    if settings.top_p < 1:
        descending, order = chances.sort(dim=-1, descending=True)
        enough = descending.cumsum(-1) - descending >= settings.top_p
        outside = torch.empty_like(enough).scatter_(-1, order, enough)
        chances = chances.masked_fill(outside, 0.0)
        chances = chances / chances.sum(-1, keepdim=True)
    return chances


def sample(
    logits: Float[Tensor, "B V"], settings: Settings, randomness: Sequence[Randomness]
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """One token for each row, and its log-probability.

    Each row draws one number from its own generator (on the CPU), so a request's text depends neither on
    its neighbours in the batch nor on the kind of device.

    Returns:
        Token ids, and their log-probabilities in nats under the model itself: before temperature, top-k
        and top-p.
    """
    if settings.temperature == 0:
        ids = logits.argmax(-1)
    else:
        cumulative = probabilities(logits, settings).cumsum(-1)
        # float32 draws lie on a grid of 2^-24 below 1: times the float64 total they stay below it.
        draws = torch.stack([torch.rand((), generator=r, dtype=torch.float32) for r in randomness])
        points = draws.to(logits.device).double()[:, None] * cumulative[:, -1:]
        # The first token whose cumulative probability exceeds the point; never one of probability zero.
        ids = torch.searchsorted(cumulative, points, right=True).squeeze(-1)
    log_probs = logits.float().log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)
    return ids, log_probs


def randomness(seed: int | None, n: int) -> list[Randomness]:
    """A random state for each of `n` requests; request i gets ``seed + i``, a fresh seed when None."""
    states = [Randomness() for _ in range(n)]
    for i, state in enumerate(states):
        if seed is None:
            state.seed()
        else:
            state.manual_seed((seed + i) % 2**63)
    return states
