"""Mixtral: Mistral with a mixture of experts."""

from __future__ import annotations

from llm.checkpoints.families.base import Family, part
from llm.checkpoints.families.llama import GATED_MLP, LLAMA_FIELDS, LLAMA_RULES, llama_like
from llm.checkpoints.families.rules import Rule

FAMILY = Family(
    "mixtral",
    "MixtralForCausalLM",
    llama_like(feed_forward=part("feed_forward.experts.MixtureOfExperts", expert=part(GATED_MLP))),
    {
        **LLAMA_FIELDS,
        "attention.window": "sliding_window",
        "feed_forward.n_experts": "num_local_experts",
        "feed_forward.n_active": "num_experts_per_tok",
    },
    [
        *LLAMA_RULES,
        Rule(
            r"blocks\.(\d+)\.feed_forward\.router\.weight",
            [r"model.layers.\1.block_sparse_moe.gate.weight"],
        ),
        *(
            Rule(
                rf"blocks\.(\d+)\.feed_forward\.experts\.(\d+)\.{ours}\.weight",
                [rf"model.layers.\1.block_sparse_moe.experts.\2.{theirs}.weight"],
            )
            for ours, theirs in (("gate", "w1"), ("up", "w3"), ("down", "w2"))
        ),
    ],
    {"hidden_act": "silu"},
    fallback={"sliding_window": None},
)
