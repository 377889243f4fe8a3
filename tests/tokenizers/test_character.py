"""Characters: nanoGPT's vocabulary, and an error that names what is unknown."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from llm.tokenizers import character
from llm.tokenizers.base import Corpus
from llm.types import ConfigError


def test_tinyshakespeare_has_the_65_characters_of_nanogpt(shared_dir: Path) -> None:
    text = gzip.decompress((shared_dir / "data/tinyshakespeare/input.txt.gz").read_bytes()).decode()
    tokenizer = character.train([text])
    # nanoGPT, data/shakespeare_char/prepare.py: stoi = {ch: i for i, ch in enumerate(sorted(set(data)))}
    nanogpt = {ch: i for i, ch in enumerate(sorted(set(text)))}
    assert tokenizer.vocab_size == 65
    assert tokenizer.encode(text[:1000]) == [nanogpt[c] for c in text[:1000]]
    assert tokenizer.encode("\n !zA") == [0, 1, 2, 64, 13]
    assert tokenizer.eos_id is None


def test_special_tokens_follow_the_characters() -> None:
    tokenizer = character.train(["ba"], special_tokens=True)
    assert tokenizer.encode("ab") == [0, 1]
    assert (tokenizer.eos_id, tokenizer.vocab_size) == (2, 5)
    assert tokenizer.decode([0, 2]) == "a<|endoftext|>"


def test_the_vocabulary_is_of_everything() -> None:
    assert character.train(Corpus(sample=["ab"], everything=["ab", "c"])).encode("c") == [2]


def test_an_unknown_character_is_named_with_its_place() -> None:
    tokenizer = character.train(["abc"])
    with pytest.raises(ConfigError, match=r"knows 3 characters.*'é' \(U\+00E9, at 2 in the text\)") as caught:
        tokenizer.encode("abé")
    assert caught.value.key == "tokenizer"


def test_no_text_no_vocabulary() -> None:
    with pytest.raises(ConfigError, match="empty"):
        character.train([""])
