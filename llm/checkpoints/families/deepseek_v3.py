"""DeepSeek-V3: latent attention, many small experts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llm.checkpoints.families.base import Family, decoder, part
from llm.checkpoints.families.llama import GATED_MLP, HEAD, PRE_NORMS, RMS_NORM, ROPE, ROTARY, SIZES, UNBIASED
from llm.checkpoints.families.rules import Config, Rule, renamed, unflat


def _pairs_to_halves(rows: Tensor) -> Tensor:
    """Rows x0 y0 x1 y1 ... as x0 x1 ... y0 y1 ...: interleaved rotary pairs as halves, dim -2."""
    return rows.view(*rows.shape[:-2], -1, 2, rows.shape[-1]).transpose(-2, -3).flatten(-3, -2)


def _halves_to_pairs(rows: Tensor) -> Tensor:
    return rows.view(*rows.shape[:-2], 2, -1, rows.shape[-1]).transpose(-2, -3).flatten(-3, -2)


def _turned_part(change: Callable[[Tensor], Tensor], *, per_head: bool) -> Callable[[Tensor, Config], Tensor]:
    """Changes the rotated rows at the end of each head, or of the whole matrix."""

    def changed(tensor: Tensor, config: Config) -> Tensor:
        attention = config["attention"]
        heads = unflat(tensor, config["n_heads"] if per_head else 1)
        width = attention["rotary_dim"]
        plain, turned = torch.split(heads, [heads.shape[1] - width, width], 1)
        return torch.cat((plain, change(turned.contiguous())), 1).flatten(0, 1)

    return changed


def _interleaved(ours: str, theirs: str, *, per_head: bool) -> Rule:
    to_ours = _turned_part(_pairs_to_halves, per_head=per_head)
    to_theirs = _turned_part(_halves_to_pairs, per_head=per_head)
    return Rule(ours, [theirs], lambda p, c: to_ours(p[0], c), lambda t, c: [to_theirs(t, c)])


FAMILY = Family(
    "deepseek_v3",
    "DeepseekV3ForCausalLM",
    decoder(
        part("attention.latent.LatentAttention", norm=part(RMS_NORM, eps=1e-6)),
        part("feed_forward.experts.MixtureOfExperts", expert=part(GATED_MLP), gate="sigmoid"),
        part(ROTARY),
        part(RMS_NORM),
    ),
    {
        **SIZES,
        **ROPE,
        "norm.eps": "rms_norm_eps",
        "position.rotary_dim": "qk_rope_head_dim",
        "attention.d_latent": "kv_lora_rank",
        "attention.d_query_latent": "q_lora_rank",
        "attention.plain_dim": "qk_nope_head_dim",
        "attention.rotary_dim": "qk_rope_head_dim",
        "attention.value_dim": "v_head_dim",
        "feed_forward.n_experts": "n_routed_experts",
        "feed_forward.n_active": "num_experts_per_tok",
        "feed_forward.d_expert": "moe_intermediate_size",
        "feed_forward.n_shared": "n_shared_experts",
        "feed_forward.normalised": "norm_topk_prob",
        "feed_forward.scaling": "routed_scaling_factor",
        "feed_forward.n_groups": "n_group",
        "feed_forward.n_active_groups": "topk_group",
        "feed_forward.dense_layers": "first_k_dense_replace",
    },
    [
        *HEAD,
        *renamed(
            "model.layers",
            **PRE_NORMS,
            attention__out="self_attn.o_proj",
            attention__query_down="self_attn.q_a_proj",
            attention__query_norm="self_attn.q_a_layernorm",
            attention__latent_norm="self_attn.kv_a_layernorm",
            attention__key_value="self_attn.kv_b_proj",
            feed_forward__router="mlp.gate",
            feed_forward__dense__gate="mlp.gate_proj",
            feed_forward__dense__up="mlp.up_proj",
            feed_forward__dense__down="mlp.down_proj",
            feed_forward__shared__gate="mlp.shared_experts.gate_proj",
            feed_forward__shared__up="mlp.shared_experts.up_proj",
            feed_forward__shared__down="mlp.shared_experts.down_proj",
        ),
        _interleaved(
            r"blocks\.(\d+)\.attention\.latent\.weight",
            r"model.layers.\1.self_attn.kv_a_proj_with_mqa.weight",
            per_head=False,
        ),
        _interleaved(
            r"blocks\.(\d+)\.attention\.query\.weight",
            r"model.layers.\1.self_attn.q_b_proj.weight",
            per_head=True,
        ),
        Rule(
            r"blocks\.(\d+)\.feed_forward\.selection_bias",
            [r"model.layers.\1.mlp.gate.e_score_correction_bias"],
        ),
        Rule(
            r"blocks\.(\d+)\.feed_forward\.experts\.(\d+)\.(gate|up|down)\.weight",
            [r"model.layers.\1.mlp.experts.\2.\3_proj.weight"],
        ),
    ],
    {**UNBIASED, "rope_interleave": True},
    fallback={"head_dim": None},
)
