"""Qwen 3: LLaMA with normalised queries and keys."""

from __future__ import annotations

from llm.checkpoints.families.base import Family
from llm.checkpoints.families.llama import LLAMA_FIELDS, LLAMA_RULES, QK_FIELDS, QK_NORM, UNBIASED, llama_like

FAMILY = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    llama_like(QK_NORM),
    {**LLAMA_FIELDS, **QK_FIELDS},
    LLAMA_RULES,
    {**UNBIASED, "use_sliding_window": False},
)
