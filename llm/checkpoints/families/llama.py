"""LLaMA, whose names and parts most families share."""

from __future__ import annotations

from typing import Any

from llm.checkpoints.families.base import Family, Field, decoder, part
from llm.checkpoints.families.rules import Config, Rule, qkv, renamed
from llm.checkpoints.families.scaling import ROPE_SCALING

MULTI_HEAD = "attention.multi_head.MultiHeadAttention"
GATED_MLP = "feed_forward.gated.GatedMLP"
ROTARY = "positions.RotaryPosition"
RMS_NORM = "norms.RMSNorm"

SIZES = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "tie_embeddings": "tie_word_embeddings",
    "init_std": "initializer_range",
}
GROUPED = {**SIZES, "n_kv_heads": "num_key_value_heads", "head_dim": "head_dim"}
ROPE: dict[str, str | Field] = {"position.theta": "rope_theta", "position.scaling": ROPE_SCALING}
LLAMA_FIELDS: dict[str, str | Field] = {**GROUPED, **ROPE, "norm.eps": "rms_norm_eps"}
UNBIASED = {"hidden_act": "silu", "attention_bias": False}


def llama_like(attention: Config | None = None, norm: Config | None = None, **more: Any) -> Config:
    """The config of a decoder with LLaMA's parts, but for what is said."""
    return decoder(
        part(MULTI_HEAD, **(attention or {})),
        more.pop("feed_forward", part(GATED_MLP)),
        part(ROTARY),
        part(RMS_NORM, **(norm or {})),
        **more,
    )


QK_NORM = {"qk_norm": part(RMS_NORM)}
QK_FIELDS = {"attention.qk_norm.eps": "rms_norm_eps"}

HEAD = [
    Rule(r"embedding\.weight", ["model.embed_tokens.weight"]),
    Rule(r"unembedding\.weight", ["lm_head.weight"]),
    Rule(r"norm\.weight", ["model.norm.weight"]),
]
GATED = {
    "feed_forward__gate": "mlp.gate_proj",
    "feed_forward__up": "mlp.up_proj",
    "feed_forward__down": "mlp.down_proj",
}
ATTENTION = {
    "attention__out": "self_attn.o_proj",
    "attention__q_norm": "self_attn.q_norm",
    "attention__k_norm": "self_attn.k_norm",
}
PRE_NORMS = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
LLAMA_QKV = qkv(r"model.layers.\1.self_attn.*_proj.\2")
LLAMA_RULES = [*HEAD, LLAMA_QKV, *renamed("model.layers", **ATTENTION, **GATED, **PRE_NORMS)]


FAMILY = Family(
    "llama", "LlamaForCausalLM", llama_like(), LLAMA_FIELDS, LLAMA_RULES, {**UNBIASED, "mlp_bias": False}
)
