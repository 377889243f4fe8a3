"""GGUF files against transformers: the model a file was made from, and transformers' own reading of it."""

from __future__ import annotations

import functools
import gzip
import re
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from torch import nn

from llm.checkpoints.gguf import _opened, load_gguf
from llm.tokenizers.template import JinjaTemplate, template_for
from llm.types import Batch, ConfigError, Message

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BYTES = [*map(chr, range(33, 127)), *map(chr, range(161, 173)), *map(chr, range(174, 256))]
TOKENS = [*SPECIAL, *BYTES, *(chr(256 + n) for n in range(68)), "he", "ll"]
VOCAB_SIZE = len(TOKENS)
SMALL = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "intermediate_size": 80, "max_position_embeddings": 96, "head_dim": 8,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
ROPE = {"rope_theta": 5000.0}
YARN = {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 32}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**SMALL, "rope_parameters": ROPE}),
    "llama, tied": ("llama", {**SMALL, "tie_word_embeddings": True}),
    "llama, yarn": ("llama", {**SMALL, "rope_parameters": {**ROPE, **YARN}}),
    "llama, llama3": ("llama", {**SMALL, "max_position_embeddings": 16384, "rope_parameters":
                                {**LLAMA3, "rope_theta": 5e5, "original_max_position_embeddings": 8192}}),
    "llama, experts": ("mixtral", {**SMALL, "num_local_experts": 3, "sliding_window": None}),
    "qwen3": ("qwen3", {**SMALL, "head_dim": 16}),
    "gemma2": ("gemma2", {**SMALL, "head_dim": 16, "sliding_window": 7, "query_pre_attn_scalar": 16}),
    "olmo2": ("olmo2", {key: value for key, value in SMALL.items() if key != "head_dim"}),
    "gpt2": ("gpt2", {"vocab_size": VOCAB_SIZE, "n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 96}),
}  # fmt: skip


# ----------------------------------------------------------------------------- files for the tests


def reference(name: str) -> nn.Module:
    """A random model of transformers, its norms and biases too."""
    kind, sizes = CONFIGS[name]
    config = transformers.AutoConfig.for_model(kind, **sizes)
    config._attn_implementation = "eager" if kind == "gemma2" else "sdpa"  # sdpa has no soft cap
    torch.manual_seed(0)
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def as_converted(kind: str, config: Any, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """What llama.cpp's converter does to a tensor."""
    if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        return tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
    if kind == "gemma2" and name.endswith("norm.weight"):
        return tensor + 1
    if kind == "gpt2" and name.endswith(("attn.weight", "proj.weight", "fc.weight")):
        return tensor.T
    return tensor


def write_metadata(writer: Any, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    if config.model_type == "mixtral":
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if config.model_type == "gemma2":
        writer.add_sliding_window(config.sliding_window)
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def write_tokenizer(writer: Any, tokens: Sequence[str] = TOKENS) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["h e", "l l"])
    writer.add_eos_token_id(0)


def converted(theirs: Any) -> dict[str, np.ndarray]:
    """The tensors of a model by llama.cpp's names, which its own table of names gives."""
    config, kind = theirs.config, theirs.config.model_type
    arch = "llama" if kind == "mixtral" else kind
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == arch)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    tensors = {}
    for name, tensor in theirs.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        plain = as_converted(arch, config, name, tensor).contiguous().numpy()
        if name.endswith("experts.gate_up_proj"):
            block = name.split(".")[2]
            half = plain.shape[1] // 2
            tensors[f"blk.{block}.ffn_gate_exps.weight"] = np.ascontiguousarray(plain[:, :half])
            tensors[f"blk.{block}.ffn_up_exps.weight"] = np.ascontiguousarray(plain[:, half:])
        elif name.endswith("experts.down_proj"):
            tensors[f"blk.{name.split('.')[2]}.ffn_down_exps.weight"] = plain
        elif name.endswith("mlp.gate.weight"):
            tensors[f"blk.{name.split('.')[2]}.ffn_gate_inp.weight"] = plain
        else:
            stem, _, parameter = name.rpartition(".")
            tensors[f"{names.get_name(stem)}.{parameter}"] = plain
    return tensors


Change = Callable[[Any, dict[str, np.ndarray]], None]


def write(
    theirs: Any,
    file: Path,
    *,
    arch: str | None = None,
    change: Change = lambda writer, tensors: None,
    tokens: Sequence[str] = TOKENS,
    types: dict[str, tuple[np.ndarray, Any]] | None = None,
) -> Path:
    config, kind = theirs.config, theirs.config.model_type
    writer = gguf.GGUFWriter(file, arch or ("llama" if kind == "mixtral" else kind))
    write_metadata(writer, config)
    write_tokenizer(writer, tokens)
    tensors = converted(theirs)
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "llama3":
        width = config.head_dim
        plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, width, 2).double() / width)
        tensors["rope_freqs.weight"] = (plain / theirs.model.rotary_emb.inv_freq).float().numpy()
    change(writer, tensors)
    for name, tensor in tensors.items():
        quantised, kind_of = (types or {}).get(name, (tensor, None))
        writer.add_tensor(name, quantised, raw_dtype=kind_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def llama() -> nn.Module:
    return reference("llama")


def ids(n: int = 40) -> torch.Tensor:
    return torch.randint(3, VOCAB_SIZE, (2, n), generator=torch.Generator().manual_seed(1))


# ----------------------------------------------------------------------------- models


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_logits_are_those_of_the_model_it_was_made_from(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    ours, tokenizer, facts = load_gguf(write(theirs, tmp_path / "model.gguf"))
    torch.testing.assert_close(ours(Batch(ids())), theirs(ids()).logits, rtol=0, atol=2e-5)
    assert facts["architecture"] == ("llama" if "llama" in name else name)
    assert facts["n_parameters"] == sum(p.numel() for p in theirs.parameters())
    assert facts["max_seq_len"] == theirs.config.max_position_embeddings
    assert tokenizer.vocab_size == VOCAB_SIZE
    assert not facts["chat"]


@torch.no_grad()
def test_logits_are_those_of_transformers_reading_the_same_file(llama: nn.Module, tmp_path: Path) -> None:
    file = write(llama, tmp_path / "model.gguf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name).eval()
    ours, _, _ = load_gguf(tmp_path)  # the only one in its directory
    torch.testing.assert_close(ours(Batch(ids())), theirs(ids()).logits, rtol=0, atol=1e-5)


def test_a_shorter_context_another_type_and_the_bytes_read(llama: nn.Module, tmp_path: Path) -> None:
    file, told = write(llama, tmp_path / "model.gguf"), []
    model, _, _ = load_gguf(
        file, max_seq_len=20, dtype=torch.bfloat16, on_bytes=lambda *now: told.append(now)
    )
    assert model.max_seq_len == 20
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}


# ----------------------------------------------------------------------------- quantised tensors

WIDE = {**SMALL, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "head_dim": 32,
        "num_attention_heads": 8}  # fmt: skip
DOWN = "blk.0.ffn_down.weight"
SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where a block's numbers of 16 bits lie; its other bytes may be anything."""


def blocks(name: str, shape: tuple[int, int]) -> np.ndarray:
    """Random blocks of a K-quantisation."""
    kind = gguf.GGMLQuantizationType[name]
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(0)
    made = random.integers(0, 256, (shape[0] * shape[1] // per_block, size), dtype=np.uint8)
    for place in SCALES[name]:
        scale = random.uniform(0.001, 0.1, (len(made), 1)).astype(np.float16)
        made[:, place : place + 2] = scale.view(np.uint8)
    return made.reshape(shape[0], -1)


@pytest.fixture(scope="module")
def wide() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("llama", **WIDE)
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    return model


@pytest.mark.parametrize(
    "name", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", *SCALES]
)  # fmt: skip
def test_each_quantisation_is_expanded(name: str, wide: nn.Module, tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType[name]
    weight = wide.model.layers[0].mlp.down_proj.weight.detach().numpy()
    quantised = blocks(name, weight.shape) if name in SCALES else gguf.quantize(weight, kind)
    file = write(wide, tmp_path / "model.gguf", types={DOWN: (quantised, kind)})
    model, _, facts = load_gguf(file)
    found = model.blocks[0].feed_forward.down.weight.detach()
    assert facts["quantisation"][name] == 1
    expected = torch.from_numpy(gguf.dequantize(quantised, kind).reshape(weight.shape))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    if name in SCALES:  # a second opinion, for nothing was quantised here
        second = pytest.importorskip("transformers.integrations.gguf.dequant").dequantize
        flat = second(torch.from_numpy(quantised).flatten(), int(kind))
        torch.testing.assert_close(found, flat.view(weight.shape), rtol=1e-5, atol=1e-5)
    else:
        step = {"F16": 1e-4, "BF16": 1e-3, "Q8_0": 1e-3}.get(name, 0.01)
        torch.testing.assert_close(found, torch.from_numpy(weight), rtol=0, atol=step)


# ----------------------------------------------------------------------------- mistakes


def refused(file: Path | str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_gguf(file, key="gguf_file", **options)
    assert caught.value.key == "gguf_file"
    assert caught.value.value == file
    assert "\n" not in str(caught.value)
    return caught.value.mend


def drop(name: str) -> Change:
    return lambda writer, tensors: tensors.pop(name)


def add(name: str, *shape: int) -> Change:
    return lambda writer, tensors: tensors.update({name: np.zeros(shape, dtype=np.float32)})


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        (drop("blk.1.ffn_up.weight"), r"blk\.1\.ffn_up\.weight is missing .*llama\.block_count|number of"),
        (drop("output_norm.weight"), r"output_norm\.weight is missing"),
        (drop("token_embd.weight"), r"token_embd\.weight is missing"),
        (add("blk.1.attn_q.bias", 48), r"blk\.1\.attn_q\.bias is unexpected"),
        (add("vision.weight", 3), r"vision\.weight is unexpected"),
        (
            add("blk.0.ffn_up.weight", 81, 48),
            r"blk\.0\.ffn_up\.weight make \[81, 48\] in place of",
        ),
        (add("blk.0.attn_q.weight", 47, 48), r"blk\.0\.attn_q\.weight"),
        (lambda writer, tensors: writer.add_uint16("split.count", 3), "is one of 3 parts"),
        (lambda writer, tensors: writer.add_string("llama.rope.scaling.type", "longrope"), "by longrope"),
        (add("rope_freqs.weight", 4), "not Llama 3's"),
    ],
)
def test_a_file_that_does_not_fit(change: Change, mend: str, llama: nn.Module, tmp_path: Path) -> None:
    assert re.search(mend, refused(write(llama, tmp_path / "model.gguf", change=change)))


def test_an_unknown_architecture(llama: nn.Module, tmp_path: Path) -> None:
    told = refused(write(llama, tmp_path / "model.gguf", arch="gemma3"))
    assert "gemma3, which is not supported; did you mean gemma2?" in told
    assert "supported: llama" in told


def test_a_tokenizer_of_another_size(llama: nn.Module, tmp_path: Path) -> None:
    told = refused(write(llama, tmp_path / "model.gguf", tokens=[*TOKENS, "more"]))
    assert f"its tokenizer has {VOCAB_SIZE + 1} ids and its model {VOCAB_SIZE}" in told


def test_an_unknown_quantisation(llama: nn.Module, tmp_path: Path) -> None:
    file = write(llama, tmp_path / "model.gguf")
    content = bytearray(file.read_bytes())
    place = content.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8
    assert struct.unpack_from("<I", content, place)[0] == gguf.GGMLQuantizationType.F32
    struct.pack_into("<I", content, place, 99)
    file.write_bytes(content)
    assert "unknown quantisation, number 99;" in refused(file)
    whole = {"output_norm.weight": (np.zeros(48, dtype=np.int64), gguf.GGMLQuantizationType.I64)}
    assert "is quantised as I64" in refused(write(llama, tmp_path / "other.gguf", types=whole))


def test_a_file_cut_short_anywhere(llama: nn.Module, tmp_path: Path) -> None:
    content = write(llama, tmp_path / "model.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [4, 20, 60, 300, 2000, 9000, len(content) // 2, len(content) - 40]:
        cut.write_bytes(content[:size])
        assert "is damaged or cut short" in refused(cut), size


def test_what_is_no_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(b"\x80\x04pickle")
    assert "does not begin with GGUF" in refused(tmp_path / "a.gguf")
    assert "No such file" in refused(tmp_path / "b.gguf")
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    assert "2 GGUF files" in refused(tmp_path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install 'llm-experiments[gguf]'" in refused(tmp_path / "b.gguf")


# ----------------------------------------------------------------------------- a real one

REAL = "SmolLM2-135M-Instruct.Q4_1.gguf"
TRICKS = [
    "Hello world, it's I'LL we're 'tis\n\n\n  lead  trail  \t\n",
    "def f(x):\n    return x**2  # ünïcode\n\n\tif x:\n",
    "日本語 中文 русский العربية 👩‍👩‍👧 é e\u0301 \u00a0 x",
    "1,234.5 is 12345, (2023-01-01) ² Ⅷ",
]


@pytest.fixture(scope="module")
def real(shared_dir: Path) -> tuple[Path, nn.Module, Any, dict[str, Any]]:
    file = shared_dir / "models" / REAL
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    return file, *load_gguf(file)


@pytest.mark.slow
@torch.no_grad()
def test_a_real_model_agrees_with_transformers_reading(
    real: tuple[Path, nn.Module, Any, dict[str, Any]],
    shared_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, ours, tokenizer, facts = real
    assert facts["n_parameters"] == 134_515_008
    # transformers takes a minute over the tokenizer, so it reads a copy of the same tensors without one; and
    # it makes the same table of names for each of four hundred modules.
    monkeypatch.setattr(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map))
    reader = _opened(gguf, file, file, "path")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for name, entry in reader.fields.items():
        if name.startswith("llama."):
            writer.add_key_value(name, entry.contents(), entry.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").eval()
    with gzip.open(next((shared_dir / "data" / "wikitext-2").glob("*test*.gz")), "rt") as opened:
        read = torch.tensor([tokenizer.encode(opened.read(3000))[200:328]])
    a, b = (logits.double().log_softmax(-1) for logits in (theirs(read).logits, ours(Batch(read))))
    divergence = (a.exp() * (a - b)).sum(-1).mean()
    assert divergence < 1e-8


@pytest.mark.slow
def test_a_real_tokenizer_agrees_with_transformers_reading(
    real: tuple[Path, nn.Module, Any, dict[str, Any]], shared_dir: Path
) -> None:
    file, _, ours, _ = real
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)
    texts = [*TRICKS, *(p.read_text()[:2000] for p in sorted((shared_dir / "data" / "udhr").iterdir())[:40])]
    # It does not read the file's rule for splitting text, `smollm`: each digit is a word of its own.
    digits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(digits)
    for text in texts:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ours.encode(text)) == text
    assert (ours.eos_id, ours.bos_id, ours.opening_ids) == (theirs.eos_token_id, theirs.bos_token_id, ())
    template = template_for(ours)
    assert isinstance(template, JinjaTemplate)
    assert template.stop_ids == (2, 0)
    turns = (Message("user", "What is 2 + 2?"), Message("assistant", "It is 4."), Message("user", "And 3?"))
    for conversation in (turns, (Message("system", "Be brief."), *turns)):
        messages = [turn._asdict() for turn in conversation]
        want = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        found, mask = template.render(conversation, add_generation_prompt=True)
        assert found == list(want["input_ids"])
        said = [index for index, one in zip(found, mask, strict=True) if one]
        assert ours.decode(said) == "It is 4.<|im_end|>"
