"""Which of our configs is which of Hugging Face's architectures: the one file that knows both vocabularies.

A family is a base config of ours, the fields of it that are keys of ``config.json``, and rules that rename
our tensors. Reading and writing use the same lines in both directions.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llm.config import find

Config = dict[str, Any]


# ----------------------------------------------------------------------------- tensors


@dataclass(frozen=True)
class Rule:
    """Our tensors' names by pattern, theirs by replacement, and how to go from one form to the other.

    Attributes:
        ours: a regular expression for the whole name.
        theirs: one or more names, with groups of `ours` as ``\\1``.
        join: from their tensors and our config to our tensor.
        split: back.
    """

    ours: str
    theirs: Sequence[str]
    join: Callable[[Sequence[Tensor], Config], Tensor] = lambda parts, _: parts[0]
    split: Callable[[Tensor, Config], Sequence[Tensor]] = lambda tensor, _: [tensor]

    def names(self, ours: str) -> list[str] | None:
        """Their names of our tensor; None when this rule is not about it."""
        match = re.fullmatch(self.ours, ours)
        return [match.expand(name) for name in self.theirs] if match else None


def _groups(config: Config) -> int:
    return int(config.get("n_kv_heads") or config["n_heads"])


def _unflat(tensor: Tensor, *sizes: int) -> Tensor:
    """The rows as so many groups (of so many groups) of rows."""
    return tensor.reshape(*sizes, -1, *tensor.shape[1:])


def _join_qkv(parts: Sequence[Tensor], config: Config) -> Tensor:
    """Queries, keys, values as one matrix ordered by key-value head (see `MultiHeadAttention`)."""
    return torch.cat([_unflat(part, _groups(config)) for part in parts], 1).flatten(0, 1)


def _split_qkv(tensor: Tensor, config: Config) -> Sequence[Tensor]:
    queries_per_kv = config["n_heads"] // _groups(config)
    groups = _unflat(tensor, _groups(config), queries_per_kv + 2)
    return [part.flatten(0, 2).contiguous() for part in torch.split(groups, [queries_per_kv, 1, 1], 1)]


def _join_conv_qkv(parts: Sequence[Tensor], config: Config) -> Tensor:
    """GPT-2 stores all queries, all keys, all values, and matrices transposed."""
    return _join_qkv(parts[0].T.chunk(3) if parts[0].ndim == 2 else parts[0].chunk(3), config)


def _split_conv_qkv(tensor: Tensor, config: Config) -> Sequence[Tensor]:
    joined = torch.cat(list(_split_qkv(tensor, config)))
    return [joined.T.contiguous() if joined.ndim == 2 else joined]


def _transposed(parts: Sequence[Tensor], _: Config) -> Tensor:
    return parts[0].T.contiguous()


def _transposed_back(tensor: Tensor, _: Config) -> Sequence[Tensor]:
    return [tensor.T.contiguous()]


def _pairs_to_halves(rows: Tensor) -> Tensor:
    """Rows x0 y0 x1 y1 ... as x0 x1 ... y0 y1 ...: interleaved rotary pairs as halves, dim -2."""
    return rows.view(*rows.shape[:-2], -1, 2, rows.shape[-1]).transpose(-2, -3).flatten(-3, -2)


def _halves_to_pairs(rows: Tensor) -> Tensor:
    return rows.view(*rows.shape[:-2], 2, -1, rows.shape[-1]).transpose(-2, -3).flatten(-3, -2)


def _turned_part(change: Callable[[Tensor], Tensor], *, per_head: bool) -> Callable[[Tensor, Config], Tensor]:
    """Changes the rotated rows at the end of each head, or of the whole matrix."""

    def changed(tensor: Tensor, config: Config) -> Tensor:
        attention = config["attention"]
        heads = _unflat(tensor, config["n_heads"] if per_head else 1)
        width = attention["rotary_dim"]
        plain, turned = torch.split(heads, [heads.shape[1] - width, width], 1)
        return torch.cat((plain, change(turned.contiguous())), 1).flatten(0, 1)

    return changed


def _interleaved(ours: str, theirs: str, *, per_head: bool) -> Rule:
    to_ours = _turned_part(_pairs_to_halves, per_head=per_head)
    to_theirs = _turned_part(_halves_to_pairs, per_head=per_head)
    return Rule(ours, [theirs], lambda p, c: to_ours(p[0], c), lambda t, c: [to_theirs(t, c)])


def _qkv(theirs: str, parameter: str = "weight|bias") -> Rule:
    names = [theirs.replace("*", letter) for letter in "qkv"]
    return Rule(rf"blocks\.(\d+)\.attention\.qkv\.({parameter})", names, _join_qkv, _split_qkv)


def _renamed(prefix: str, **names: str) -> list[Rule]:
    """``blocks.N.OURS.PARAMETER`` is ``PREFIX.N.THEIRS.PARAMETER``."""
    return [
        Rule(rf"blocks\.(\d+)\.{ours.replace('__', '[.]')}\.(weight|bias)", [rf"{prefix}.\1.{theirs}.\2"])
        for ours, theirs in names.items()
    ]


_HEAD = [
    Rule(r"embedding\.weight", ["model.embed_tokens.weight"]),
    Rule(r"unembedding\.weight", ["lm_head.weight"]),
    Rule(r"norm\.weight", ["model.norm.weight"]),
]
_GATED = {
    "feed_forward__gate": "mlp.gate_proj",
    "feed_forward__up": "mlp.up_proj",
    "feed_forward__down": "mlp.down_proj",
}
_ATTENTION = {
    "attention__out": "self_attn.o_proj",
    "attention__q_norm": "self_attn.q_norm",
    "attention__k_norm": "self_attn.k_norm",
}
_PRE_NORMS = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
_LLAMA_QKV = _qkv(r"model.layers.\1.self_attn.*_proj.\2")
_LLAMA = [*_HEAD, _LLAMA_QKV, *_renamed("model.layers", **_ATTENTION, **_GATED, **_PRE_NORMS)]


# ----------------------------------------------------------------------------- configs


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        model_type: theirs, as in ``config.json``.
        architecture: their class.
        base: our config with everything that is not a field.
        fields: where a value stands in ours, and its key in theirs.
        constants: keys of theirs that must have these values.
        rules: for the tensors.
        fallback: values of theirs where ``config.json`` says nothing.
        optional_prefix: of their names, which some files leave out.
    """

    model_type: str
    architecture: str
    base: Config
    fields: Mapping[str, str]
    rules: Sequence[Rule]
    constants: Mapping[str, Any] = field(default_factory=dict)
    fallback: Mapping[str, Any] = field(default_factory=dict)
    optional_prefix: str = ""
    positions: str = "max_position_embeddings"


def _part(target: str, **arguments: Any) -> Config:
    return {"_target_": f"llm.models.{target}", "_partial_": True, **arguments}


def _decoder(attention: Config, feed_forward: Config, position: Config, norm: Config, **more: Any) -> Config:
    return _part(
        "decoder.Decoder",
        attention=attention,
        feed_forward=feed_forward,
        position=position,
        norm=norm,
        **{"bias": False, "tie_embeddings": False, **more},
    )


_MULTI_HEAD = "attention.multi_head.MultiHeadAttention"
_GATED_MLP = "feed_forward.gated.GatedMLP"
_ROTARY = "positions.RotaryPosition"
_RMS = "norms.RMSNorm"

_SIZES = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "tie_embeddings": "tie_word_embeddings",
    "init_std": "initializer_range",
}
_GROUPED = {**_SIZES, "n_kv_heads": "num_key_value_heads", "head_dim": "head_dim"}
_ROPE = {"position.theta": "rope_theta", "position.scaling": "rope_scaling"}
_LLAMA_FIELDS = {**_GROUPED, **_ROPE, "norm.eps": "rms_norm_eps"}
_UNBIASED = {"hidden_act": "silu", "attention_bias": False}


def _llama_like(attention: Config | None = None, norm: Config | None = None, **more: Any) -> Config:
    return _decoder(
        _part(_MULTI_HEAD, **(attention or {})),
        more.pop("feed_forward", _part(_GATED_MLP)),
        _part(_ROTARY),
        _part(_RMS, **(norm or {})),
        **more,
    )


def _read_scaling(value: Mapping[str, Any] | None, config: Mapping[str, Any]) -> Config | None:
    """Hugging Face's ``rope_scaling`` as one of `llm.models.rope_scaling`.

    Raises:
        KeyError: a kind that is not there.
    """
    kind = (value or {}).get("rope_type", (value or {}).get("type", "default"))
    if value is None or kind == "default":
        return None
    name, keys = _SCALINGS[kind]
    node = _part(f"rope_scaling.{name}")
    for ours, theirs in keys.items():
        if value.get(theirs) is not None:
            node[ours] = value[theirs]
    if "original_seq_len" in keys and "original_seq_len" not in node:
        node["original_seq_len"] = config["max_position_embeddings"]
    return node


def _write_scaling(node: Config | None) -> Config | None:
    if node is None:
        return None
    name = node["_target_"].rpartition(".")[2]
    kind, (_, keys) = next((k, v) for k, v in _SCALINGS.items() if v[0] == name)
    written = {theirs: node[ours] for ours, theirs in keys.items() if node.get(ours) is not None}
    return {"rope_type": kind, **written}


_ORIGINAL = {"original_seq_len": "original_max_position_embeddings"}
_SCALINGS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "linear": ("linear", {"factor": "factor"}),
    "dynamic": ("ntk", {"factor": "factor", **_ORIGINAL}),
    "llama3": (
        "llama3",
        {
            "factor": "factor",
            "low_frequency_factor": "low_freq_factor",
            "high_frequency_factor": "high_freq_factor",
            **_ORIGINAL,
        },
    ),
    "yarn": (
        "yarn",
        {
            "factor": "factor",
            "beta_fast": "beta_fast",
            "beta_slow": "beta_slow",
            "attention_factor": "attention_factor",
            **_ORIGINAL,
        },
    ),
}

_QK_NORM = {"qk_norm": _part(_RMS)}
_QK_FIELDS = {"attention.qk_norm.eps": "rms_norm_eps"}

FAMILIES: tuple[Family, ...] = (
    Family(
        "gpt2",
        "GPT2LMHeadModel",
        _decoder(
            _part(_MULTI_HEAD),
            _part("feed_forward.mlp.MLP", activation="gelu_tanh"),
            _part("positions.LearnedPosition"),
            _part("norms.LayerNorm"),
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
            *_renamed("transformer.h", attention_norm="ln_1", feed_forward_norm="ln_2"),
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
    ),
    Family(
        "gpt_neox",
        "GPTNeoXForCausalLM",
        _decoder(
            _part(_MULTI_HEAD),
            _part("feed_forward.mlp.MLP", activation="gelu"),
            _part(_ROTARY),
            _part("norms.LayerNorm"),
            bias=True,
        ),
        {
            **_SIZES,
            **_ROPE,
            "position.rotary_fraction": "partial_rotary_factor",
            "parallel_blocks": "use_parallel_residual",
            "norm.eps": "layer_norm_eps",
        },
        [
            Rule(r"embedding\.weight", ["gpt_neox.embed_in.weight"]),
            Rule(r"unembedding\.weight", ["embed_out.weight"]),
            Rule(r"norm\.(weight|bias)", [r"gpt_neox.final_layer_norm.\1"]),
            *_renamed(
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
    ),
    Family(
        "llama", "LlamaForCausalLM", _llama_like(), _LLAMA_FIELDS, _LLAMA, {**_UNBIASED, "mlp_bias": False}
    ),
    Family(
        "mistral",
        "MistralForCausalLM",
        _llama_like(),
        {**_LLAMA_FIELDS, "attention.window": "sliding_window"},
        _LLAMA,
        {"hidden_act": "silu"},
        fallback={"sliding_window": 4096},
    ),
    Family(
        "qwen3",
        "Qwen3ForCausalLM",
        _llama_like(_QK_NORM),
        {**_LLAMA_FIELDS, **_QK_FIELDS},
        _LLAMA,
        {**_UNBIASED, "use_sliding_window": False},
    ),
    Family(
        "olmo2",
        "Olmo2ForCausalLM",
        _llama_like({**_QK_NORM, "qk_norm_over": "all"}, norm_placement="output"),
        {**{k: v for k, v in _LLAMA_FIELDS.items() if k != "head_dim"}, **_QK_FIELDS},
        [
            *_HEAD,
            _LLAMA_QKV,
            *_renamed(
                "model.layers",
                **_ATTENTION,
                **_GATED,
                attention_norm="post_attention_layernorm",
                feed_forward_norm="post_feedforward_layernorm",
            ),
        ],
        _UNBIASED,
    ),
    Family(
        "gemma2",
        "Gemma2ForCausalLM",
        _llama_like(
            {"full_every": 2},
            {"centred": True},
            feed_forward=_part(_GATED_MLP, activation="gelu_tanh"),
            norm_placement="sandwich",
            scale_embeddings=True,
            tie_embeddings=True,
        ),
        {
            **_LLAMA_FIELDS,
            "attention.window": "sliding_window",
            "attention.soft_cap": "attn_logit_softcapping",
            "attention.scale": "query_pre_attn_scalar",
            "logit_soft_cap": "final_logit_softcapping",
        },
        [
            *_HEAD,
            _LLAMA_QKV,
            *_renamed(
                "model.layers",
                **_ATTENTION,
                **_GATED,
                attention_norm="input_layernorm",
                attention_output_norm="post_attention_layernorm",
                feed_forward_norm="pre_feedforward_layernorm",
                feed_forward_output_norm="post_feedforward_layernorm",
            ),
        ],
        {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
        fallback={"tie_word_embeddings": True},
    ),
    Family(
        "mixtral",
        "MixtralForCausalLM",
        _llama_like(feed_forward=_part("feed_forward.experts.MixtureOfExperts", expert=_part(_GATED_MLP))),
        {
            **_LLAMA_FIELDS,
            "attention.window": "sliding_window",
            "feed_forward.n_experts": "num_local_experts",
            "feed_forward.n_active": "num_experts_per_tok",
        },
        [
            *_LLAMA,
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
    ),
    Family(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        _decoder(
            _part("attention.latent.LatentAttention", norm=_part(_RMS, eps=1e-6)),
            _part("feed_forward.experts.MixtureOfExperts", expert=_part(_GATED_MLP), gate="sigmoid"),
            _part(_ROTARY),
            _part(_RMS),
        ),
        {
            **_SIZES,
            **_ROPE,
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
            *_HEAD,
            *_renamed(
                "model.layers",
                **_PRE_NORMS,
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
        {**_UNBIASED, "rope_interleave": True},
        fallback={"head_dim": None},
    ),
)


def family_of(model_type: str) -> Family | None:
    """The family of a ``config.json``'s `model_type`."""
    return next((family for family in FAMILIES if family.model_type == model_type), None)


# ----------------------------------------------------------------------------- there and back


def read_config(family: Family, theirs: Mapping[str, Any]) -> Config:
    """Our model config for a ``config.json``. Values that `family` does not know are not looked at."""
    rope = dict(theirs.get("rope_parameters") or {})
    known = {**family.fallback, "rope_scaling": rope or None, **rope, **theirs}
    config = copy.deepcopy(family.base)
    for path, key in family.fields.items():
        if key == "rope_scaling":
            value: Any = _read_scaling(known.get(key), known)
        elif key == "query_pre_attn_scalar":
            value = known[key] ** -0.5
        elif key in known:
            value = known[key]
        else:
            continue
        node = config
        *parents, leaf = path.split(".")
        for name in parents:
            node = node[name]
        node[leaf] = value
    return config


def write_config(family: Family, ours: Config, *, vocab_size: int, max_seq_len: int) -> Config:
    """The ``config.json`` of our model config, which `family` fits."""
    complete = with_defaults(ours)
    written: Config = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "vocab_size": vocab_size,
        family.positions: max_seq_len,
        **family.constants,
    }
    for path, key in family.fields.items():
        value: Any = complete
        for name in path.split("."):
            value = value[name]
        if key == "rope_scaling":
            value = _write_scaling(value)
        elif key == "query_pre_attn_scalar":
            value = (
                round(value**-2)
                if value
                else complete["head_dim"] or complete["d_model"] // complete["n_heads"]
            )
        written[key] = value
    return written


def fits(family: Family, ours: Config) -> list[str]:
    """Paths of our config that keep it from being one of `family`; empty when it is one."""
    config, base = dict(_flat(with_defaults(ours))), dict(_flat(with_defaults(family.base)))
    loose = (*family.fields, "dropout", "max_seq_len", "vocab_size")

    def is_loose(path: str) -> bool:
        return any(path == one or path.startswith(f"{one}.") for one in loose)

    return [
        path
        for path in dict.fromkeys([*config, *base])
        if not is_loose(path) and config.get(path, "absent") != base.get(path, "absent")
    ]


def with_defaults(node: Any) -> Any:
    """A config in which every argument that is left to its default is written out."""
    if not isinstance(node, Mapping):
        return node
    complete = {name: with_defaults(value) for name, value in node.items()}
    if "_target_" in node:
        for name, parameter in inspect.signature(find(node["_target_"])).parameters.items():
            if parameter.default is not parameter.empty:
                complete.setdefault(name, parameter.default)
    return complete


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _flat(value, f"{path}.{name}".lstrip("."))
    else:
        yield path, node
