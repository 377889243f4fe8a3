"""Ids that stand for gaps: above any tokenizer's own, kept apart from text, saved with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm.tokenizers import bpe, byte, character
from llm.tokenizers.base import load, special_ids
from llm.tokenizers.sentinels import SentinelTokenizer, sentinel, sentinels_of, with_sentinels
from llm.types import ConfigError, Tokenizer

TEXT = "Thank you for inviting me, é <extra_id_0> <|endoftext|>. " * 5
INNER = {
    "byte": byte.train([]),
    "bpe": bpe.train([TEXT], vocab_size=300),
    "character": character.train([TEXT]),
}


@pytest.fixture(params=INNER)
def inner(request: pytest.FixtureRequest) -> Tokenizer:
    return INNER[request.param]


def test_sentinels_lie_above_the_vocabulary(inner: Tokenizer) -> None:
    tokenizer = SentinelTokenizer(inner, 3)
    n = inner.vocab_size
    assert tokenizer.vocab_size == n + 3
    assert sentinels_of(tokenizer) == [n, n + 1, n + 2]
    assert tokenizer.eos_id == inner.eos_id
    assert special_ids(tokenizer).items() >= special_ids(inner).items()


def test_text_stays_text(inner: Tokenizer) -> None:
    tokenizer = SentinelTokenizer(inner, 3)
    assert tokenizer.encode(TEXT) == inner.encode(TEXT)
    assert tokenizer.encode_batch([TEXT, "me"]) == [inner.encode(TEXT), inner.encode("me")]
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    n, ids = inner.vocab_size, inner.encode("Thank you")
    assert tokenizer.decode([*ids, n, n + 2, *ids, n + 3]) == "Thank you<extra_id_0><extra_id_2>Thank you"


def test_it_is_saved_with_the_tokenizer_it_stands_on(inner: Tokenizer, tmp_path: Path) -> None:
    tokenizer = SentinelTokenizer(inner, 5)
    tokenizer.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, SentinelTokenizer)
    assert (again.vocab_size, again.n_sentinels) == (tokenizer.vocab_size, 5)
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert special_ids(again) == special_ids(tokenizer)


@pytest.mark.parametrize("content", [{}, {"n_sentinels": 0}, {"n_sentinels": True}, {"n_sentinels": "5"}])
def test_damage_is_noticed(content: dict[str, object], tmp_path: Path) -> None:
    SentinelTokenizer(INNER["byte"], 5).save(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="no number of sentinels"):
        load(tmp_path)


def test_damage_below_is_noticed(tmp_path: Path) -> None:
    SentinelTokenizer(INNER["byte"], 5).save(tmp_path)
    (tmp_path / "inner" / "kind.json").unlink()
    with pytest.raises(ConfigError, match=r"kind\.json cannot be read"):
        load(tmp_path)


def test_a_tokenizer_that_has_sentinels_keeps_them() -> None:
    tokenizer = with_sentinels(INNER["byte"], 4)
    assert with_sentinels(tokenizer, 3) is tokenizer
    with pytest.raises(ConfigError, match="has 4 already") as caught:
        with_sentinels(tokenizer, 5)
    assert caught.value.key == "n_sentinels"
    assert sentinels_of(INNER["byte"]) == []
    assert sentinel(12) == "<extra_id_12>"
