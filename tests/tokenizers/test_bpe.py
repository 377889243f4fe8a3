"""Byte-level BPE: the same vocabulary every time, any byte, and Hugging Face reads what is saved."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm.tokenizers import bpe
from llm.tokenizers.base import Corpus
from llm.types import ConfigError

TEXTS = [
    "the quick brown fox jumps over the lazy dog and the quicker cat\n" * 10,
    "def f(x):\n    return x\n" * 10,
]


def test_every_byte_has_an_id_before_any_merge() -> None:
    tokenizer = bpe.train([], vocab_size=259)
    assert tokenizer.vocab_size == 259
    every_character_of_one_or_two_bytes = "".join(map(chr, range(0x800)))
    assert (
        tokenizer.decode(tokenizer.encode(every_character_of_one_or_two_bytes))
        == every_character_of_one_or_two_bytes
    )
    assert len(tokenizer.encode("é")) == 2


def test_special_ids_come_first() -> None:
    tokenizer = bpe.train(TEXTS, vocab_size=300)
    assert dict(tokenizer.special_ids) == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    assert tokenizer.eos_id == 0


def test_frequent_words_become_one_token() -> None:
    tokenizer = bpe.train(TEXTS, vocab_size=320)
    assert len(tokenizer.encode(" the")) == 1
    assert tokenizer.vocab_size <= 320


def test_half_a_character_decodes_to_the_replacement_character() -> None:
    tokenizer = bpe.train([], vocab_size=259)
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "\ufffd"


def test_only_the_sample_of_a_corpus_is_learned_from() -> None:
    def held_out() -> list[str]:
        raise AssertionError("the validation part was read")

    class Forbidden:
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(held_out())

    with_corpus = bpe.train(Corpus(sample=TEXTS, everything=Forbidden()), vocab_size=300)
    assert with_corpus.vocabulary() == bpe.train(TEXTS, vocab_size=300).vocabulary()


PROGRAM = """
import sys, hashlib
from llm.tokenizers import bpe
text = sys.stdin.read()
print(hashlib.sha256(bpe.train([text], vocab_size=1000).vocabulary().encode()).hexdigest())
"""


def test_training_gives_the_same_vocabulary_in_every_process(shared_dir: Path) -> None:
    text = gzip.decompress((shared_dir / "data/tinyshakespeare/input.txt.gz").read_bytes())[:300_000]
    found = set()
    for threads, seed in (("1", "0"), ("4", "1")):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        answer = subprocess.run(
            [sys.executable, "-c", PROGRAM], input=text, env=environment, capture_output=True, check=True
        )
        found.add(answer.stdout)
    assert len(found) == 1


def test_hugging_face_reads_the_file_to_the_same_ids(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = bpe.train(TEXTS, vocab_size=300)
    tokenizer.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)


def test_too_small_a_vocabulary() -> None:
    with pytest.raises(ConfigError, match="at least 259") as caught:
        bpe.train(TEXTS, vocab_size=258)
    assert caught.value.key == "vocab_size"
