"""tiktoken's ids against Hugging Face's: equal where proven, and refused where they are not."""

from __future__ import annotations

import functools
import json
import random
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, trainers

from llm.tokenizers import ranks
from llm.tokenizers.exchange import byte_alphabet
from llm.tokenizers.ranks import (
    GPT2,
    LLAMA3,
    ONE_DIGIT,
    PATTERNS,
    QWEN2,
    Characters,
    Encoder,
    RankedPairs,
    proven,
)

SOURCES = [
    Path(file).read_text() for file in sorted(Path(__file__).parents[1].glob("tokenizers/test_[b-h]*.py"))
]
STRANGE = [
    "naïve café 12345 I'LL it's \u017f '\u017f 'K\u212a \u00a0\u2003 x\u200b\u0301",
    "世界 日本 12,345.67\r\n\r\n   \n\t if x:\n        return\n",
    "🙂👩‍👩‍👧 \U000e0041 \U0010fffd \x00 ²³ ⅷ ١٢٣ ",
    " " * 70 + "a" * 70 + "=" * 70,
    "",
]


def splits(rule: str) -> Any:
    return pre_tokenizers.Split(Regex(rule), "isolated")


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
RULES: dict[str, Any] = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama 3": pre_tokenizers.Sequence([splits(LLAMA3), BYTES]),
    "qwen 2": pre_tokenizers.Sequence([splits(QWEN2), BYTES]),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "smollm": pre_tokenizers.Sequence([splits(ONE_DIGIT), splits(GPT2), BYTES]),
}


@functools.cache
def _trained(rule: str) -> str:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = RULES[rule]
    learn = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*SOURCES, *STRANGE * 3], learn)
    return backend.to_str()


def made(rule: str = "gpt-2") -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer.from_str(_trained(rule))
    backend.encode_special_tokens = True
    return backend


def ids(backend: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    return [one.ids for one in backend.encode_batch(texts, add_special_tokens=False)]


@functools.cache
def both(rule: str) -> tuple[tokenizers.Tokenizer, RankedPairs]:
    backend = made(rule)
    found = proven(backend)
    assert found is not None
    return backend, found


@pytest.mark.parametrize("rule", RULES)
def test_ids_are_those_of_the_library(rule: str) -> None:
    backend, ranked = both(rule)
    texts = [*SOURCES, *STRANGE]
    assert ranked.encode_batch(texts) == ids(backend, texts)
    assert sum(ranked._safe(texts)) >= len(texts) - 1  # nearly all of them by tiktoken


ALPHABET = st.one_of(
    st.sampled_from(
        ["a", "e", "the", "in", " ", "  ", "\n", "\r\n", "\t", "1", "234", "'s", "'LL", "=", "()", "é"]
    ),
    st.characters(),
)


@pytest.mark.parametrize("rule", RULES)
@given(parts=st.lists(ALPHABET, max_size=25))
@settings(max_examples=60, deadline=None)
def test_ids_of_any_text(rule: str, parts: list[str]) -> None:
    backend, ranked = both(rule)
    text = "".join(parts).encode("utf-8", "replace").decode()
    assert ranked.encode_batch([text]) == ids(backend, [text])


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_any_list_of_merges(seed: int) -> None:
    """Merges that no training would give: where there is a proof, the ids are equal all the same."""
    chance = random.Random(seed)
    tokens, merges = ["a", "b", "c"], []
    for _ in range(chance.randrange(1, 12)):
        pair = chance.choice(tokens), chance.choice(tokens)
        if len("".join(pair)) <= 6 and "".join(pair) not in tokens:
            merges.append(pair)
            tokens.append("".join(pair))
    backend = by_hand(merges, ignore_merges=chance.random() < 0.5)
    ranked = proven(backend)
    if ranked is not None:
        texts = ["".join(chance.choices("abc", k=chance.randrange(1, 40))) for _ in range(40)]
        assert ranked.encode_batch(texts) == ids(backend, texts)


def by_hand(merges: list[tuple[str, str]], *, ignore_merges: bool = False, more: tuple[str, ...] = ()) -> Any:
    names = dict.fromkeys([*byte_alphabet(), *map("".join, merges), *more])
    vocabulary = {name: number for number, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges))
    backend.pre_tokenizer = RULES["gpt-2"]
    backend.encode_special_tokens = True
    return backend


def test_many_lists_of_merges_are_proven() -> None:
    """Else the test before this one would say nothing."""
    assert proven(by_hand([("a", "b"), ("ab", "c"), ("c", "ab")])) is not None


def changed(**changes: Any) -> tokenizers.Tokenizer:
    about = json.loads(made().to_str())
    for key, value in changes.items():
        about["model" if key in about["model"] else key] = (
            about["model"] | {key: value} if key in about["model"] else value
        )
    backend = tokenizers.Tokenizer.from_str(json.dumps(about))
    backend.encode_special_tokens = True
    return backend


def test_where_nothing_is_proven() -> None:
    # Two ways to make a token; a token two tokens make, though no merge does; ids in another order.
    assert proven(by_hand([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")])) is None
    assert proven(by_hand([("a", "b")], more=("abc",), ignore_merges=True)) is None
    assert proven(by_hand([("c", "a"), ("a", "b")])) is not None
    swapped = json.loads(by_hand([("c", "a"), ("a", "b")]).to_str())
    swapped["model"]["merges"].reverse()
    swapped = tokenizers.Tokenizer.from_str(json.dumps(swapped))
    swapped.encode_special_tokens = True
    assert proven(swapped) is None
    # Another model, rule, normaliser, or one that drops merges by chance; text that spells special tokens.
    assert proven(changed(dropout=0.1)) is None
    assert proven(changed(pre_tokenizer=None)) is None
    assert proven(changed(normalizer={"type": "Lowercase"})) is None
    bare = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    bare.encode_special_tokens = True
    assert proven(bare) is None
    other = made()
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert proven(other) is None
    other.pre_tokenizer = pre_tokenizers.Sequence([splits(r"\d+"), BYTES])
    assert proven(other) is None
    plain = made()
    plain.encode_special_tokens = False
    assert proven(plain) is None
    cutting = made()
    cutting.enable_truncation(5)
    assert proven(cutting) is None


def test_tokens_that_no_merge_reaches() -> None:
    unreached = by_hand([("a", "b")], more=("abc",))
    ranked = proven(unreached)
    assert ranked is not None
    assert ranked.encode_batch(["abc abcabc"]) == ids(unreached, ["abc abcabc"])
    whole = by_hand([("a", "b")], more=("abcc",), ignore_merges=True)
    ranked = proven(whole)
    assert ranked is not None
    found = ranked.encode_batch(["abcc xabcc"])
    assert found == ids(whole, ["abcc xabcc"])
    assert found[0][0] == whole.token_to_id("abcc")


def test_bytes_that_the_vocabulary_lacks() -> None:
    """As SmolLM2's does; the library leaves them out of a text."""
    lacking = json.loads(by_hand([("a", "b")]).to_str())
    alphabet = byte_alphabet()
    for value in (0x04, 0xC3):
        del lacking["model"]["vocab"][alphabet[value]]
    lacking = tokenizers.Tokenizer.from_str(json.dumps(lacking))
    lacking.encode_special_tokens = True
    ranked = proven(lacking)
    assert ranked is not None
    texts = ["ab", "ab\x04", "abé", "ab世"]
    assert ranked._safe(texts) == [True, False, False, True]
    assert ranked.encode_batch(texts) == ids(lacking, texts)


def test_texts_in_doubt_go_to_the_library() -> None:
    backend = made()
    backend.add_tokens([AddedToken("<think>", normalized=False)])
    composing = made()
    composing.normalizer = normalizers.NFC()
    many = " \n" * (ranks.MOST_SPACES // 2)
    texts = ["a <think> b", "plain", "cafe\u0301", f"a{many}b", f"a{many[1:]}b", " a" * ranks.MOST_SPACES, ""]
    for one, safe in (
        (backend, [False, True, True, False, True, True, True]),
        (composing, [True, True, False, False, True, True, True]),
    ):
        ranked = proven(one)
        assert ranked is not None
        assert ranked._safe(texts) == safe
        assert ranked.encode_batch(texts) == ids(one, texts)


@pytest.mark.parametrize("pattern", PATTERNS.values())
def test_long_words_of_any_kind_are_no_burden(pattern: str) -> None:
    encoding = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=one_byte_each(), special_tokens={})
    for character in ("a", "1", ".", "'", "é", "世"):
        text = character * (1 << 20)
        assert len(encoding.encode_ordinary(text)) == len(text.encode())


def one_byte_each() -> dict[bytes, int]:
    """Ranks of a vocabulary that joins nothing."""
    return {bytes([value]): value for value in range(256)}


def test_a_character_of_which_the_tables_differ_is_found() -> None:
    about = json.loads(made().to_str())["pre_tokenizer"]
    text = "a é ß 世 ٣ \u2003 ½"
    assert Characters(about, GPT2).doubtful([text]) == frozenset()
    for one, kind in (("é", "L"), ("٣", "N")):
        pattern = GPT2.replace(rf" ?\p{{{kind}}}+", rf" ?[^\P{{{kind}}}{one}]+").replace(
            r"[^\s\p{L}\p{N}]", rf"(?:{one}|[^\s\p{{L}}\p{{N}}])"
        )
        assert Characters(about, pattern).doubtful([text]) == {one}
    no_space = GPT2.replace(r"[^\s\p{L}\p{N}]", r"(?:\u2003|[^\s\p{L}\p{N}])")
    assert Characters(about, no_space).doubtful([text]) == {"\u2003"}


def test_a_batch_takes_the_fast_way_when_it_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = made()
    encode = Encoder(backend)
    short = ["short", "a\ud800b"]
    assert encode(short) == ids(backend, ["short", "a\ufffdb"])
    assert encode._ranked is None
    monkeypatch.setattr(ranks, "ENOUGH_CHARACTERS", 4)
    assert encode(short) == ids(backend, ["short", "a\ufffdb"])
    assert encode._ranked is not None
    for count in ("1", "3"):
        monkeypatch.setenv("RAYON_NUM_THREADS", count)
        assert ranks.threads() == int(count)
        assert encode(SOURCES) == ids(backend, SOURCES)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert ranks.threads() == 1


def test_a_sample_that_differs_ends_it() -> None:
    backend, other = made(), made("digits")
    ranked = proven(other)
    assert ranked is not None
    encode = Encoder(backend)
    encode._ranked, encode._tried = RankedPairs(backend, ranked._encoding), True
    assert encode(["in 12345 words"]) == ids(backend, ["in 12345 words"])
    assert encode._ranked is None


def test_the_standard_library() -> None:
    backend, ranked = both("gpt-2")
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-c]*.py"))[:12]
    texts = [file.read_bytes().decode("utf-8", "replace") for file in files]
    assert sum(map(len, texts)) > 200_000
    assert ranked.encode_batch(texts) == ids(backend, texts)
