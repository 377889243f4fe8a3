"""T5 of both versions against transformers' own: logits, gradients, what it writes, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from llm.checkpoints.families.base import fits
from llm.checkpoints.families.catalogue import families, family_of
from llm.checkpoints.huggingface import load_pretrained, save_pretrained
from llm.checkpoints.recipe import recipe_of
from llm.models.cache import KVCache
from llm.types import Batch, ConfigError
from tests.models.composition import load_model

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 97,
    "d_model": 48,
    "d_kv": 10,  # heads are not d_model / n_heads wide
    "d_ff": 80,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 6,
    "dropout_rate": 0.0,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "decoder_start_token_id": 0,
}
VERSIONS: dict[str, dict[str, Any]] = {
    "v1.0": {"feed_forward_proj": "relu"},
    "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def reference(version: str, **changes: Any) -> nn.Module:
    """A randomly initialised model of transformers; v1.1 with a head of its own, as the released ones."""
    torch.manual_seed(0)
    config = transformers.T5Config(**{**SMALL, **VERSIONS[version], **changes})
    model = transformers.T5ForConditionalGeneration(config).eval()
    if version == "v1.1":
        model.lm_head.weight = nn.Parameter(torch.randn(97, 48) * 0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture(scope="module", params=VERSIONS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    model, folder = reference(request.param), tmp_path_factory.mktemp("theirs")
    model.save_pretrained(folder)
    return model, folder


def tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(2, 97, (batch, length), generator=torch.Generator().manual_seed(seed))


PADDING = torch.arange(13) < torch.tensor([13, 7])[:, None]


def test_logits_and_gradients_are_theirs(pair: tuple[nn.Module, Path]) -> None:
    theirs, folder = pair
    ours = load_pretrained(folder)
    source, written, targets = tokens(2, 13), tokens(2, 40, 2), tokens(2, 40, 3).flatten()
    logits = ours(Batch(written, source=source, source_padding=PADDING))
    expected = theirs(source, attention_mask=PADDING.long(), decoder_input_ids=written).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    theirs.zero_grad()
    F.cross_entropy(logits.flatten(0, 1), targets).backward()
    F.cross_entropy(expected.flatten(0, 1), targets).backward()
    family = family_of("t5", theirs.config.to_dict())
    assert family is not None
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        rule, names = family.rule(name)
        expected_gradient = rule.join([gradients[n] for n in names], ours.recipe)
        torch.testing.assert_close(parameter.grad, expected_gradient, rtol=0, atol=1e-4)


@torch.no_grad()
def test_sixty_four_tokens_are_theirs(pair: tuple[nn.Module, Path]) -> None:
    theirs, folder = pair
    ours, source = load_pretrained(folder), tokens(2, 13)
    theirs.generation_config.eos_token_id = None
    expected = theirs.generate(
        source, attention_mask=PADDING.long(), do_sample=False, min_new_tokens=64, max_new_tokens=64
    )
    start = torch.full((2, 1), ours.start_id)
    given = {"source": source, "source_padding": PADDING}
    cache, cached, new = KVCache(65), [start], start
    for step in range(64):
        new = ours(Batch(new, **({} if step else given)), cache)[:, -1:].argmax(-1)
        cached.append(new)
    assert torch.equal(torch.cat(cached, 1), expected)
    whole = ours(Batch(expected[:, :-1], **given)).argmax(-1)  # the same without a cache
    assert torch.equal(whole, expected[:, 1:])


def test_there_and_back_is_bitwise(pair: tuple[nn.Module, Path], tmp_path: Path) -> None:
    theirs, folder = pair
    save_pretrained(load_pretrained(folder), None, tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert again.config.model_type == "t5"
    with torch.no_grad():
        given = {"input_ids": tokens(2, 13), "decoder_input_ids": tokens(2, 9)}
        assert torch.equal(again(**given).logits, theirs(**given).logits)


@pytest.mark.parametrize("version", VERSIONS)
def test_embeddings_are_tied_when_the_file_has_no_other_head(version: str, tmp_path: Path) -> None:
    """Whatever config.json says: transformers 5 always writes true, earlier ones and the released files differ."""
    model = reference(version)
    model.lm_head.weight = model.shared.weight
    model.save_pretrained(tmp_path)
    for tied in (True, False):
        change(tmp_path, tie_word_embeddings=tied)
        ours = load_pretrained(tmp_path)
        assert ours.unembedding is None
        with torch.no_grad():
            expected = model(tokens(2, 13), decoder_input_ids=tokens(2, 9)).logits
            torch.testing.assert_close(
                ours(Batch(tokens(2, 9), source=tokens(2, 13))), expected, rtol=1e-5, atol=1e-5
            )


def test_the_released_files_differ_a_little(tmp_path: Path) -> None:
    """No `feed_forward_proj`, no start, second copies of the embeddings, positions between the stacks."""
    model = reference("v1.0")
    model.save_pretrained(tmp_path)
    gone = ("feed_forward_proj", "decoder_start_token_id", "scale_decoder_outputs", "tie_word_embeddings")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if name not in gone} | {"n_positions": 512})
    )
    weights = load_file(tmp_path / "model.safetensors")
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    weights |= {name: weights["shared.weight"].clone() for name in copies}
    weights["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(8, 6)
    save_file(weights, tmp_path / "model.safetensors")
    ours = load_pretrained(tmp_path)
    assert (ours.start_id, ours.max_seq_len, ours.unembedding) == (0, 512, None)
    with torch.no_grad():
        expected = model(tokens(2, 13), decoder_input_ids=tokens(2, 9)).logits
        torch.testing.assert_close(ours(Batch(tokens(2, 9), source=tokens(2, 13))), expected, rtol=0, atol=1e-5)


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(("preset", "proj"), [("t5", "gated-gelu"), ("t5_v1_0", "relu")])
def test_our_presets_are_t5(preset: str, proj: str, tmp_path: Path) -> None:
    """Also where our config leaves a size to a part's own rule."""
    make = load_model(
        preset, d_model=32, n_layers=1, n_encoder_layers=None, n_heads=2, head_dim=None, d_ff=None
    )
    model: Any = make(vocab_size=61, max_seq_len=20)
    model.init_weights(torch.Generator().manual_seed(0))
    family = save_pretrained(model.eval(), None, tmp_path, recipe=recipe_of(make))
    assert family.constants["feed_forward_proj"] == proj
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        ids, source = tokens(2, 9) % 61, tokens(2, 13) % 61
        expected = theirs(source, decoder_input_ids=ids).logits
        torch.testing.assert_close(model(Batch(ids, source=source)), expected, rtol=0, atol=1e-4)


def test_the_first_transformer_is_no_t5(tmp_path: Path) -> None:
    recipe = recipe_of(load_model("transformer"))
    assert all(fits(family, recipe) for family in families())
    with pytest.raises(ConfigError, match="no architecture of transformers has these parts"):
        save_pretrained(nn.Linear(1, 1), None, tmp_path, recipe=recipe)


def test_an_unknown_feed_forward_part(tmp_path: Path) -> None:
    reference("v1.0").save_pretrained(tmp_path)
    change(tmp_path, feed_forward_proj="gated-silu")
    with pytest.raises(ConfigError, match="feed_forward_proj=gated-silu") as caught:
        load_pretrained(tmp_path)
    assert caught.value.key == "path"
