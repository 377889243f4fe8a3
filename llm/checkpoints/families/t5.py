"""T5 as first published: ReLU, and a head that scores with the token embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm.checkpoints.families.base import Family, Field, part
from llm.checkpoints.families.llama import MULTI_HEAD, RMS_NORM
from llm.checkpoints.families.rules import Config, Rule, join_qkv, split_qkv


def encoder_decoder(feed_forward: Config, *, scale_head: bool) -> Config:
    """What both versions have in common."""
    return part(
        "encoder_decoder.EncoderDecoder",
        attention=part(MULTI_HEAD, scale=1.0),
        feed_forward=feed_forward,
        position=part("relative_position.T5Buckets"),
        norm=part(RMS_NORM, eps=1e-6),
        bias=False,
        tie_embeddings=True,
        scale_head=scale_head,
        initialisation=part("t5_initialisation.t5"),
    )


def _start(value: int | None, theirs: Mapping[str, Any]) -> int:
    """What the decoder reads first: padding, unless said otherwise."""
    return int(theirs.get("pad_token_id") or 0) if value is None else value


def _scaled(value: bool | None, theirs: Mapping[str, Any]) -> bool:
    """Whether the head reads a smaller stream: said since transformers 5, before by being tied."""
    return bool(theirs.get("tie_word_embeddings", True)) if value is None else value


def _inner_width(value: int | None, config: Config) -> int:
    if value:
        return value
    multiple = config["feed_forward"].get("multiple_of")
    if multiple is None:
        return int(4 * config["d_model"])
    return int(-(-8 * config["d_model"] // (3 * multiple)) * multiple)


FIELDS: Mapping[str, str | Field] = {
    "d_model": "d_model",
    "n_layers": "num_decoder_layers",
    "n_encoder_layers": Field("num_layers", lambda value, _: value, lambda value, c: value or c["n_layers"]),
    "n_heads": "num_heads",
    "head_dim": Field(
        "d_kv", lambda value, _: value, lambda value, config: value or config["d_model"] // config["n_heads"]
    ),
    "d_ff": Field("d_ff", lambda value, _: value, _inner_width),
    "dropout": "dropout_rate",
    "start_id": Field("decoder_start_token_id", _start, lambda value, _: value),
    "norm.eps": "layer_norm_epsilon",
    "position.n_buckets": "relative_attention_num_buckets",
    "position.max_distance": "relative_attention_max_distance",
    "scale_head": Field("scale_decoder_outputs", _scaled, lambda value, _: value),
    # Read off the file, which has a head of its own or none: transformers 5 writes true for either.
    "tie_embeddings": Field("tie_word_embeddings", lambda *_: True, lambda value, _: value),
}
FALLBACK: Mapping[str, Any] = {
    "decoder_start_token_id": None,
    "scale_decoder_outputs": None,
    "tie_word_embeddings": True,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}
CONSTANTS: Mapping[str, Any] = {"is_encoder_decoder": True}


def rules(**feed_forward: str) -> list[Rule]:
    """Their names of our tensors.

    Args:
        feed_forward: their names of the feed-forward part's matrices, by ours.
    """
    return [*_ends(), *_stack("encoder", "encoder_blocks", feed_forward), *_stack("decoder", "blocks", feed_forward)]


def _ends() -> Iterator[Rule]:
    """What is there once. The first layer keeps a stack's positions."""
    yield Rule(r"embedding\.weight", ["shared.weight"])
    yield Rule(r"unembedding\.weight", ["lm_head.weight"])
    for stack, ours in (("encoder", "encoder_"), ("decoder", "")):
        first = f"{stack}.block.0.layer.0.SelfAttention"
        yield Rule(rf"{ours}position\.table\.weight", [f"{first}.relative_attention_bias.weight"])
        yield Rule(rf"{ours}norm\.weight", [f"{stack}.final_layer_norm.weight"])


def _stack(theirs: str, ours: str, feed_forward: Mapping[str, str]) -> Iterator[Rule]:
    parts = [("attention", "SelfAttention"), ("feed_forward", "DenseReluDense")]
    if theirs == "decoder":
        parts.insert(1, ("cross_attention", "EncDecAttention"))
    for number, (own, other) in enumerate(parts):
        layer = rf"{theirs}.block.\1.layer.{number}"
        yield Rule(rf"{ours}\.(\d+)\.{own}_norm\.weight", [f"{layer}.layer_norm.weight"])
        if own == "feed_forward":
            for matrix, name in feed_forward.items():
                yield Rule(rf"{ours}\.(\d+)\.{own}\.{matrix}\.weight", [f"{layer}.{other}.{name}.weight"])
        else:
            names = [f"{layer}.{other}.{letter}.weight" for letter in "qkv"]
            yield Rule(rf"{ours}\.(\d+)\.{own}\.qkv\.weight", names, join_qkv, split_qkv)
            yield Rule(rf"{ours}\.(\d+)\.{own}\.out\.weight", [f"{layer}.{other}.o.weight"])


FAMILY = Family(
    "t5",
    "T5ForConditionalGeneration",
    encoder_decoder(part("feed_forward.mlp.MLP", activation="relu"), scale_head=True),
    FIELDS,
    rules(up="wi", down="wo"),
    {**CONSTANTS, "feed_forward_proj": "relu"},
    FALLBACK,
    positions="n_positions",
    head_decides=True,
)
