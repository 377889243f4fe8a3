"""Bytes: ids are UTF-8."""

from __future__ import annotations

from llm.tokenizers import byte


def test_ids_are_utf8() -> None:
    tokenizer = byte.train(["not read"])
    assert tokenizer.encode("Aé") == [65, 0xC3, 0xA9]
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (259, 256)
    assert tokenizer.decode([0xC3]) == "\ufffd"
    assert tokenizer.decode([65, 256, 66]) == "A<|endoftext|>B"
