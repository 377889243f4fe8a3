"""Rotary frequencies for contexts beyond the one a model was first trained on.

Each scaling takes the frequencies of the pairs, [head_dim / 2] in radians a place, and gives new ones with a
factor for queries and keys together (1 where the paper has none). `factor` is how many times longer the
context has become, `original_seq_len` how long it was; for a trained model that is extended, what is None
follows from its length (`llm.checkpoints.extension`).
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from llm.types import ConfigError

Frequencies = Float[Tensor, " P"]
Factor = Annotated[float, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


def linear(
    frequencies: Frequencies,
    *,
    theta: float,  # noqa: ARG001
    max_seq_len: int,  # noqa: ARG001
    factor: Factor | None = None,
) -> tuple[Frequencies, float]:
    """Position interpolation (Chen et al. 2023, arXiv 2306.15595, section 2.3): places are divided."""
    return frequencies / _given("factor", factor), 1.0


def ntk(
    frequencies: Frequencies,
    *,
    theta: float,
    max_seq_len: int,
    original_seq_len: Count | None = None,
    factor: Factor = 1.0,
) -> tuple[Frequencies, float]:
    """NTK-aware: the base grows so that the slowest pair is interpolated and the fastest is left alone.

    bloc97 2023, as described in Peng et al. 2023 (arXiv 2309.00071), section 3.1 and appendix A.2, for the
    ratio of the whole context to the original one (Hugging Face's "dynamic", at that length).
    """
    pairs, original = len(frequencies), _given("original_seq_len", original_seq_len)
    ratio = max(max_seq_len, original) / original
    grown = theta * (factor * ratio - (factor - 1)) ** (pairs / (pairs - 1))
    return grown ** -(torch.arange(pairs, device=frequencies.device) / pairs), 1.0


def llama3(
    frequencies: Frequencies,
    *,
    theta: float,  # noqa: ARG001
    max_seq_len: int,  # noqa: ARG001
    original_seq_len: Count | None = None,
    factor: Factor | None = None,
    low_frequency_factor: Positive = 1.0,
    high_frequency_factor: Positive = 4.0,
) -> tuple[Frequencies, float]:
    """Llama 3.1's: pairs of long wavelength are interpolated, those of short wavelength kept, a ramp between.

    Grattafiori et al. 2024 (arXiv 2407.21783), section 3.4.2, with the constants of the released code.
    """
    factor = _given("factor", factor)
    # of each pair over the original context
    turns = _given("original_seq_len", original_seq_len) * frequencies / (2 * math.pi)
    kept = (turns - low_frequency_factor) / (high_frequency_factor - low_frequency_factor)
    kept = kept.clamp(0, 1)
    return frequencies * (kept + (1 - kept) / factor), 1.0


def yarn(
    frequencies: Frequencies,
    *,
    theta: float,
    max_seq_len: int,  # noqa: ARG001
    original_seq_len: Count | None = None,
    factor: Factor | None = None,
    beta_fast: Positive = 32.0,
    beta_slow: Positive = 1.0,
    attention_factor: Positive | None = None,
) -> tuple[Frequencies, float]:
    """YaRN (Peng et al. 2023, arXiv 2309.00071, section 3): a ramp by turns, and a softer softmax.

    Pairs that turn more than `beta_fast` times over the original context are kept, those that turn less than
    `beta_slow` times are interpolated. Queries and keys are multiplied by ``0.1 ln(factor) + 1`` each, unless
    `attention_factor` gives another number.
    """
    width, factor = 2 * len(frequencies), _given("factor", factor)
    original = _given("original_seq_len", original_seq_len)

    def pair_turning(turns: float) -> float:
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_turning(beta_fast)), 0)
    high = min(math.ceil(pair_turning(beta_slow)), width - 1)
    pairs = torch.arange(len(frequencies), device=frequencies.device)
    kept = 1 - ((pairs - low) / max(high - low, 0.001)).clamp(0, 1)
    scaled = frequencies * (kept + (1 - kept) / factor)
    return scaled, attention_factor if attention_factor is not None else 0.1 * math.log(factor) + 1.0


def _given(name: str, value: float | None) -> float:
    """What only an extended model may leave open.

    Raises:
        ConfigError: it is open.
    """
    if value is None:
        mend = "only follows by itself when a trained model is extended (model=pretrained); give a number"
        raise ConfigError(name, value, mend)
    return value
