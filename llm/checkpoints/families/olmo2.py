"""OLMo 2: norms behind the parts, all queries and keys normalised together."""

from __future__ import annotations

from llm.checkpoints.families.base import Family
from llm.checkpoints.families.llama import (
    ATTENTION,
    GATED,
    HEAD,
    LLAMA_FIELDS,
    LLAMA_QKV,
    QK_FIELDS,
    QK_NORM,
    UNBIASED,
    llama_like,
)
from llm.checkpoints.families.rules import renamed

FAMILY = Family(
    "olmo2",
    "Olmo2ForCausalLM",
    llama_like({**QK_NORM, "qk_norm_over": "all"}, norm_placement="output"),
    {**{k: v for k, v in LLAMA_FIELDS.items() if k != "head_dim"}, **QK_FIELDS},
    [
        *HEAD,
        LLAMA_QKV,
        *renamed(
            "model.layers",
            **ATTENTION,
            **GATED,
            attention_norm="post_attention_layernorm",
            feed_forward_norm="post_feedforward_layernorm",
        ),
    ],
    UNBIASED,
)
