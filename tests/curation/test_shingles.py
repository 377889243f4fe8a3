from __future__ import annotations

import random
import re

import numpy as np
import pytest

from llm.curation import shingles as module
from llm.curation.near_duplicates import shingles as reference_shingles
from llm.curation.shingles import BASE, Shingler, Shingles, batches

MASK = (1 << 64) - 1
TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the quick brown fox jumps again!",
    "",
    "one",
    "...",
    "snake_case and 12 numbers 3½ in ÄÖÜ, straße; Ωμέγα ΣΊΣΥΦΟΣ",
    "日本語の文章です。ABC def",
    "हिन्दी में लिखा हुआ एक वाक्य है",
    "cafe\u0301 au lait",
    "x\0y\nz",
    "İstanbul, DİYARBAKIR and back",
    "❤️ emoji ❤️ are no words",
    "ภาษาไทย",
]


def mixed(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def polynomial(values: list[int]) -> int:
    return mixed(sum(value * pow(BASE, place, 1 << 64) for place, value in enumerate(values)) & MASK)


def plain_words(text: str) -> list[str]:
    kinds = module.character_kinds()
    words, running = [], False
    for character in text.lower():
        kind = kinds[ord(character)]
        if kind == module.OWN_WORD or (kind == module.IN_WORD and not running):
            words.append(character)
        elif kind == module.IN_WORD:
            words[-1] += character
        running = kind == module.IN_WORD
    return words


def plain(text: str, unit: str, length: int) -> list[int]:
    if unit == "word":
        units = [polynomial([ord(c) for c in word]) for word in plain_words(text)]
    else:
        kinds = module.character_kinds()
        spaced = "".join(c if kinds[ord(c)] else " " for c in text.lower())
        units = [ord(c) for c in re.sub(" +", " ", spaced).strip()]
    if not units:
        return []
    return [polynomial(units[i : i + length]) for i in range(max(len(units) - length + 1, 1))]


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("unit", ["word", "character"])
def test_hashes_against_plain_python(unit, length):
    found = Shingler(unit, length)(TEXTS)
    assert [one.tolist() for one in found.split()] == [plain(text, unit, length) for text in TEXTS]
    alone = [Shingler(unit, length)([text]).hashes.tolist() for text in TEXTS]
    assert alone == [one.tolist() for one in found.split()], "a text's neighbours do not matter"
    assert not len(Shingler(unit, length)([]).hashes)


def test_hashes_stay_what_they_are():
    # stored indexes rest on them
    assert Shingler("word", 2)(["Hello, new world"]).hashes.tolist() == plain("Hello, new world", "word", 2)
    assert Shingler("word", 2)(["Hello, new world"]).hashes.tolist() == [
        14825374564647333354,
        1098557383583866731,
    ]


def test_distinct_sets_against_the_reference():
    choice = random.Random(0)
    texts = [" ".join(choice.choices("abcdefg", k=choice.randrange(40))) for _ in range(50)]
    for n_words in (1, 3):
        cut = Shingler("word", n_words)(texts)
        sets = cut.distinct()
        assert sets.counts.tolist() == [len(reference_shingles(text, n_words)) for text in texts]
        assert [one.tolist() for one in sets.split()] == [sorted(set(one.tolist())) for one in cut.split()]


def test_words_of_scripts():
    def count(text: str) -> int:
        return len(Shingler("word", 1)([text]).hashes)

    assert count("日本語です") == 5, "each character where there are no spaces"
    assert count("한국어 문장") == 2
    assert count("हिन्दी में") == 2, "vowel signs belong to their word"
    assert count("❤️ ok") == 1
    same = [Shingler("word", 3)([text]).hashes.tolist() for text in ("Ein, zwei DREI!", "ein\n\nzwei - drei")]
    assert same[0] == same[1]


def test_different_words_have_different_hashes():
    words = [f"{a}{b}{c}" for a in "abcdefghijklmnopqrst" for b in "abcdefghij" for c in range(100)]
    assert len(set(Shingler("word", 1)([" ".join(words)]).hashes.tolist())) == len(words)
    # hash values are spread: each bit is set in about half of them
    bits = np.unpackbits(Shingler("word", 1)([" ".join(words)]).hashes.view(np.uint8)).reshape(-1, 64)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.02


def test_a_text_longer_than_a_batch(monkeypatch):
    long = " ".join(str(number) for number in range(60_000))
    assert len(long) > 2 * module.BATCH_CHARS
    found = Shingler("word", 3)([long, "a b c"])
    assert found.counts.tolist() == [59_998, 1]
    assert found.hashes[-1] == plain("a b c", "word", 3)[0]
    assert found.hashes[59_997] == plain("59997 59998 59999", "word", 3)[0]


def test_batches_hold_all_texts_in_order(monkeypatch):
    monkeypatch.setattr(module, "BATCH_CHARS", 10)
    texts = ["a" * size for size in (3, 4, 5, 100, 0, 0, 9)]
    parts = list(batches(texts))
    assert [text for part in parts for text in part] == texts
    assert [len(part) for part in parts] == [3, 1, 3]
    assert list(batches([])) == []


def test_texts_without_shingles_are_left_out():
    found = Shingles(np.arange(3, dtype=np.uint64), np.array([0, 2, 2, 3])).having_some()
    assert found.ends.tolist() == [2, 3]
