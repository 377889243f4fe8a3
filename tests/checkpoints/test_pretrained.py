"""Models from anywhere: what a path or a name on the Hub may mean."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from huggingface_hub import constants

from llm.checkpoints.pretrained import HUB, Pretrained, load, locate
from llm.types import Batch, ConfigError


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA of transformers with a byte-level tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("pretrained") / "llama"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=32, max_position_embeddings=64, bos_token_id=None, eos_token_id=256,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    bytes_ = tokenizers.Tokenizer(tokenizers.models.BPE({c: n for n, c in enumerate(alphabet)}, []))
    bytes_.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_.decoder = tokenizers.decoders.ByteLevel()
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=bytes_, eos_token="<end>")
    theirs.chat_template = "{% for m in messages %}{{ m['content'] }}<end>{% endfor %}"
    theirs.save_pretrained(folder)
    return folder


def test_a_directory_of_transformers(directory: Path) -> None:
    model, tokenizer, info = load(directory)
    assert (model.vocab_size, model.max_seq_len) == (300, 64)
    assert tokenizer.eos_id == 256
    assert info["chat"] is True
    assert info["path"] == directory


def test_the_hub_comes_from_its_cache(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "models--someone--small"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(directory, place / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    here = load(directory).model
    for there in (Pretrained(hub="someone/small").load().model, load(f"{HUB}someone/small").model):
        assert torch.equal(here(Batch(torch.arange(9)[None])), there(Batch(torch.arange(9)[None])))
    with pytest.raises(ConfigError, match=r"hub=someone/large: is not in the cache, and the Hub cannot be"):
        Pretrained(hub="someone/large").load()
    with pytest.raises(ConfigError, match=r"hub=a/b/c: is no name of a repository"):
        Pretrained(hub="a/b/c").load()


def test_the_fingerprint_is_of_the_weights(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "copy")
    digest = Pretrained(path=str(directory)).fingerprint()
    assert Pretrained(path=str(tmp_path / "copy")).fingerprint() == digest
    transformers.LlamaForCausalLM.from_pretrained(directory).to(torch.bfloat16).save_pretrained(
        tmp_path / "copy"
    )
    assert Pretrained(path=str(tmp_path / "copy")).fingerprint() != digest


def test_longer_sequences_and_an_adapter(directory: Path) -> None:
    model, _, info = Pretrained(path=str(directory), max_seq_len=16).load()
    assert model.max_seq_len == 16
    assert "config" in info


def test_a_vocabulary_larger_than_the_models(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "copy")
    config = transformers.LlamaConfig.from_pretrained(directory)
    config.vocab_size = 200
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "copy")
    with pytest.raises(ConfigError, match="its tokenizer has 257 ids, the model 200: they do not belong"):
        load(tmp_path / "copy")


def test_a_directory_without_a_tokenizer(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "copy", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ConfigError, match=r"the model is whole, its tokenizer is not: .*tokenizer.json"):
        load(tmp_path / "copy")


def test_one_place_to_load_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which model"):
        Pretrained()
    with pytest.raises(ConfigError, match="give one of them"):
        Pretrained(path="a", hub="b/c")
    with pytest.raises(ConfigError, match="no such directory"):
        locate(tmp_path / "nowhere")
