"""Gemma 2: sandwiched norms, soft caps, a window in every other layer."""

from __future__ import annotations

from llm.checkpoints.families.base import Family, Field, part
from llm.checkpoints.families.llama import (
    ATTENTION,
    GATED,
    GATED_MLP,
    HEAD,
    LLAMA_FIELDS,
    LLAMA_QKV,
    llama_like,
)
from llm.checkpoints.families.rules import Config, renamed


def _width(scale: float | None, config: Config) -> int:
    """The width whose root divides the scores."""
    return round(scale**-2) if scale else config["head_dim"] or config["d_model"] // config["n_heads"]


FAMILY = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    llama_like(
        {"full_every": 2},
        {"centred": True},
        feed_forward=part(GATED_MLP, activation="gelu_tanh"),
        norm_placement="sandwich",
        scale_embeddings=True,
        tie_embeddings=True,
    ),
    {
        **LLAMA_FIELDS,
        "attention.window": "sliding_window",
        "attention.soft_cap": "attn_logit_softcapping",
        "attention.scale": Field("query_pre_attn_scalar", lambda value, _: value**-0.5, _width),
        "logit_soft_cap": "final_logit_softcapping",
    },
    [
        *HEAD,
        LLAMA_QKV,
        *renamed(
            "model.layers",
            **ATTENTION,
            **GATED,
            attention_norm="input_layernorm",
            attention_output_norm="post_attention_layernorm",
            feed_forward_norm="pre_feedforward_layernorm",
            feed_forward_output_norm="post_feedforward_layernorm",
        ),
    ],
    {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
    fallback={"tie_word_embeddings": True},
)
