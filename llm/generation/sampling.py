"""How the next token is chosen: the settings of a generation, and one draw from a model's scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
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
        min_p: only tokens with this fraction of the likeliest one's probability may be drawn (Nguyen et al.
            2024, "Turning Up the Heat", section 3); 0 for all.
        repetition_penalty: scores of tokens that were read or written already are divided by it where
            positive, multiplied where negative (Keskar et al. 2019, "CTRL", section 4.1); 1 for none. A beam
            search applies it to log-probabilities.
        n_beams: continuations that are followed side by side; the best one is the answer. 1 follows the
            choice of each moment.
        length_penalty: a beam's score is the sum of its log-probabilities over the number of its tokens to
            this power (after Wu et al. 2016, section 7); above 0 favours long answers.
        seed: the same seed gives the same text; None for a new one each time.
        stop: texts that end the generation and are not part of the answer.
        stop_ids: token ids that do so, beside the tokenizer's own end of document.
        cache: ``growing`` takes memory for what was read, and for a window of it where attention has one;
            ``static`` takes all of it at once and keeps every shape, for compiled steps.
        compile: whether the step of a token is compiled by torch, which takes a minute and pays off in long
            or many answers; needs ``cache=static``.
        top_log_probs: how many of the likeliest tokens are told of for each one written.
    """

    max_new_tokens: Annotated[int, Field(gt=0)] = 200
    temperature: Annotated[float, Field(ge=0)] = 0.8
    top_k: Annotated[int, Field(gt=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    n_beams: Annotated[int, Field(gt=0)] = 1
    length_penalty: Annotated[float, Field(ge=-10, le=10)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Sequence[str] = ()
    stop_ids: Sequence[int] = ()
    cache: Literal["growing", "static"] = "growing"
    compile: bool = False
    top_log_probs: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        self.check_arguments(
            **{name: getattr(self, name) for name in ("temperature", "n_beams", "cache", "compile")}
        )
        if self.max_new_tokens < 1:
            raise ConfigError("max_new_tokens", self.max_new_tokens, "must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError("temperature", self.temperature, "must be 0 (the likeliest token) or more")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError("top_k", self.top_k, "must be at least 1, or null for all tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError("top_p", self.top_p, "must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ConfigError("min_p", self.min_p, "must be from 0 (all tokens) to 1 (the likeliest)")
        if not 0 < self.repetition_penalty < float("inf"):
            mend = "must be above 0: 1 for none, 1.1 for a little"
            raise ConfigError("repetition_penalty", self.repetition_penalty, mend)
        if not -10 <= self.length_penalty <= 10:
            mend = "must be from -10 (short answers) to 10 (long ones)"
            raise ConfigError("length_penalty", self.length_penalty, mend)
        if self.top_log_probs < 0:
            raise ConfigError("top_log_probs", self.top_log_probs, "must be 0 (none) or more")
        if isinstance(self.stop, str) or "" in self.stop:
            raise ConfigError(
                "stop", self.stop, "must be a list of texts that are not empty, as stop=['END']"
            )

    @staticmethod
    def check_arguments(
        *,
        temperature: float = 0.8,
        n_beams: int = 1,
        cache: Literal["growing", "static"] = "growing",
        compile: bool = False,
    ) -> None:
        """Refuses beams with chance, and compiled steps of changing shapes."""
        if n_beams < 1:
            raise ConfigError("n_beams", n_beams, "must be at least 1")
        if n_beams > 1 and temperature > 0:
            mend = f"beams leave nothing to chance, and temperature={temperature}; set it to 0"
            raise ConfigError("n_beams", n_beams, mend)
        if compile and cache != "static":
            raise ConfigError("compile", compile, f"needs shapes that stay; set cache=static, not {cache}")


def probabilities(logits: Float[Tensor, "B V"], settings: Settings) -> Float[Tensor, "B V"]:
    """What a token is drawn from: temperature, then top-k, then top-p and min-p on what is left.

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
    if settings.min_p:
        chances = chances.masked_fill(chances < settings.min_p * chances.amax(-1, keepdim=True), 0.0)
        chances = chances / chances.sum(-1, keepdim=True)
    return chances


def penalised(
    scores: Float[Tensor, "B V"], seen: Bool[Tensor, "B V"] | None, penalty: float
) -> Float[Tensor, "B V"]:
    """Scores with those of tokens `seen` made worse, whatever their sign; `seen` is None for no penalty."""
    if seen is None:
        return scores
    return torch.where(seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)


def likeliest(logits: Float[Tensor, "B V"], k: int) -> list[tuple[tuple[int, float], ...]]:
    """For each row the k likeliest tokens with their log-probabilities in nats, likeliest first."""
    log_probs, ids = logits.float().log_softmax(-1).topk(min(k, logits.shape[-1]))
    pairs = zip(ids.tolist(), log_probs.tolist(), strict=True)
    return [tuple(zip(*row, strict=True)) for row in pairs]


def sample(
    logits: Float[Tensor, "B V"],
    settings: Settings,
    randomness: Sequence[Randomness],
    seen: Bool[Tensor, "B V"] | None = None,
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """One token for each row, and its log-probability.

    Each row draws one number from its own generator (on the CPU), so a request's text depends neither on
    its neighbours in the batch nor on the kind of device. `seen`: tokens that `repetition_penalty` holds for.

    Returns:
        Token ids, and their log-probabilities in nats under the model itself: before any penalty,
        temperature, top-k, top-p and min-p.
    """
    scores = penalised(logits, seen, settings.repetition_penalty)
    if settings.temperature == 0:
        ids = scores.argmax(-1)
    else:
        cumulative = probabilities(scores, settings).cumsum(-1)
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
