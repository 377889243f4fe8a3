"""Hugging Face's models with the weights of ours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from llm.models.decoder import Decoder
from tests.models.composition import SMALL

Read = Callable[[Callable[[Tensor], Tensor]], Tensor]
Pairs = list[tuple[Tensor, Read]]
"""A parameter of ours, and how to read the same thing (the weight, or its gradient) off the reference."""


def gpt2_reference(model: Decoder) -> tuple[nn.Module, Pairs]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=SMALL["vocab_size"],
        n_positions=SMALL["max_seq_len"],
        n_embd=SMALL["d_model"],
        n_layer=SMALL["n_layers"],
        n_head=SMALL["n_heads"],
        n_inner=model.blocks[0].feed_forward.up.out_features,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    reference = GPT2LMHeadModel(config)
    body, n = reference.transformer, SMALL["n_heads"]
    pairs: Pairs = [
        (model.embedding.weight, _as_is(body.wte.weight)),
        (model.position.table.weight, _as_is(body.wpe.weight)),
        *_norm(model.norm, body.ln_f),
    ]

    def by_head(conv: nn.Module) -> list[tuple[str, Read]]:
        """GPT-2 stores [all queries, all keys, all values], and matrices transposed."""

        def weight(of: Callable[[Tensor], Tensor]) -> Tensor:
            return of(conv.weight).T.unflatten(0, (3, n, -1)).transpose(0, 1).flatten(0, 2)

        def bias(of: Callable[[Tensor], Tensor]) -> Tensor:
            return of(conv.bias).unflatten(0, (3, n, -1)).transpose(0, 1).flatten()

        return [("weight", weight), ("bias", bias)]

    for ours, theirs in zip(model.blocks, body.h, strict=True):
        pairs += _norm(ours.attention_norm, theirs.ln_1) + _norm(ours.feed_forward_norm, theirs.ln_2)
        pairs += [(getattr(ours.attention.qkv, name), read) for name, read in by_head(theirs.attn.c_attn)]
        for linear, conv in (
            (ours.attention.out, theirs.attn.c_proj),
            (ours.feed_forward.up, theirs.mlp.c_fc),
            (ours.feed_forward.down, theirs.mlp.c_proj),
        ):
            pairs += [(linear.weight, _transposed(conv.weight)), (linear.bias, _as_is(conv.bias))]
    return _copied(reference, pairs), pairs


def llama_reference(model: Decoder) -> tuple[nn.Module, Pairs]:
    from transformers import LlamaConfig, LlamaForCausalLM

    attention = model.blocks[0].attention
    config = LlamaConfig(
        vocab_size=SMALL["vocab_size"],
        hidden_size=SMALL["d_model"],
        intermediate_size=model.blocks[0].feed_forward.up.out_features,
        num_hidden_layers=SMALL["n_layers"],
        num_attention_heads=SMALL["n_heads"],
        num_key_value_heads=SMALL["n_heads"] // attention.queries_per_kv,
        max_position_embeddings=SMALL["max_seq_len"],
        rms_norm_eps=1e-5,
        tie_word_embeddings=model.unembedding is None,
    )
    reference = LlamaForCausalLM(config)
    body = reference.model
    pairs: Pairs = [
        (model.embedding.weight, _as_is(body.embed_tokens.weight)),
        (model.norm.weight, _as_is(body.norm.weight)),
    ]
    if model.unembedding is not None:
        pairs.append((model.unembedding.weight, _as_is(reference.lm_head.weight)))

    def by_group(theirs: nn.Module) -> Read:
        projections = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
        groups = SMALL["n_heads"] // attention.queries_per_kv

        def read(of: Callable[[Tensor], Tensor]) -> Tensor:
            return torch.cat([of(p.weight).unflatten(0, (groups, -1)) for p in projections], 1).flatten(0, 1)

        return read

    for ours, theirs in zip(model.blocks, body.layers, strict=True):
        pairs += [
            (ours.attention.qkv.weight, by_group(theirs.self_attn)),
            (ours.attention.out.weight, _as_is(theirs.self_attn.o_proj.weight)),
            (ours.feed_forward.gate.weight, _as_is(theirs.mlp.gate_proj.weight)),
            (ours.feed_forward.up.weight, _as_is(theirs.mlp.up_proj.weight)),
            (ours.feed_forward.down.weight, _as_is(theirs.mlp.down_proj.weight)),
            (ours.attention_norm.weight, _as_is(theirs.input_layernorm.weight)),
            (ours.feed_forward_norm.weight, _as_is(theirs.post_attention_layernorm.weight)),
        ]
    return _copied(reference, pairs), pairs


def _as_is(tensor: Tensor) -> Read:
    return lambda of: of(tensor)


def _transposed(tensor: Tensor) -> Read:
    return lambda of: of(tensor).T


def _norm(ours: nn.Module, theirs: nn.Module) -> Pairs:
    return [(ours.weight, _as_is(theirs.weight)), (ours.bias, _as_is(theirs.bias))]


def _copied(reference: nn.Module, pairs: Pairs) -> nn.Module:
    """The reference keeps its own random weights, norms and biases included, and ours take them over."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        for parameter, read in pairs:
            parameter.copy_(read(lambda tensor: tensor))
    return reference
