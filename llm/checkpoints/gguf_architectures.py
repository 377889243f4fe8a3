"""Which of llama.cpp's architectures are which of Hugging Face's, and what llama.cpp does to their tensors.

Metadata become a ``config.json``, names of tensors become Hugging Face's, and what the converter changed in a
tensor is undone; from there on the families of `llm.checkpoints.families` know the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llm.types import ConfigError

Config = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One of llama.cpp's architectures.

    Attributes:
        model_type: Hugging Face's name of it.
        fields: keys of the metadata, without the architecture in front, and of ``config.json``.
        blocks: names of a block's tensors, here and there, without ``blk.N.`` and ``BLOCK.N.``.
        others: names of the other tensors.
        block: what stands before the number of a block in Hugging Face's names.
        fallback: values where the metadata say nothing.
        undo: by name of a tensor, what makes it Hugging Face's again; called with it and ``config.json``.
        complete: adds to ``config.json`` what does not stand in one key; called with it and the metadata.
    """

    model_type: str
    fields: Mapping[str, str]
    blocks: Mapping[str, str]
    others: Mapping[str, str]
    block: str = "model.layers"
    fallback: Mapping[str, Any] = field(default_factory=dict)
    undo: Mapping[str, Callable[[Tensor, Config], Tensor]] = field(default_factory=dict)
    complete: Callable[[Config, Mapping[str, Any]], None] = lambda _config, _metadata: None


# ----------------------------------------------------------------------------- tensors


def _halves(heads: str) -> Callable[[Tensor, Config], Tensor]:
    """Rows of each head as first and second halves of pairs; llama.cpp keeps the two of a pair together."""

    def undo(tensor: Tensor, config: Config) -> Tensor:
        pairs = tensor.view(config[heads], -1, 2, *tensor.shape[1:])
        return pairs.transpose(1, 2).reshape(tensor.shape)

    return undo


def _transposed(tensor: Tensor, _: Config) -> Tensor:
    """GPT-2's layers are stored input by output there; biases are as they are."""
    return tensor.T.contiguous() if tensor.ndim == 2 else tensor


def _less_one(tensor: Tensor, _: Config) -> Tensor:
    """Gemma's gains are differences from one there."""
    return tensor - 1


# ----------------------------------------------------------------------------- configs

SIZES = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "attention.key_length": "head_dim",
}
OTHERS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCKS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
PRE_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
EXPERTS = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.*.w1",
    "ffn_up_exps": "block_sparse_moe.experts.*.w3",
    "ffn_down_exps": "block_sparse_moe.experts.*.w2",
}
"""A star is an expert's number; the experts of a block lie in one tensor, one after the other."""
ROTATED = {"attn_q": _halves("num_attention_heads"), "attn_k": _halves("num_key_value_heads")}


def _complete_rotary(config: Config, metadata: Mapping[str, Any]) -> None:
    """Head width and rotary scaling, where they are said and where they are not."""
    kind = metadata["general.architecture"]
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    turned = metadata.get(f"{kind}.rope.dimension_count")
    config.setdefault("head_dim", turned or config["hidden_size"] // config["num_attention_heads"])
    if turned not in (None, config["head_dim"]):
        mend = f"turns {turned} of a head's {config['head_dim']} numbers ({kind}.rope.dimension_count)"
        raise ConfigError("", "", f"{mend}; only all of them is supported")
    scaling = {key: metadata.get(f"{kind}.rope.scaling.{key}") for key in _SCALING_KEYS}
    name = scaling["type"] or "none"
    if name == "none":
        return
    if name not in ("linear", "yarn"):
        raise ConfigError("", "", f"scales rotary positions by {name}; supported: linear, yarn, llama3's")
    rope: Config = {"rope_type": name, "factor": scaling["factor"] or 1.0}
    if name == "yarn":
        rope["original_max_position_embeddings"] = scaling["original_context_length"]
        rope["beta_fast"] = scaling["yarn_beta_fast"]
        rope["beta_slow"] = scaling["yarn_beta_slow"]
        if scaling["attn_factor"] not in (None, 1.0):  # beyond the paper's, which is always there
            rope["attention_factor"] = scaling["attn_factor"] * (0.1 * math.log(rope["factor"]) + 1)
    config["rope_scaling"] = {key: value for key, value in rope.items() if value is not None}


_SCALING_KEYS = (
    "type",
    "factor",
    "attn_factor",
    "original_context_length",
    "yarn_beta_fast",
    "yarn_beta_slow",
)


def _complete_gemma2(config: Config, metadata: Mapping[str, Any]) -> None:
    _complete_rotary(config, metadata)
    # The 27B model alone divides scores by the root of d_model / n_heads; no key says so.
    narrow = config["num_hidden_layers"] == 46
    width = config["hidden_size"] // config["num_attention_heads"] if narrow else config["head_dim"]
    config["query_pre_attn_scalar"] = width


def llama3_scaling(factors: Tensor, config: Config) -> Config:
    """Llama 3's scaling from the divisors of each pair's frequency: all that a GGUF file keeps of it.

    Raises:
        ConfigError: they are not of Llama 3's form.
    """
    pairs = len(factors)
    theta = config.get("rope_theta", 10000.0)
    frequencies = theta ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    factor = float(factors.max())
    for original in (8192, 4096, 16384, 32768, config["max_position_embeddings"]):
        kept = ((original * frequencies / (2 * math.pi) - 1) / 3).clamp(0, 1)
        if torch.allclose(1 / (kept + (1 - kept) / factor), factors.double(), rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            }
    raise ConfigError("", "", "scales rotary positions by factors (rope_freqs.weight) that are not Llama 3's")


LLAMA = Architecture("llama", SIZES, {**BLOCKS, **PRE_NORMS}, OTHERS, undo=ROTATED, complete=_complete_rotary)
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": LLAMA,
    "qwen3": Architecture(
        "qwen3", SIZES, {**BLOCKS, **PRE_NORMS, **QK_NORMS}, OTHERS, complete=_complete_rotary
    ),
    "olmo2": Architecture(
        "olmo2",
        SIZES,
        {
            **BLOCKS,
            **QK_NORMS,
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        OTHERS,
        complete=_complete_rotary,
    ),
    "gemma2": Architecture(
        "gemma2",
        {
            **SIZES,
            "attention.sliding_window": "sliding_window",
            "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        {
            **BLOCKS,
            "attn_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        OTHERS,
        fallback={
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        undo=dict.fromkeys(
            ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "output_norm"), _less_one
        ),
        complete=_complete_gemma2,
    ),
    "gpt2": Architecture(
        "gpt2",
        {
            "embedding_length": "n_embd",
            "block_count": "n_layer",
            "attention.head_count": "n_head",
            "feed_forward_length": "n_inner",
            "context_length": "n_positions",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        {
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        {
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        block="transformer.h",
        undo=dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), _transposed),
    ),
}
"""By llama.cpp's names."""

MIXTRAL = Architecture(
    "mixtral",
    {**SIZES, "expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
    {**{k: v for k, v in BLOCKS.items() if not k.startswith("ffn")}, **PRE_NORMS, **EXPERTS},
    OTHERS,
    undo=ROTATED,
    complete=_complete_rotary,
)
"""llama.cpp calls it llama, too: one with experts."""
