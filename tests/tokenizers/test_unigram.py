"""Unigram: the most probable pieces, the same vocabulary every time, any text, and files others read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.tokenizers import base, unigram
from llm.tokenizers.unigram import FIXED
from llm.types import ConfigError

TEXTS = [
    "the quick brown fox jumps over the lazy dog and the quicker cat\n" * 10,
    "def f(x):\n    return x\n" * 10,
    *("then they and other then with them and another there " * 5,) * 3,
    *("unhappy unhappiest happier happy happiness quickness quickly " * 5,) * 3,
]


def test_fixed_ids_come_first() -> None:
    tokenizer = unigram.train(TEXTS, vocab_size=340)
    assert dict(tokenizer.special_ids) == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    assert tokenizer.eos_id == 0
    assert tokenizer.decode([4 + 65]) == "A"
    assert len(FIXED) < tokenizer.vocab_size <= 340


def test_frequent_words_become_one_piece_and_unknown_characters_bytes() -> None:
    tokenizer = unigram.train(TEXTS, vocab_size=400)
    assert len(tokenizer.encode(" the")) == 1
    assert tokenizer.encode("é€") == [4 + byte for byte in "é€".encode()]


def test_the_most_probable_way_to_write_a_word_is_taken() -> None:
    """Against every way to write it."""
    tokenizer = unigram.train(TEXTS, vocab_size=330)
    scores: dict[str, float] = dict(json.loads(tokenizer.vocabulary())["model"]["vocab"][len(FIXED) :])

    def ways(word: str) -> list[tuple[float, list[str]]]:
        if not word:
            return [(0.0, [])]
        return [
            (scores[word[:end]] + score, [word[:end], *rest])
            for end in range(1, len(word) + 1)
            if word[:end] in scores
            for score, rest in ways(word[end:])
        ]

    for word in (" unhappiest", " quickness", " happily"):
        best = max(score for score, _ in ways(word))
        pieces = [tokenizer.decode([index]) for index in tokenizer.encode(word)]
        assert math.isclose(sum(scores[piece] for piece in pieces), best, abs_tol=1e-9)


@given(parts=st.lists(st.sampled_from(["<0x41>", "<unk>", "▁", "▁the", "<", "0x", "41", ">", " ", "\ufffd"])))
def test_text_that_looks_like_the_vocabularys_own_names_comes_back(parts: list[str]) -> None:
    text = "".join(parts)
    ids = LEARNED.encode(text)
    assert LEARNED.decode(ids) == text
    assert not set(ids) & {0, 1, 2, 3}


LEARNED = unigram.train([*TEXTS, "<0x41> <unk> ▁the <0x42>" * 20], vocab_size=400)

PROGRAM = """
import sys, hashlib
from llm.tokenizers import unigram
text = sys.stdin.read()
print(hashlib.sha256(unigram.train([text], vocab_size=700).vocabulary().encode()).hexdigest(), end="")
"""


def test_training_gives_the_same_vocabulary_in_every_process() -> None:
    text = Path(base.__file__).read_text() + "naïve café 世界 ²\n" * 3
    found = set()
    for threads in ("1", "3"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads}
        answer = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=text.encode(),
            env=environment,
            capture_output=True,
            check=True,
        )
        found.add(answer.stdout.decode())
    here = unigram.train([text], vocab_size=700).vocabulary()
    assert found == {hashlib.sha256(here.encode()).hexdigest()}


def test_what_chance_decides_in_the_library_is_settled() -> None:
    learned = [("<unk>", 0.0), ("ab", -2.0), ("a", -2.0 + 1e-9), ("zz", -5.0), ("y", -5.0001), ("x", -5.0002)]
    other = [*learned[:4], ("x", -5.0001), ("y", -5.0002 - 1e-12)]
    want = [("a", -2.0), ("ab", -2.0), ("zz", -5.0), ("x", -5.0002), ("y", -5.0002)]
    assert unigram._settled(learned) == unigram._settled(other) == want


def test_rare_characters_are_left_to_bytes() -> None:
    text = "ab " * 1000 + "é"
    assert len(unigram.train([text], vocab_size=300).encode("é")) == 2
    assert len(unigram.train([text], vocab_size=300, character_coverage=1.0).encode("é")) == 1


def test_nothing_to_learn_from() -> None:
    tokenizer = unigram.train([], vocab_size=300)
    assert tokenizer.vocab_size == len(FIXED)
    assert tokenizer.decode(tokenizer.encode("any text é")) == "any text é"


def test_hugging_face_reads_the_file_to_the_same_ids(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    LEARNED.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    for text in [*TEXTS, "naïve 世界"]:
        ids = theirs(text)["input_ids"]
        assert ids == LEARNED.encode(text)
        assert theirs.decode(ids) == text


def test_too_small_a_vocabulary() -> None:
    with pytest.raises(ConfigError, match="at least 261") as caught:
        unigram.train(TEXTS, vocab_size=260)
    assert caught.value.key == "vocab_size"
