"""GPT-NeoX and Pythia."""

from __future__ import annotations

from llm.checkpoints.families.base import Family, decoder, part
from llm.checkpoints.families.llama import MULTI_HEAD, ROPE, ROTARY, SIZES
from llm.checkpoints.families.rules import Rule, renamed

FAMILY = Family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    decoder(
        part(MULTI_HEAD),
        part("feed_forward.mlp.MLP", activation="gelu"),
        part(ROTARY),
        part("norms.LayerNorm"),
        bias=True,
    ),
    {
        **SIZES,
        **ROPE,
        "position.rotary_fraction": "partial_rotary_factor",
        "parallel_blocks": "use_parallel_residual",
        "norm.eps": "layer_norm_eps",
    },
    [
        Rule(r"embedding\.weight", ["gpt_neox.embed_in.weight"]),
        Rule(r"unembedding\.weight", ["embed_out.weight"]),
        Rule(r"norm\.(weight|bias)", [r"gpt_neox.final_layer_norm.\1"]),
        *renamed(
            "gpt_neox.layers",
            attention_norm="input_layernorm",
            feed_forward_norm="post_attention_layernorm",
            attention__qkv="attention.query_key_value",  # a group is a head there: the same order
            attention__out="attention.dense",
            feed_forward__up="mlp.dense_h_to_4h",
            feed_forward__down="mlp.dense_4h_to_h",
        ),
    ],
    constants={"hidden_act": "gelu", "attention_bias": True},
    fallback={"use_parallel_residual": True, "partial_rotary_factor": 0.25, "tie_word_embeddings": False},
)
