"""Tokenizers from GGUF metadata against those that transformers builds from the same vocabularies."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import pre_tokenizers

from llm.tokenizers.gguf import RULES, from_metadata
from llm.types import ConfigError

transformers = pytest.importorskip("transformers")

BYTES = [*map(chr, range(33, 127)), *map(chr, range(161, 173)), *map(chr, range(174, 256))]
ALPHABET = [*BYTES, *(chr(256 + n) for n in range(68))]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello", "1 2", "12 3", "Ċ Ċ", "' s", "Ġ Ġ"]
TEXTS = [
    "hello hello's   12345 x\n\n\n hell\r\n",
    "  lead  trail  ",
    "héllo 日本 12,345 I'LL It'S a_b\tc",
    "",
]


def byte_level(rule: str | None = "default", **more: Any) -> dict[str, Any]:
    tokens = ["<|end|>", "<think>", *ALPHABET, *(merge.replace(" ", "") for merge in MERGES)]
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 4] + [1] * (len(tokens) - 2),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.eos_token_id": 0,
    }
    if rule is not None:
        metadata["tokenizer.ggml.pre"] = rule
    return metadata | {f"tokenizer.{key}": value for key, value in more.items()}


WORDS = ["▁", *"helowrd", "▁h", "el", "lo", "▁hel", "▁hello", "ll", "▁▁", "▁w", "or", "ld", "▁world"]


def sentence_piece(architecture: str = "llama", **more: Any) -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *WORDS]
    metadata = {
        "general.architecture": architecture,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [float(-n) for n in range(len(WORDS))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(WORDS),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return metadata | {f"tokenizer.{key}": value for key, value in more.items()}


def theirs_for(metadata: dict[str, Any], rule: str | None) -> Any:
    """A tokenizer of transformers' with the same vocabulary and the same rule."""
    tokens = metadata["tokenizer.ggml.tokens"]
    vocabulary = {token: n for n, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    if rule == "qwen2":
        return transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    theirs = transformers.GPT2Tokenizer(vocab=vocabulary, merges=merges)
    if rule == "smollm":  # as its own tokenizer.json has it
        digits = pre_tokenizers.Digits(individual_digits=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    if rule == "llama-bpe":
        theirs_of_gguf = pytest.importorskip("transformers.integrations.gguf").convert_gguf_tokenizer
        about = {
            "tokenizer_type": "gpt2", "pre_tokenizer_type": rule, "tokens": tokens, "merges": MERGES
        }  # fmt: skip
        theirs._tokenizer, _ = theirs_of_gguf("llama", about)
    return theirs


@pytest.mark.parametrize("rule", [None, "gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_byte_level_ids_are_those_of_transformers(rule: str | None) -> None:
    metadata = byte_level(rule)
    theirs, ours = theirs_for(metadata, rule), from_metadata(metadata)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ours.encode(text)) == text


def test_how_rules_split_digits() -> None:
    found = {
        rule: [
            from_metadata(byte_level(rule)).decode([n])
            for n in from_metadata(byte_level(rule)).encode("1234")
        ]
        for rule in ("gpt-2", "smollm", "llama-bpe", "qwen2")
    }
    assert found == {
        "gpt-2": ["123", "4"],
        "smollm": ["1", "2", "3", "4"],
        "llama-bpe": ["123", "4"],
        "qwen2": ["1", "2", "3", "4"],
    }


def test_special_tokens_are_no_text_and_whole_ones_are() -> None:
    ours = from_metadata(byte_level())
    assert ours.encode("<think>")[:1] == [1]
    assert 0 not in ours.encode("<|end|>")
    assert (ours.eos_id, ours.bos_id, ours.opening_ids, dict(ours.special_ids)) == (
        0,
        None,
        (),
        {"<|end|>": 0},
    )


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_sentence_piece_ids_are_those_of_transformers(architecture: str) -> None:
    metadata = sentence_piece(architecture)
    tokens = metadata["tokenizer.ggml.tokens"]
    vocabulary = {token: n for n, token in enumerate(tokens)}
    scores = dict(zip(tokens, metadata["tokenizer.ggml.scores"], strict=True))
    merges = pytest.importorskip("transformers.tokenization_utils_base").generate_merges(vocabulary, scores)
    maker = transformers.GemmaTokenizer if architecture == "gemma2" else transformers.LlamaTokenizer
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    more = {"pad_token": "</s>", "mask_token": "</s>"} if architecture == "gemma2" else {}
    theirs = maker(vocab=vocabulary, merges=merges, **names, **more)
    ours = from_metadata(metadata)
    for text in ["hello world", " hello  world ", "hé\nllo", "", "wor ld"]:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ours.encode(text)) == theirs.decode(ours.encode(text))
    assert ours.opening_ids == (1,)  # llama.cpp's rule where the file does not say
    assert from_metadata(sentence_piece(**{"ggml.add_bos_token": False})).opening_ids == ()
    assert ours._backend.encode("hello").ids == [1, *ours.encode("hello")]


def test_what_ends_an_answer_and_the_template() -> None:
    ours = from_metadata(sentence_piece(**{"ggml.eot_token_id": 1, "chat_template": "{{ bos_token }}"}))
    assert ours.answer_end_ids == (2, 1)
    assert ours.chat_template == "{{ bos_token }}"


@pytest.mark.parametrize(
    ("metadata", "mend"),
    [
        ({}, "carries no tokenizer"),
        ({"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": ["a"]}, "supported: gpt2, llama"),
        (byte_level("poro-chat"), "rule 'poro-chat', which is not known here"),
        (byte_level(**{"ggml.merges": ["x yz"]}), "vocabulary cannot be used"),
        (byte_level(**{"ggml.tokens": ["a", "a"]}), "a token twice"),
        (sentence_piece(**{"ggml.scores": [1.0]}), "vocabulary cannot be used"),
    ],
)
def test_metadata_that_cannot_be_used(metadata: dict[str, Any], mend: str) -> None:
    with pytest.raises(ConfigError, match=mend) as caught:
        from_metadata(metadata)
    assert caught.value.key == "tokenizer"


def test_every_rule_can_be_compiled() -> None:
    for rule in RULES:
        assert from_metadata(byte_level(rule)).encode("hello")
