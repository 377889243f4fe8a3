"""T5 v1.1: gated feed-forward parts, and a head of its own."""

from __future__ import annotations

from llm.checkpoints.families.base import Family, part
from llm.checkpoints.families.llama import GATED_MLP
from llm.checkpoints.families.t5 import CONSTANTS, FALLBACK, FIELDS, encoder_decoder, rules

FAMILY = Family(
    "t5",
    "T5ForConditionalGeneration",
    encoder_decoder(part(GATED_MLP, activation="gelu_tanh"), scale_head=False),
    FIELDS,
    rules(gate="wi_0", up="wi_1", down="wo"),
    {**CONSTANTS, "feed_forward_proj": "gated-gelu"},
    FALLBACK,
    positions="n_positions",
    head_decides=True,
)
