"""GPT-2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llm.checkpoints.families.base import Family, decoder, part
from llm.checkpoints.families.llama import MULTI_HEAD
from llm.checkpoints.families.rules import Config, Rule, join_qkv, renamed, split_qkv


def _join_conv_qkv(parts: Sequence[Tensor], config: Config) -> Tensor:
    """GPT-2 stores all queries, all keys, all values, and matrices transposed."""
    return join_qkv(parts[0].T.chunk(3) if parts[0].ndim == 2 else parts[0].chunk(3), config)


def _split_conv_qkv(tensor: Tensor, config: Config) -> Sequence[Tensor]:
    joined = torch.cat(list(split_qkv(tensor, config)))
    return [joined.T.contiguous() if joined.ndim == 2 else joined]


def _transposed(parts: Sequence[Tensor], _: Config) -> Tensor:
    return parts[0].T.contiguous()


def _transposed_back(tensor: Tensor, _: Config) -> Sequence[Tensor]:
    return [tensor.T.contiguous()]


FAMILY = Family(
    "gpt2",
    "GPT2LMHeadModel",
    decoder(
        part(MULTI_HEAD),
        part("feed_forward.mlp.MLP", activation="gelu_tanh"),
        part("positions.LearnedPosition"),
        part("norms.LayerNorm"),
        bias=True,
        tie_embeddings=True,
    ),
    {
        "d_model": "n_embd",
        "n_layers": "n_layer",
        "n_heads": "n_head",
        "d_ff": "n_inner",
        "tie_embeddings": "tie_word_embeddings",
        "init_std": "initializer_range",
        "norm.eps": "layer_norm_epsilon",
    },
    [
        Rule(r"embedding\.weight", ["transformer.wte.weight"]),
        Rule(r"unembedding\.weight", ["lm_head.weight"]),
        Rule(r"position\.table\.weight", ["transformer.wpe.weight"]),
        Rule(r"norm\.(weight|bias)", [r"transformer.ln_f.\1"]),
        *renamed("transformer.h", attention_norm="ln_1", feed_forward_norm="ln_2"),
        Rule(
            r"blocks\.(\d+)\.attention\.qkv\.(weight|bias)",
            [r"transformer.h.\1.attn.c_attn.\2"],
            _join_conv_qkv,
            _split_conv_qkv,
        ),
        *(
            rule
            for ours, theirs in (
                (r"attention\.out", "attn.c_proj"),
                (r"feed_forward\.up", "mlp.c_fc"),
                (r"feed_forward\.down", "mlp.c_proj"),
            )
            for rule in (
                Rule(
                    rf"blocks\.(\d+)\.{ours}\.weight",
                    [rf"transformer.h.\1.{theirs}.weight"],
                    _transposed,
                    _transposed_back,
                ),
                Rule(rf"blocks\.(\d+)\.{ours}\.bias", [rf"transformer.h.\1.{theirs}.bias"]),
            )
        ),
    ],
    constants={"activation_function": "gelu_new", "scale_attn_weights": True},
    fallback={"n_inner": None, "tie_word_embeddings": True},
    optional_prefix="transformer.",
    positions="n_positions",
)
