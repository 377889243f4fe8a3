"""Our models against transformers' own, weight for weight: logits, gradients, what they write, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from llm.checkpoints import huggingface
from llm.checkpoints.families.catalogue import families, family_of
from llm.checkpoints.huggingface import load_pretrained, save_pretrained
from llm.models.cache import KVCache
from llm.types import Batch, ConfigError

transformers = pytest.importorskip("transformers")

IDS = {"vocab_size": 97, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
SMALL = {
    **IDS,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "max_position_embeddings": 96,
}
HEADS = {"head_dim": 8}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ORIGINAL = {"original_max_position_embeddings": 32, "rope_theta": 10000.0}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {**IDS, "n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 96}
             | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)),
    "gpt_neox": ("gpt_neox", {**SMALL, "num_attention_heads": 3}),
    "gpt_neox, sequential": ("gpt_neox", {**SMALL, "num_attention_heads": 3, "use_parallel_residual": False}),
    "llama": ("llama", {**SMALL, **HEADS}),
    "llama, tied": ("llama", {**SMALL, **HEADS, "tie_word_embeddings": True}),
    "llama, llama3 scaling": ("llama", {**SMALL, **HEADS, "rope_parameters": {**LLAMA3, **ORIGINAL}}),
    "llama, linear scaling": ("llama", {**SMALL, **HEADS, "rope_parameters":
                              {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
    "llama, yarn": ("llama", {**SMALL, **HEADS, "rope_parameters":
                    {"rope_type": "yarn", "factor": 3.0, **ORIGINAL}}),
    "mistral": ("mistral", {**SMALL, **HEADS, "sliding_window": 7}),
    "qwen3": ("qwen3", {**SMALL, "head_dim": 16}),
    "gemma2": ("gemma2", {**SMALL, "head_dim": 16, "sliding_window": 7, "query_pre_attn_scalar": 20}),
    "olmo2": ("olmo2", SMALL),
    "mixtral": ("mixtral", {**SMALL, "num_local_experts": 4, "sliding_window": 7}),
    "deepseek_v3": ("deepseek_v3", {
        **SMALL,
        "num_key_value_heads": 6,
        "moe_intermediate_size": 32,
        "n_routed_experts": 8,
        "num_experts_per_tok": 3,
        "n_group": 4,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 24,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "qk_nope_head_dim": 10,
    }),
}  # fmt: skip


def reference(name: str) -> nn.Module:
    """A randomly initialised model of transformers, its norms and biases too."""
    kind, sizes = CONFIGS[name]
    config = transformers.AutoConfig.for_model(kind, **sizes)
    config._attn_implementation = "eager" if kind == "gemma2" else "sdpa"  # sdpa has no soft cap
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    model, folder = reference(request.param), tmp_path_factory.mktemp("theirs")
    model.save_pretrained(folder)
    return model, folder


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(2, IDS["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(1))


def test_logits_and_gradients_are_theirs(pair: tuple[nn.Module, Path]) -> None:
    theirs, folder = pair
    ours = load_pretrained(folder)
    batch, targets = tokens(2, 40), tokens(2, 40).roll(1).flatten()
    logits, expected = ours(Batch(batch)), theirs(batch).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    theirs.zero_grad()
    F.cross_entropy(logits.flatten(0, 1), targets).backward()
    F.cross_entropy(expected.flatten(0, 1), targets).backward()
    family = family_of(theirs.config.model_type)
    assert family is not None
    gradients = as_saved({name: parameter.grad for name, parameter in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        rule, names = family.rule(name)
        expected_gradient = rule.join([gradients[n] for n in names], ours.recipe)
        torch.testing.assert_close(parameter.grad, expected_gradient, rtol=0, atol=1e-4)


def as_saved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers keeps a layer's experts as one tensor while it computes, and saves each by itself."""
    found = {}
    for name, tensor in tensors.items():
        layer, is_expert, matrix = name.partition(".mlp.experts.")
        mixtral = not any("kv_a_proj" in one for one in tensors)
        place = f"{layer}.block_sparse_moe" if mixtral else f"{layer}.mlp"
        gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
        if not is_expert:
            name = name.replace("mlp.gate.", "block_sparse_moe.gate.") if mixtral else name
            neox = any(one.startswith("gpt_neox.") for one in tensors)
            found["embed_out.weight" if neox and name == "lm_head.weight" else name] = tensor
        elif matrix == "gate_up_proj":
            for number, halves in enumerate(tensor):
                for part, half in zip((gate, up), halves.chunk(2), strict=True):
                    found[f"{place}.experts.{number}.{part}.weight"] = half
        else:
            for number, one in enumerate(tensor):
                found[f"{place}.experts.{number}.{down}.weight"] = one
    return found


@torch.no_grad()
def test_sixty_four_tokens_are_theirs(pair: tuple[nn.Module, Path]) -> None:
    theirs, folder = pair
    ours, start = load_pretrained(folder), tokens(2, 9)
    theirs.generation_config.eos_token_id = None
    expected = theirs.generate(start, do_sample=False, min_new_tokens=64, max_new_tokens=64)
    cache, written, new = KVCache(80), [start], start
    for _ in range(64):
        new = ours(Batch(new), cache)[:, -1:].argmax(-1)
        written.append(new)
    assert torch.equal(torch.cat(written, 1), expected)


def test_there_and_back_is_bitwise(pair: tuple[nn.Module, Path], tmp_path: Path) -> None:
    theirs, folder = pair
    save_pretrained(load_pretrained(folder), None, tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert again.config.model_type == theirs.config.model_type
    again.set_attn_implementation(theirs.config._attn_implementation)
    with torch.no_grad():
        assert torch.equal(again(tokens(2, 40)).logits, theirs(tokens(2, 40)).logits)


def test_every_family_is_compared() -> None:
    elsewhere = {"t5"}  # an encoder-decoder: tests/checkpoints/test_t5.py
    assert {kind for kind, _ in CONFIGS.values()} | elsewhere == {f.model_type for f in families()}


# ----------------------------------------------------------------------------- what is wrong with a directory


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    reference("llama").save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def mistake(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_pretrained(folder)
    assert caught.value.key == "path"
    return caught.value.mend


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_an_unknown_architecture_names_the_nearest(llama: Path) -> None:
    change(llama, model_type="qwen4")
    assert (
        "architecture qwen4, which is not supported; did you mean qwen3?; supported: deepseek_v3, "
        in mistake(llama)
    )


def test_a_known_architecture_with_an_unknown_variation(llama: Path) -> None:
    change(llama, hidden_act="gelu")
    assert "hidden_act=gelu; of llama, only silu is known" in mistake(llama)
    change(llama, hidden_act="silu", rope_parameters={"rope_type": "longrope"})
    assert "'longrope'" in mistake(llama)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("num_hidden_layers", "two", "num_hidden_layers=two: should be a valid integer"),
        ("num_attention_heads", 0, "num_attention_heads=0: should be greater than 0"),
        ("num_hidden_layers", -1, "num_hidden_layers=-1: should be greater than 0"),
        ("rms_norm_eps", "x", "rms_norm_eps=x: should be a valid number"),
        ("max_position_embeddings", 0, "max_position_embeddings=0: should be greater than 0"),
    ],
)
def test_values_that_no_model_has(llama: Path, name: str, value: object, says: str) -> None:
    change(llama, **{name: value})
    assert f"its config.json has {says}" in mistake(llama)


def test_a_size_that_is_not_said(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    del config["num_attention_heads"]
    (llama / "config.json").write_text(json.dumps(config))
    assert "num_attention_heads=" in mistake(llama)


@pytest.mark.parametrize(
    ("broken", "says"),
    [(torch.full((80, 48), torch.nan), "not finite"), (torch.zeros(80, 48).int(), "torch.int32")],
)
def test_numbers_that_are_no_weights(llama: Path, broken: torch.Tensor, says: str) -> None:
    weights = load_file(llama / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = broken
    save_file(weights, llama / "model.safetensors")
    said = mistake(llama)
    assert "model.layers.1.mlp.up_proj.weight" in said
    assert says in said


def test_others_may_read_what_is_written(llama: Path, tmp_path: Path) -> None:
    save_pretrained(load_pretrained(llama), None, tmp_path / "out")
    modes = {file.name: file.stat().st_mode for file in (tmp_path / "out").iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_tensors_that_do_not_fit_are_all_named(llama: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    weights["model.odd"] = weights.pop("model.norm.weight")
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 48)
    save_file(weights, llama / "model.safetensors")
    said = mistake(llama)
    assert "model.norm.weight is missing" in said
    assert "model.odd is unexpected" in said
    assert (
        "model.layers.1.mlp.up_proj.weight make [3, 48] in place of [80, 48] (see its intermediate_size)"
        in said
    )


def test_a_truncated_file(llama: Path) -> None:
    whole = (llama / "model.safetensors").read_bytes()
    (llama / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors is damaged or missing" in mistake(llama)


def test_a_pickle_is_refused(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    (llama / "pytorch_model.bin").write_bytes(b"anything")
    assert "pytorch_model.bin only, a pickle" in mistake(llama)


def test_what_is_no_model(tmp_path: Path) -> None:
    assert "no such directory" in mistake(tmp_path / "nowhere")
    assert "has no config.json" in mistake(tmp_path)
    (tmp_path / "config.json").write_text("[")
    assert "config.json cannot be read" in mistake(tmp_path)


def test_shards_there_and_back(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "SHARD_BYTES", 60_000)
    save_pretrained(load_pretrained(llama), None, tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("model-*-of-*.safetensors"))) > 1
    with torch.no_grad():
        expected = load_pretrained(llama)(Batch(tokens(1, 9)))
        assert torch.equal(load_pretrained(tmp_path / "shards")(Batch(tokens(1, 9))), expected)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "shards")
        torch.testing.assert_close(theirs(tokens(1, 9)).logits, expected, rtol=0, atol=1e-5)


def test_parts_that_no_architecture_has(llama: Path, tmp_path: Path) -> None:
    model = load_pretrained(llama)
    model.recipe["position"] = {"_target_": "llm.models.positions.AlibiPosition", "_partial_": True}
    with pytest.raises(
        ConfigError, match=r"no architecture of transformers has these parts; llama is nearest"
    ):
        save_pretrained(model, None, tmp_path / "none")
