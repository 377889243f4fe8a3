"""Mistral: LLaMA with a sliding window."""

from __future__ import annotations

from llm.checkpoints.families.base import Family
from llm.checkpoints.families.llama import LLAMA_FIELDS, LLAMA_RULES, llama_like

FAMILY = Family(
    "mistral",
    "MistralForCausalLM",
    llama_like(),
    {**LLAMA_FIELDS, "attention.window": "sliding_window"},
    LLAMA_RULES,
    {"hidden_act": "silu"},
    fallback={"sliding_window": 4096},
)
